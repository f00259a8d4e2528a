"""The files of the original UniDiffuser project as components of a pipeline folder."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from unigen.errors import CheckpointError
from unigen.interop.unidiffuser.folder import NAMES, options_of
from unigen.interop.unidiffuser.keys import to_diffusers

WEIGHTS = "diffusion_pytorch_model.safetensors"
FILES = ("uvit_v0.pth", "uvit_v1.pth", "caption_decoder.pth", "autoencoder_kl.pth")
#: Components that the original takes from elsewhere,
#: by the names that their folders have had.
ELSEWHERE = {name: NAMES[name] for name in (
    "text_encoder", "image_encoder", "clip_image_processor", "clip_tokenizer", "text_tokenizer",
)}  # fmt: skip
#: Channels of a head in the published networks; the tensors do not tell.
HEAD = 64
INDEX: dict[str, Any] = {
    "_class_name": "UniDiffuserPipeline",
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    "clip_image_processor": ["transformers", "CLIPImageProcessor"],
    "clip_tokenizer": ["transformers", "CLIPTokenizer"],
    "text_decoder": ["unidiffuser", "UniDiffuserTextDecoder"],
    "text_tokenizer": ["transformers", "GPT2Tokenizer"],
    "unet": ["unidiffuser", "UniDiffuserModel"],
    "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
}
#: What diffusers samples with; this package has clocks of its own.
SCHEDULER: dict[str, Any] = {
    "_class_name": "DPMSolverMultistepScheduler", "beta_start": 0.00085, "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "num_train_timesteps": 1000, "solver_order": 3,
}  # fmt: skip
_VAE = {  # of latent diffusion (Rombach et al. 2022), as far as the tensors do not tell
    "_class_name": "AutoencoderKL", "act_fn": "silu", "layers_per_block": 2, "norm_num_groups": 32,
    "scaling_factor": 0.18215, "sample_size": 512, "in_channels": 3, "out_channels": 3,
}  # fmt: skip

Component = tuple[dict[str, Any], dict[str, Tensor]]


def files_in(folder: Path) -> dict[str, Path]:
    """Return the original project's files by component; empty where there is none of them.

    Raises CheckpointError where some are missing, or both versions of the denoiser are there.
    """
    found = [name for name in FILES if (folder / name).is_file()]
    if not found:
        return {}
    uvit = [name for name in found if name.startswith("uvit")]
    missing = [name for name in FILES[2:] if name not in found]
    if len(uvit) != 1 or missing:
        raise CheckpointError(
            f"Of the original weights here are {', '.join(found)}; wanted are one of "
            f"{' and '.join(FILES[:2])}, {' and '.join(FILES[2:])}."
        )
    names = ("unet", "text_decoder", "vae")
    return {name: folder / file for name, file in zip(names, [*uvit, *FILES[2:]], strict=True)}


def unet(tensors: dict[str, Tensor]) -> Component:
    """Return the denoiser as diffusers has it; sizes are read from the tensors."""
    _want(tensors, ("patch_embed.proj.weight", "text_embed.weight", "clip_img_embed.weight",
                    "pos_embed"), "denoiser")  # fmt: skip
    width, channels = tensors["patch_embed.proj.weight"].shape[:2]
    blocks = {m[1] for k in tensors if (m := re.match(r"(in_blocks\.\d+)\.", k))}
    kinds = "token_embedding.weight" in tensors
    text_dim = tensors["text_embed.weight"].shape[1]
    words = 77  # tokens of CLIP; beside them stand two clocks and the point of the picture
    side = round((tensors["pos_embed"].shape[1] - words - 3) ** 0.5)
    head = min(HEAD, width)
    config: dict[str, Any] = {
        "_class_name": "UniDiffuserModel", "text_dim": text_dim, "num_text_tokens": words,
        "clip_img_dim": tensors["clip_img_embed.weight"].shape[1], "attention_head_dim": head,
        "num_attention_heads": width // head, "in_channels": channels, "out_channels": channels,
        "num_layers": 2 * len(blocks), "sample_size": 2 * side, "patch_size": 2,
        "activation_fn": "gelu", "attention_bias": False, "block_type": "unidiffuser",
        "pre_layer_norm": False, "norm_type": "layer_norm", "ff_final_dropout": True,
        "use_timestep_embedding": False, "num_embeds_ada_norm": 1000,
        "use_data_type_embedding": kinds,
    }  # fmt: skip
    options = options_of(config, "The denoiser")
    return config, to_diffusers(tensors, options["depth"], kinds)


def text_decoder(tensors: dict[str, Tensor]) -> Component:
    """Return the caption decoder as diffusers has it."""
    plain = {k.removeprefix("module."): v for k, v in tensors.items()}
    plain = {re.sub(r"^gpt\.", "transformer.", k): v for k, v in plain.items()}
    masks = (".attn.bias", ".attn.masked_bias")
    plain = {k: v for k, v in plain.items() if not k.startswith("clip") and not k.endswith(masks)}
    words, places = (f"transformer.transformer.{n}.weight" for n in ("wte", "wpe"))
    _want(plain, (words, places, "encode_prefix.weight", "decode_prefix.weight"), "caption decoder")
    hidden, inner = plain["encode_prefix.weight"].shape
    vocabulary, width = plain[words].shape
    layers = {m[1] for k in plain if (m := re.match(r"transformer\.transformer\.h\.(\d+)\.", k))}
    plain.setdefault("transformer.lm_head.weight", plain[words])
    config = {
        "_class_name": "UniDiffuserTextDecoder", "activation_function": "gelu",
        "prefix_length": 77, "prefix_inner_dim": inner, "prefix_hidden_dim": hidden,
        "vocab_size": vocabulary, "n_positions": plain[places].shape[0], "n_embd": width,
        "n_layer": len(layers), "n_head": max(1, width // HEAD),
    }  # fmt: skip
    return config, plain


def vae(tensors: dict[str, Tensor]) -> Component:
    """Return the autoencoder of pictures as diffusers has it, by diffusers' own table of names."""
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    first = "encoder.conv_in.weight"
    _want(tensors, (first, "encoder.down.0.block.0.conv2.weight", "decoder.conv_out.weight",
                    "quant_conv.weight"), "autoencoder")  # fmt: skip
    count = 1 + max(int(m[1]) for k in tensors if (m := re.match(r"encoder\.down\.(\d+)\.", k)))
    widths = [tensors[f"encoder.down.{i}.block.0.conv2.weight"].shape[0] for i in range(count)]
    latent = tensors["quant_conv.weight"].shape[0] // 2
    depth = len({m[1] for k in tensors if (m := re.match(r"encoder\.down\.0\.block\.(\d+)\.", k))})
    config = {
        **_VAE, "block_out_channels": widths, "latent_channels": latent, "layers_per_block": depth,
        "norm_num_groups": min(_VAE["norm_num_groups"], min(widths)),
        "down_block_types": ["DownEncoderBlock2D"] * count,
        "up_block_types": ["UpDecoderBlock2D"] * count,
    }  # fmt: skip
    return config, convert_ldm_vae_checkpoint(tensors, config)


def _want(tensors: Mapping[str, Tensor], names: tuple[str, ...], what: str) -> None:
    if missing := [name for name in names if name not in tensors]:
        raise CheckpointError(
            f"The {what} lacks {', '.join(missing)}; it is another network's file."
        )


#: Which file makes which component.
COMPONENTS: dict[str, Callable[[dict[str, Tensor]], Component]] = {
    "unet": unet, "text_decoder": text_decoder, "vae": vae,
}  # fmt: skip
