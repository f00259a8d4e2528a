"""What the tensors of the published denoiser are called, in both layouts, and what they are here.

Original: `uvit_v0.pth` and `uvit_v1.pth`. Diffusers: `unet/` of a pipeline folder. Both hold the
same numbers, but that the second stores queries, keys and values apart and the patch embedding
twice.
"""

from collections.abc import Collection, Mapping

import torch
from einops import rearrange
from torch import Tensor

from unigen.errors import CheckpointError

#: Names outside of the blocks: here, original, diffusers.
_ENDS = (
    ("embed.image", "patch_embed.proj", "vae_img_in.proj"),
    ("embed.image__global", "clip_img_embed", "clip_img_in"),
    ("embed.text", "text_embed", "text_in"),
    ("head_out.image", "decoder_pred", "vae_img_out"),
    ("head_out.image__global", "clip_img_out", "clip_img_out"),
    ("head_out.text", "text_out", "text_out"),
    ("norm", "norm", "transformer.norm_out"),
)
#: Names inside a block: here, original, diffusers.
_INSIDE = (
    ("out", "attn.proj", "attn1.to_out.0"),
    ("norm1", "norm2", "norm1"),
    ("norm2", "norm3", "norm3"),
    ("ffn.0", "mlp.fc1", "ff.net.0.proj"),
    ("ffn.2", "mlp.fc2", "ff.net.2"),
)
_SKIP = (("skip", "skip_linear", "skip.skip_linear"), ("norm0", "norm1", "skip.norm"))
_WHOLE = (  # tensors that are no layer: here, original, diffusers
    ("kind.weight", "token_embedding.weight", "data_type_token_embedding.weight"),
    ("place_kind", "pos_embed_token", "data_type_pos_embed_token"),
)
_SEQUENCE = ("text", "image:global", "image")  # the order of learned positions, after two clocks
_LAYOUTS = ("original", "diffusers")
_UNUSED = ("transformer.pos_embed.proj.weight", "transformer.pos_embed.proj.bias")


def layout_of(tensors: Mapping[str, Tensor], what: str) -> str:
    """Tell whose names these are: "original" or "diffusers"; what: their name in errors."""
    marks = {"patch_embed.proj.weight": "original", "vae_img_in.proj.weight": "diffusers"}
    for mark, layout in marks.items():
        if mark in tensors:
            return layout
    raise CheckpointError(
        f"{what} holds neither {' nor '.join(marks)}, so it is no UniDiffuser denoiser; "
        "name the folder unet/ of a UniDiffuser pipeline, or a converted one."
    )


def names(depth: int, layout: str, kinds: bool) -> dict[str, str]:
    """Return what the tensors are called: here to there. Positions have one name there."""
    there, middle = 1 + _LAYOUTS.index(layout), depth // 2
    found = {row[0]: row[there] for row in _WHOLE if kinds} | {"place": "pos_embed"}
    layers = {row[0]: row[there] for row in _ENDS}
    for i in range(depth):
        late = i > middle
        where = _block(i, middle, layout)
        inner = f"{where}.block" if late and layout == "diffusers" else where
        layers |= {f"blocks.{i}.{row[0]}": f"{inner}.{row[there]}" for row in _INSIDE}
        layers |= {f"blocks.{i}.{row[0]}": f"{where}.{row[there]}" for row in _SKIP if late}
        if layout == "original":
            found[f"blocks.{i}.qkv.weight"] = f"{inner}.attn.qkv.weight"
        else:
            found |= {f"blocks.{i}.{k}.weight": f"{inner}.attn1.to_{k}.weight" for k in "qkv"}
    for here, name in layers.items():
        found |= {f"{here}.{kind}": f"{name}.{kind}" for kind in ("weight", "bias")}
    return found


def translate(
    tensors: Mapping[str, Tensor], depth: int, counts: Mapping[str, int], kinds: bool, what: str
) -> dict[str, Tensor]:
    """Return the tensors under the names that `PublishedUViT` has.

    depth: blocks; counts: tokens by part; kinds: whether there are kinds of data (version 1); what:
    their name in errors. Raises CheckpointError for weights of something else, and for missing and
    unknown ones, each by its name.
    """
    wanted = names(depth, layout_of(tensors, what), kinds)
    _complete(wanted.values(), tensors, kinds, what)
    made = {here: tensors[there] for here, there in wanted.items()}
    for i in range(depth):
        if f"blocks.{i}.q.weight" in made:
            made[f"blocks.{i}.qkv.weight"] = torch.cat(
                [made.pop(f"blocks.{i}.{k}.weight") for k in "qkv"]
            )
    made["embed.image.weight"] = made["embed.image.weight"].flatten(1)
    if kinds:
        made["place_kind"] = made["place_kind"].flatten(0, 1)
    for kind in ("weight", "bias"):  # patches come in as (c p q) and leave as (p q c)
        head = made[f"head_out.image.{kind}"]
        made[f"head_out.image.{kind}"] = rearrange(head, "(p q c) ... -> (c p q) ...", p=2, q=2)
    places, lengths = made.pop("place")[0], [2, *(counts[p] for p in _SEQUENCE)]
    if len(places) != sum(lengths):
        raise CheckpointError(
            f"{what} holds {len(places)} positions in pos_embed, and the configuration wants "
            f"{sum(lengths)}; use the one that came with the weights."
        )
    keys = ("place_clock", *(f"place.{p.replace(':', '__')}" for p in _SEQUENCE))
    return {**made, **dict(zip(keys, places.split(lengths), strict=True))}


def to_diffusers(tensors: Mapping[str, Tensor], depth: int, kinds: bool) -> dict[str, Tensor]:
    """Return tensors with the original's names under those of diffusers, and nothing else.

    depth: blocks; kinds: whether there are kinds of data (version 1). Raises CheckpointError for
    missing and unknown tensors, by name.
    """
    theirs, ours = (names(depth, layout, kinds) for layout in _LAYOUTS)
    _complete(theirs.values(), tensors, kinds, "The denoiser")
    made = {ours[here]: tensors[name] for here, name in theirs.items() if here in ours}
    for i in range(depth):
        parts = tensors[theirs[f"blocks.{i}.qkv.weight"]].chunk(3)
        made |= {ours[f"blocks.{i}.{k}.weight"]: part for k, part in zip("qkv", parts, strict=True)}
    for kind in ("weight", "bias"):  # which diffusers keeps twice
        made[f"transformer.pos_embed.proj.{kind}"] = tensors[f"patch_embed.proj.{kind}"]
    return made


def _complete(
    wanted: Collection[str], tensors: Mapping[str, Tensor], kinds: bool, what: str
) -> None:
    """Raise CheckpointError with the name of every tensor that is missing or unknown."""
    missing = sorted(set(wanted) - set(tensors))
    unknown = sorted(set(tensors) - set(wanted) - set(_UNUSED))
    both = (("lacks", missing), ("holds unknown", unknown))
    faults = [f"{verb} {len(some)} tensors: {', '.join(some)}" for verb, some in both if some]
    if faults:
        raise CheckpointError(
            f"{what} {' and '.join(faults)}, where the configuration is that of version "
            f"{int(kinds)}; use the one that came with the weights."
        )


def _block(i: int, middle: int, layout: str) -> str:
    before = "" if layout == "original" else "transformer.transformer_"
    if i == middle:
        return f"{before}mid_block"
    return f"{before}in_blocks.{i}" if i < middle else f"{before}out_blocks.{i - middle - 1}"
