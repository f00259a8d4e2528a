"""The published denoiser and caption decoder against diffusers' classes, with random weights.

    python benchmarks/unidiffuser.py
    python benchmarks/unidiffuser.py --layers 4 --repeats 5
    python benchmarks/unidiffuser.py --whole

Both are of version 1 (952.5 M parameters in the denoiser, 1105 tokens, 124.5 M in the decoder) and
take turns, so the ratios hold on a busy machine too. A ratio above 1 means that this package is
faster. apart: largest difference over largest value, against diffusers in float32. Needs 12 GB.

--whole times pipelines from end to end in bfloat16, four steps with the same sampler: a 512 x 512
picture from a prompt, and a caption of a picture. Needs 3 GB of disk, too.
"""

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import transformers
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    UniDiffuserModel,
    UniDiffuserPipeline,
)
from diffusers.pipelines.deprecated.unidiffuser.modeling_text_decoder import UniDiffuserTextDecoder
from einops import rearrange
from PIL import Image
from table import line, machine, table

import unigen
from unigen.interop.codecs.captions import CaptionDecoder
from unigen.interop.unidiffuser.folder import network_of

CONFIG = {"text_dim": 64, "clip_img_dim": 512, "num_text_tokens": 77, "num_attention_heads": 24,
          "attention_head_dim": 64, "in_channels": 4, "out_channels": 4, "sample_size": 64,
          "patch_size": 2, "activation_fn": "gelu", "num_embeds_ada_norm": 1000,
          "use_data_type_embedding": True}  # fmt: skip
CLIP = {"num_hidden_layers": 12, "num_attention_heads": 12, "hidden_size": 768,
        "intermediate_size": 3072}  # fmt: skip
STEPS = 4
WORDS, NEVER = (12, 67), -1  # longest sentences; a token that ends none


