"""The denoiser's training step as a share of the processor's bfloat16 matrix rate.

    python benchmarks/train_step.py

Useful work is 6 x active parameters x tokens: a token meets the attention and skip matrices of
every block, the feed-forward layers of its own modality, and the projections of its own part.
Attention's products with other tokens are not counted as useful; their share is a column of its
own. A step is forward, backward, clipping, both optimizers and the averaged weights; latents are
ready in memory. The matrix rate is measured in the same run, before and after every set, and
`planned_s` is what `unigen.plan` says of the step at that rate and its usual share of it.
"""

import argparse
import statistics
import sys
import time

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from table import line, machine, table
from torch import Tensor, nn

from unigen.arguments import conf_dir
from unigen.configure import build
from unigen.model import UniGen
from unigen.objectives import Denoise
from unigen.plan import Speed, walk
from unigen.tokens import modality_of
from unigen.train import Trainer
from unigen.uvit import UViT


class Ready:
    """Random latents of the model's shapes: a source of data that costs nothing."""

    def __init__(self, model: UniGen, batch: int):
        """Make one batch."""
        parts = model.denoiser.parts
        self.tokens = {part: torch.randn(batch, *model.shape(part)) for part in parts}

    def order(self, seed: int, step: int, batch: int) -> Tensor:
        """Return the whole batch."""
        return torch.arange(batch)

    def batch(self, index: Tensor, parts: list[str]) -> dict[str, Tensor]:
        """Return the parts of some modalities."""
        return {p: z for p, z in self.tokens.items() if modality_of(p) in parts}


class Only(Denoise):
    """The denoiser's objective with one presence set."""

    def __init__(self, names: list[str]):
        """Fix the modalities of every batch."""
        super().__init__()
        self.names = names

    def parts(
        self, model: UniGen, generator: torch.Generator, available: list[str] | None = None
    ) -> list[str]:
        """Return the presence set."""
        return self.names


def size(module: nn.Module) -> int:
    """Return the number of matrix entries, which is what a token is multiplied with."""
    return sum(p.numel() for p in module.parameters() if p.ndim == 2)


def useful(net: UViT, tokens: dict[str, Tensor]) -> tuple[int, int, int]:
    """Return useful operations of one sample's step, those of attention's products, and tokens.

    Every part brings one level token, which skips the projections but not the blocks.
    """
    shared = sum(size(b.attention) + (0 if b.skip is None else size(b.skip)) for b in net.blocks)
    work, length = 0, sum(z.shape[1] + 1 for z in tokens.values())
    for part, z in tokens.items():
        name, key = modality_of(part), part.replace(":", "__")
        inside = shared + sum(size(block.ffn[name]) for block in net.blocks)
        ends = size(net.embed[key]) + size(net.head_out[key]) + size(net.clock)
        work += (z.shape[1] + 1) * inside + z.shape[1] * ends + size(net.clock)
        work += size(net.place[name]) * z.shape[1] // len(z)  # once a batch: positions are shared
    width = net.clock.out_features
    products = 2 * length * length * width * len(net.blocks)
    return 6 * work, 6 * products, length


def matrix_rate(side: int = 2048, repeats: int = 8) -> float:
    """Return operations a second of a bfloat16 product of two square matrices, the best of some."""
    a, b = (torch.randn(side, side, dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * side**3 / min(times)


def profiled(trainer: Trainer, rows: int) -> str:
    """Return a table of where one step's time goes, by operator."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiler:
        trainer.train_step()
    return profiler.key_averages().table(
        sort_by="self_cpu_time_total", row_limit=rows, max_name_column_width=44
    )


def main() -> None:
    """Time the step on the commonest presence sets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="as of `unigen train`, such as model=small")
    parser.add_argument("--sets", type=int, default=5, help="how many presence sets")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each")
    parser.add_argument("--profile", type=int, default=14, help="rows of the profile; 0: none")
    args = parser.parse_args()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", ["experiment=world", *args.overrides])
    parts = ("model", "modalities", "parts", "flow", "trainer")
    cfg = OmegaConf.to_container(OmegaConf.masked_copy(cfg, parts), resolve=True)
    torch.manual_seed(0)
    model, options = build(cfg["model"]), cfg["trainer"]
    for key in ("save_every", "log_every", "preview_every", "cache", "cache_folder", "wandb",
                "engine", "timeout", "checkpointing", "compile", "validate_every"):  # fmt: skip
        del options[key]
    data = Ready(model, options["batch"])
    line({"benchmark": "train_step", "overrides": args.overrides, "batch": options["batch"],
          "denoiser_parameters": sum(p.numel() for p in model.denoiser.parameters()),
          **machine()})  # fmt: skip
    sets, rows = Denoise().sets([*model.modalities]), []
    for share, names in sets[: args.sets]:
        trainer = Trainer(model, Only(names), data, **options)
        trainer.train_step()  # warms up and makes the optimizers' state
        rates, times = [matrix_rate()], []
        for _ in range(args.steps):
            start = time.perf_counter()
            trainer.train_step()
            times.append(time.perf_counter() - start)
        rates.append(matrix_rate())
        work, products, length = useful(model.denoiser, data.batch(torch.arange(1), names))
        rate, step = max(rates), statistics.median(times)
        shown = {p: z.shape[1] for p, z in data.batch(torch.arange(1), names).items()}
        flops = options["batch"] * walk(model.denoiser, shown)[0]
        rows.append({
            "set": "+".join(names), "drawn": share, "tokens": length, "step_s": step,
            "planned_s": Speed(tflops=rate / 1e12).seconds(flops), "planned_gflop": flops / 1e9,
            "samples_a_second": options["batch"] / step,
            "useful_gflop": options["batch"] * work / 1e9,
            "matrix_gflop_a_second": rate / 1e9,
            "share": options["batch"] * work / step / rate,
            "share_with_attention": options["batch"] * (work + products) / step / rate,
        })  # fmt: skip
        line(rows[-1])
        if args.profile and len(rows) == 1:
            sys.stderr.write(profiled(trainer, args.profile))
    table(rows)
    drawn = sum(row["drawn"] for row in rows)
    share = sum(row["drawn"] * row["share"] for row in rows) / drawn
    line({"covers": drawn, "share": share})


if __name__ == "__main__":
    main()
