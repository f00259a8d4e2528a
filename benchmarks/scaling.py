"""The tables of docs/scaling.md: what a step of a 100 M, 1 B and 7 B denoiser costs on N GPUs.

    python benchmarks/scaling.py

Everything is computed by `unigen.plan`, nothing is measured; seconds are those of `Speed()`, an
H100. Prints Markdown.
"""

import torch

from unigen.objectives import Denoise
from unigen.plan import PROCESSES, Speed, Step
from unigen.uvit import UViT

#: Numbers of a token, and tokens of a sample: a caption, a picture of 512 x 512, a clip, a sound.
PARTS = {"text": (64, 128), "image": (16, 1024), "video": (16, 4096), "audio": (64, 512)}
SIZES = {"100 M": (640, 13), "1 B": (1536, 23), "7 B": (3072, 41)}  # width and depth
BATCH = 512


def main() -> None:
    """Print one table a size."""
    tokens = {part: n for part, (_, n) in PARTS.items()}
    for name, (width, depth) in SIZES.items():
        with torch.device("meta"):
            net = UViT({part: c for part, (c, _) in PARTS.items()}, width=width, depth=depth)
        sets = Denoise().sets([*PARTS])
        step = Step(net, tokens, sets, BATCH, muon=False, checkpointing=True)
        print(
            f"### {name}: width {width}, depth {depth}, {step.parameters / 1e6:,.0f} M parameters\n"
        )
        print(f"{step.tokens / 1e6:.2f} M tokens and {step.flops / 1e15:,.1f} PFLOP a step.\n")
        print("| GPUs | engine | samples a GPU | weights | gradients | optimizer | average "
              "| activations | total GB | GB sent | seconds |")  # fmt: skip
        print("|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
        for n in PROCESSES:
            for sharded in (False, True) if n > 1 else (False,):
                part = {k: f"{v / 1e9:,.1f}" for k, v in step.memory(n, sharded).items()}
                print(f"| {n} | {'fsdp' if sharded else 'ddp'} | {BATCH // n} | {part['weights']} "
                      f"| {part['gradients']} | {part['optimizer']} | {part['average']} "
                      f"| {part['activations']} | {part['total']} "
                      f"| {step.moved(n, sharded) / 1e9:,.1f} "
                      f"| {step.seconds(n, sharded, Speed()):,.2f} |")  # fmt: skip
        print()


if __name__ == "__main__":
    main()