def timed(ways: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Return the median seconds of some ways that take turns, after one turn to warm up."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(took) for name, took in times.items()}


@torch.no_grad()
def denoiser(layers: int, repeats: int) -> list[dict]:
    """Time one forward pass of a denoiser with so many layers, batch 1."""
    torch.manual_seed(0)
    peer = UniDiffuserModel(num_layers=layers, **CONFIG).eval()
    config = {**CONFIG, "num_layers": layers}
    ours = network_of(config, {k: v.bfloat16() for k, v in peer.state_dict().items()}, "the peer")
    low = copy.deepcopy(peer).bfloat16()
    z, clip, text = torch.randn(1, 4, 64, 64), torch.randn(1, 1, 512), torch.randn(1, 77, 64)
    patches = rearrange(z, "b c (h p) (w q) -> b (h w) (c p q)", p=2, q=2)
    x = {"image": patches, "image:global": clip, "text": text}
    t = {part: torch.full(tokens.shape[:2], 0.5) for part, tokens in x.items()}
    half = [tensor.bfloat16() for tensor in (z, clip, text)]
    ways: dict[str, Callable[[], Any]] = {
        "unigen bfloat16": lambda: ours(x, t)["text"],
        "diffusers bfloat16": lambda: low(*half, 500, 500)[2],
        "diffusers float32": lambda: peer(z, clip, text, 500, 500)[2],
    }
    exact = ways["diffusers float32"]()
    apart = {k: ((way().float() - exact).abs().max() / exact.abs().max()).item()
             for k, way in ways.items()}  # fmt: skip
    took = timed(ways, repeats)
    own = took["unigen bfloat16"]
    return [{"what": f"denoiser, {layers} layers", "way": name, "seconds": s, "ratio": s / own,
             "apart": apart[name]} for name, s in took.items()]  # fmt: skip


@torch.no_grad()
def captions(words: int, repeats: int) -> list[dict]:
    """Time the beam search of one sentence that does not end early."""
    torch.manual_seed(0)
    peer = UniDiffuserTextDecoder(77, 768, 64, vocab_size=50258, activation_function="gelu").eval()
    ours = CaptionDecoder(77, 768, 64, vocab_size=50258, activation_function="gelu").eval()
    ours.load_state_dict(peer.state_dict())
    z = torch.randn(1, 77, 64)
    ways: dict[str, Callable[[], Any]] = {
        "unigen": lambda: ours.decode(z, NEVER, longest=words)[0],
        "diffusers": lambda: peer.generate_beam(
            input_embeds=peer.decode_prefix(z), device=z.device, eos_token_id=NEVER,
            entry_length=words,
        )[0][0],
    }  # fmt: skip
    same = ways["unigen"]().tolist() == ways["diffusers"]().tolist()
    took = timed(ways, repeats)
    return [{"what": f"caption of {words} tokens", "way": name, "seconds": s,
             "ratio": s / took["unigen"], "apart": 0.0 if same else 1.0}
            for name, s in took.items()]  # fmt: skip


def pipeline(layers: int) -> UniDiffuserPipeline:
    """Return a pipeline of the published sizes with random weights in bfloat16."""
    torch.manual_seed(0)
    signs = [*"abcdefghijklmnopqrstuvwxyz"]
    words = ["<|startoftext|>", "<|endoftext|>", *signs, *(f"{c}</w>" for c in signs)]
    words += [f"<{i}>" for i in range(49408 - len(words))]
    letters = [*signs, "Ġ", *(f"<{i}>" for i in range(50258 - 28)), "<|EOS|>"]
    decoder = UniDiffuserTextDecoder(77, 768, 64, vocab_size=50258, activation_function="gelu")
    head = decoder.transformer.lm_head  # diffusers cannot save tensors that are tied
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    made = UniDiffuserPipeline(
        vae=AutoencoderKL(
            block_out_channels=[128, 256, 512, 512], layers_per_block=2, sample_size=512,
            down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
        ),
        text_encoder=transformers.CLIPTextModel(transformers.CLIPTextConfig(
            bos_token_id=0, eos_token_id=1, pad_token_id=1, **CLIP)),
        image_encoder=transformers.CLIPVisionModelWithProjection(
            transformers.CLIPVisionConfig(patch_size=32, projection_dim=512, **CLIP)),
        clip_image_processor=transformers.CLIPImageProcessor(),
        clip_tokenizer=transformers.CLIPTokenizer(
            vocab={w: i for i, w in enumerate(words)}, merges=[], model_max_length=77),
        text_decoder=decoder,
        text_tokenizer=transformers.GPT2Tokenizer(
            vocab={w: i for i, w in enumerate(letters)}, merges=[], unk_token="<|EOS|>",
            bos_token="<|EOS|>", eos_token="<|EOS|>"),
        unet=UniDiffuserModel(num_layers=layers, **CONFIG),
        scheduler=DPMSolverMultistepScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", solver_order=3),
    )  # fmt: skip
    made.set_progress_bar_config(disable=True)
    return made.to(torch.bfloat16)


def whole(layers: int, repeats: int) -> list[dict]:
    """Time both pipelines from end to end: a picture from a prompt, a caption of a picture."""
    peer = pipeline(layers)
    with tempfile.TemporaryDirectory() as folder:
        peer.save_pretrained(folder)
        model = unigen.load(folder, recipe="diffusers")
    pixels = torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(0))
    picture = Image.fromarray((pixels[0].permute(1, 2, 0) * 255).byte().numpy())
    common = {"num_inference_steps": STEPS, "guidance_scale": 8.0}

    def painted() -> Any:
        peer.set_text_to_image_mode()
        return peer(prompt="a cab at sea", **common).images

    def said() -> Any:
        peer.set_image_to_text_mode()
        return peer(image=picture, **common).text

    tasks = {
        "text to image": (lambda: model.generate(["image"], {"text": "a cab at sea"}, steps=STEPS),
                          painted),
        "image to text": (lambda: model.generate(["text"], {"image": pixels}, steps=STEPS), said),
    }  # fmt: skip
    rows = []
    for task, (ours, theirs) in tasks.items():
        took = timed({"unigen": ours, "diffusers": theirs}, repeats)
        rows += [{"what": f"{task}, {STEPS} steps", "way": name, "seconds": s,
                  "ratio": s / took["unigen"]} for name, s in took.items()]  # fmt: skip
    return rows


def main() -> None:
    """Time both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=30, help="of the denoiser")
    parser.add_argument("--repeats", type=int, default=5, help="timed turns")
    parser.add_argument("--whole", action="store_true", help="pipelines from end to end")
    args = parser.parse_args()
    line({"benchmark": "unidiffuser", **machine()})
    alone = [partial(denoiser, args.layers), *(partial(captions, words) for words in WORDS)]
    rows = []
    for measured in [partial(whole, args.layers)] if args.whole else alone:
        for row in measured(args.repeats):
            line(row)
            rows.append(row)
    table(rows)


if __name__ == "__main__":
    main()
