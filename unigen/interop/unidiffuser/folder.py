"""A pipeline folder of UniDiffuser, as diffusers writes it: `unet/` becomes the denoiser."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unigen import checkpoint
from unigen.disk import named, parse_json, reading, real_path
from unigen.errors import CheckpointError, UsageError
from unigen.interop.hub import MAKE
from unigen.interop.unidiffuser.keys import translate
from unigen.interop.unidiffuser.network import PublishedUViT
from unigen.registry import shown
from unigen.tensorfile import check_finite, read_weights

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
#: Components of the folder, by the names they have had.
NAMES: dict[str, tuple[str, ...]] = {
    "vae": ("vae",), "text_encoder": ("text_encoder",), "image_encoder": ("image_encoder",),
    "clip_image_processor": ("clip_image_processor", "image_processor", "image_feature_extractor"),
    "clip_tokenizer": ("clip_tokenizer",), "text_decoder": ("text_decoder",),
    "text_tokenizer": ("text_tokenizer",), "unet": ("unet",),
}  # fmt: skip
FLOATS = (torch.float32, torch.bfloat16, torch.float16)  # what a denoiser runs in
#: Options that the published networks share; another value would be another network.
_FIXED = {
    "block_type": "unidiffuser", "pre_layer_norm": False, "norm_type": "layer_norm",
    "use_timestep_embedding": False, "use_patch_pos_embed": False, "attention_bias": False,
    "activation_fn": "gelu", "patch_size": 2, "norm_elementwise_affine": True,
}  # fmt: skip
_SIZES = ("text_dim", "clip_img_dim", "num_text_tokens", "num_attention_heads",
          "attention_head_dim", "in_channels", "num_layers", "sample_size")  # fmt: skip


def load_denoiser(folder: str | Path) -> PublishedUViT:
    """Load the denoiser of a pipeline folder, version 0 or 1, in the dtype of its file.

    Reads `unet/config.json` and `unet/diffusion_pytorch_model.safetensors`; no code of the folder
    runs. Raises UsageError where there is no folder, CheckpointError for anything amiss in it:
    every tensor that is missing, unknown or misshapen is named.
    """
    return read_denoiser(folder)[0]


def read_denoiser(folder: str | Path) -> tuple[PublishedUViT, str]:
    """Load as `load_denoiser` does; return the sha256 of its weights in hex, too."""
    root = real_path(folder)
    if not root.is_dir():
        raise UsageError(f"There is no folder {named(root)}; name that of a UniDiffuser pipeline.")
    unet = root / "unet"
    if not unet.is_dir():
        raise CheckpointError(f"{named(root)} has no folder unet; copy the whole pipeline.")
    with reading(unet / CONFIG, root, checkpoint.MAX_CONFIG) as (file, _):
        config = parse_json(file.read(), named(unet / CONFIG))
    if not (unet / WEIGHTS).exists():
        found = ", ".join(sorted(path.name for path in unet.iterdir()))
        raise CheckpointError(f"{named(unet)} lacks {WEIGHTS} and holds {found}; {MAKE}.")
    tensors, sha = read_weights(unet / WEIGHTS, root, foreign=True)
    return network_of(config, tensors, named(unet)), sha


def network_of(config: dict[str, Any], tensors: dict[str, Tensor], what: str) -> PublishedUViT:
    """Build a denoiser from the configuration and the tensors of `UniDiffuserModel`.

    what: the name of the two in errors. The tensors may have the original project's names, too.
    """
    options = options_of(config, what)
    tensors = translate(tensors, options["depth"], options["counts"], bool(options["kinds"]), what)
    dtype = next(iter(tensors.values())).dtype
    if dtype not in FLOATS:
        raise CheckpointError(
            f"{what} holds {dtype}; wanted is float32, bfloat16 or float16: copy it again."
        )
    with torch.device("meta"):
        net = PublishedUViT(**options)
    net = net.to_empty(device="cpu").to(dtype)
    check_finite(tensors, f"Loading {what}", CheckpointError)
    checkpoint.match(net, tensors, what, most=None)
    return net.eval()


def options_of(config: dict[str, Any], what: str) -> dict[str, Any]:
    """Return the network's options from the configuration of diffusers' `UniDiffuserModel`.

    Raises CheckpointError, with `what` as the name of the file, for a network of another kind.
    """
    for key, value in _FIXED.items():
        if config.get(key, value) != value:
            raise CheckpointError(
                f"{what} has {key} = {shown(config[key])}; every published UniDiffuser has "
                f"{shown(value)}, and no other is read."
            )
    sizes: dict[str, int] = {}
    for key in _SIZES:
        value = config.get(key)
        if type(value) is not int or not 0 < value < 1 << 16:
            raise CheckpointError(f"{what} has {key} = {shown(value)}; a whole number was wanted.")
        sizes[key] = value
    side, head = sizes["sample_size"] // 2, sizes["attention_head_dim"]
    if config.get("out_channels") not in (None, sizes["in_channels"]):
        raise CheckpointError(f"{what} has other out_channels than in_channels; none is known.")
    return {
        "parts": {"text": sizes["text_dim"], "image:global": sizes["clip_img_dim"],
                  "image": 4 * sizes["in_channels"]},
        "counts": {"text": sizes["num_text_tokens"], "image:global": 1, "image": side**2},
        "width": head * sizes["num_attention_heads"],
        "depth": sizes["num_layers"] // 2 * 2 + 1,
        "head": head,
        "kinds": 2 if config.get("use_data_type_embedding") else 0,
    }  # fmt: skip
