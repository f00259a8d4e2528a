"""A whole pipeline folder of UniDiffuser as a `UniGen`."""

import hashlib
from pathlib import Path
from typing import Any

from unigen import checkpoint
from unigen.disk import named, parse_json, reading, real_path
from unigen.errors import CheckpointError, UsageError
from unigen.interop import INDEX
from unigen.interop.codecs import pretrained, tokenizer
from unigen.interop.codecs.captions import load_decoder
from unigen.interop.unidiffuser.folder import NAMES, read_denoiser
from unigen.interop.unidiffuser.image import PublishedImage
from unigen.interop.unidiffuser.schedule import DiscreteVP
from unigen.interop.unidiffuser.text import PublishedText
from unigen.modalities.image import Sides
from unigen.model import UniGen
from unigen.registry import brief

#: How each recipe samples. Its clocks are those of `schedule.DiscreteVP`.
_MULTISTEP = "diffusers.DPMSolverMultistepScheduler:3"
RECIPES: dict[str, dict[str, Any]] = {
    "diffusers": {"late": 1, "end": 0.0, "activation": "gelu", "sampler": _MULTISTEP,
                  "steps": 50, "guidance": 8.0, "absent": "one noise", "prefixed": True},
    "original": {"late": 0, "end": 0.001, "activation": "gelu_new", "sampler": "singlestep",
                 "steps": 50, "guidance": 8.0, "absent": "noise", "prefixed": False},
    "unigen": {"late": 0, "end": 0.0, "activation": "gelu_new", "sampler": _MULTISTEP,
               "steps": 20, "guidance": 8.0, "absent": "noise", "prefixed": False},
}  # fmt: skip


def load(folder: str | Path, recipe: str | None = None, size: Sides | None = None) -> UniGen:
    """Load a pipeline folder of UniDiffuser, version 0 or 1, as diffusers writes it.

    recipe: "diffusers" samples as its pipeline does, noise of sentences through the prefix encoder
    included; "original" as the authors' code: a solver of third order at fractional times, which
    ends a thousandth before the data. "unigen" has the clocks, the noise and the activation of the
    original, the solver of diffusers, and fewer steps; it is what None means. size: pixels a side,
    or height and width, if not those of training (512); the learned positions are interpolated.

    Everything is safetensors and JSON; no code of the folder runs. All networks run in the dtype of
    the denoiser's file; clocks, noise and latents stay in float32.
    Raises UsageError for an unknown recipe or no folder, CheckpointError for a fault in it.
    """
    import transformers

    recipe = recipe or "unigen"
    if recipe not in RECIPES:
        raise UsageError(f"recipe={recipe} is unknown; choose one of {', '.join(RECIPES)}.")
    how, root = RECIPES[recipe], real_path(folder)
    denoiser, sha = read_denoiser(root)
    at = _components(root)
    vae = pretrained(at["vae"], kind="AutoencoderKL")
    eye = pretrained(at["image_encoder"], kind="CLIPVisionModelWithProjection")
    encoder = pretrained(at["text_encoder"], kind="CLIPTextModel")
    try:
        processor = transformers.CLIPImageProcessor.from_pretrained(at["clip_image_processor"])
    except (OSError, ValueError, TypeError) as error:
        where = named(at["clip_image_processor"])
        raise CheckpointError(f"{where} cannot be read: {brief(error)}.") from error
    decoder = load_decoder(at["text_decoder"], how["activation"])
    usual = denoiser.side * 2 * 2 ** (len(vae.config.block_out_channels) - 1)
    for net in (vae, eye, encoder, decoder):
        net.to(next(denoiser.parameters()).dtype)
    image = PublishedImage(vae, eye, processor, usual if size is None else size)
    words, letters = tokenizer(at["clip_tokenizer"]), tokenizer(at["text_tokenizer"])
    text = PublishedText(encoder, decoder, words, letters, prefixed=how["prefixed"])
    if decoder.prefix != denoiser.counts["text"]:
        raise CheckpointError(
            f"{named(at['text_decoder'])} has prefix_length = {decoder.prefix}, and the denoiser "
            f"{denoiser.counts['text']} tokens of text; use the folder that came with it."
        )
    denoiser.absent = how["absent"]
    sampling = {
        "steps": how["steps"], "guidance": how["guidance"], "mutual_guidance": how["guidance"],
        "sampler": how["sampler"],
    }  # fmt: skip
    flow = DiscreteVP(late=how["late"], end=how["end"])
    model = UniGen({"image": image, "text": text}, denoiser, flow, sampling)
    # Recipes differ in clocks and activation: a result of one is not replayed by another.
    own = [recipe if image.shape == (3, usual, usual) else f"{recipe} {image.shape}", sha]
    own += [checkpoint.digest(p) for folder in at.values() for p in sorted(folder.iterdir())
            if p.is_file() and folder.name != "unet"]  # fmt: skip
    model.hash = hashlib.sha256(" ".join(own).encode()).hexdigest()[:16]
    return model.eval()


def _components(root: Path) -> dict[str, Path]:
    """Return where every component lies; a missing one is named."""
    with reading(root / INDEX, root, checkpoint.MAX_CONFIG) as (file, _):
        index = parse_json(file.read(), named(root / INDEX))
    found = {}
    for name, names in NAMES.items():
        here = [root / n for n in names if n in index and (root / n).is_dir()]
        if not here:
            raise CheckpointError(
                f"{named(root)} lacks the component {' or '.join(names)}; copy the whole pipeline."
            )
        found[name] = here[0]
    return found
