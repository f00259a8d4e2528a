"""A whole pipeline folder of UniDiffuser as a `UniGen`."""

import hashlib
from pathlib import Path
from typing import Any

from unigen import checkpoint
from unigen.disk import named, parse_json, reading, real_path
from unigen.errors import CheckpointError, UsageError
from unigen.interop import INDEX
from unigen.interop.unidiffuser.captions import CaptionDecoder
from unigen.interop.unidiffuser.folder import CONFIG, WEIGHTS, read_denoiser
from unigen.interop.unidiffuser.image import PublishedImage
from unigen.interop.unidiffuser.schedule import DiscreteVP
from unigen.interop.unidiffuser.text import PublishedText
from unigen.model import UniGen
from unigen.tensorfile import read_weights

#: Components of the folder; two have had two names.
_NAMES = {
    "vae": ("vae",), "text_encoder": ("text_encoder",), "image_encoder": ("image_encoder",),
    "clip_image_processor": ("clip_image_processor", "image_processor", "image_feature_extractor"),
    "clip_tokenizer": ("clip_tokenizer",), "text_decoder": ("text_decoder",),
    "text_tokenizer": ("text_tokenizer",), "unet": ("unet",),
}  # fmt: skip
#: How each recipe samples. Its clocks are those of `schedule.DiscreteVP`.
_MULTISTEP = "diffusers.DPMSolverMultistepScheduler:3"
RECIPES: dict[str, dict[str, Any]] = {
    "diffusers": {"late": 1, "end": 0.0, "activation": "gelu", "sampler": _MULTISTEP,
                  "steps": 50, "guidance": 8.0},
    "original": {"late": 0, "end": 0.001, "activation": "gelu_new", "sampler": "singlestep",
                 "steps": 50, "guidance": 8.0},
    "unigen": {"late": 0, "end": 0.0, "activation": "gelu_new", "sampler": _MULTISTEP,
               "steps": 20, "guidance": 8.0},
}  # fmt: skip


def load(folder: str | Path, recipe: str = "unigen") -> UniGen:
    """Load a pipeline folder of UniDiffuser, version 0 or 1, as diffusers writes it.

    recipe: "diffusers" samples as its pipeline does, "original" as the authors' code: a solver of
    third order at fractional times, which ends a thousandth before the data. "unigen" has the
    clocks and the activation of the original, the solver of diffusers, and fewer steps.

    Everything is safetensors and JSON; no code of the folder runs.
    Raises UsageError for an unknown recipe or no folder, CheckpointError for a fault in it.
    """
    import transformers
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    if recipe not in RECIPES:
        raise UsageError(f"recipe={recipe} is unknown; choose one of {', '.join(RECIPES)}.")
    how, root = RECIPES[recipe], real_path(folder)
    denoiser, sha = read_denoiser(root)
    at = _components(root)
    options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True}
    vae = AutoencoderKL.from_pretrained(at["vae"], **options)
    eye = transformers.CLIPVisionModelWithProjection.from_pretrained(at["image_encoder"], **options)
    encoder = transformers.CLIPTextModel.from_pretrained(at["text_encoder"], **options)
    processor = transformers.CLIPImageProcessor.from_pretrained(at["clip_image_processor"])
    tokenizer = transformers.CLIPTokenizer.from_pretrained(at["clip_tokenizer"])
    speller = transformers.GPT2Tokenizer.from_pretrained(at["text_tokenizer"])
    decoder = load_decoder(at["text_decoder"], root, how["activation"])
    image = PublishedImage(vae, eye, processor, denoiser.side)
    text = PublishedText(tokenizer, encoder, decoder, speller)
    sampling = {
        "steps": how["steps"], "guidance": how["guidance"], "mutual_guidance": how["guidance"],
        "sampler": how["sampler"],
    }  # fmt: skip
    flow = DiscreteVP(late=how["late"], end=how["end"])
    model = UniGen({"image": image, "text": text}, denoiser, flow, sampling)
    # Recipes differ in clocks and activation: a result of one is not replayed by another.
    model.hash = hashlib.sha256(f"{recipe} {sha}".encode()).hexdigest()[:16]
    return model.eval()


def load_decoder(folder: Path, root: Path, activation: str) -> CaptionDecoder:
    """Load the caption decoder of a pipeline folder, whatever activation its file names."""
    with reading(folder / CONFIG, root, checkpoint.MAX_CONFIG) as (file, _):
        config = parse_json(file.read(), named(folder / CONFIG))
    known = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner",
             "layer_norm_epsilon")  # fmt: skip
    sizes = {key: config[key] for key in known if config.get(key) is not None}
    missing = [k for k in ("prefix_length", "prefix_inner_dim", "prefix_hidden_dim")
               if type(config.get(k)) is not int]  # fmt: skip
    if missing:
        raise CheckpointError(f"{named(folder / CONFIG)} lacks {', '.join(missing)}.")
    decoder = CaptionDecoder(
        config["prefix_length"], config["prefix_inner_dim"], config["prefix_hidden_dim"],
        activation_function=activation, **sizes,
    )  # fmt: skip
    tensors, _ = read_weights(folder / WEIGHTS, root, foreign=True)
    head, words = "transformer.lm_head.weight", "transformer.transformer.wte.weight"
    tied = {head: tensors[words]} if words in tensors else {}
    unused = (".attn.bias", ".attn.masked_bias")  # masks that older files hold
    tensors = {k: v for k, v in tensors.items() if not k.endswith(unused)}
    checkpoint.match(decoder, {**tied, **tensors}, named(folder / WEIGHTS))
    return decoder.eval()


def _components(root: Path) -> dict[str, Path]:
    """Return where every component lies; a missing one is named."""
    with reading(root / INDEX, root, checkpoint.MAX_CONFIG) as (file, _):
        index = parse_json(file.read(), named(root / INDEX))
    found = {}
    for name, names in _NAMES.items():
        here = [root / n for n in names if n in index and (root / n).is_dir()]
        if not here:
            raise CheckpointError(
                f"{named(root)} lacks the component {' or '.join(names)}; copy the whole pipeline."
            )
        found[name] = here[0]
    return found
