"""Two plain products against the fused kernel for attention on a CPU, in bfloat16.

    python benchmarks/attention.py

Forward and backward. Both are timed in turns in one process, so the ratio holds on a busy machine
too. A ratio above 1 means that the plain products are faster.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from table import line, machine, table
from torch import Tensor

from unigen.layers import attend

#: Batch, heads, tokens, channels of a head: the denoiser's, the codecs', a long one.
SHAPES = ((32, 4, 112, 64), (64, 4, 48, 64), (64, 4, 28, 64), (64, 4, 64, 32), (16, 4, 256, 64),
          (4, 4, 1024, 64))  # fmt: skip


def milliseconds(attention: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor) -> float:
    """Return the time of one forward and backward pass."""
    start = time.perf_counter()
    attention(q, k, v).sum().backward()
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    """Time every shape."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15, help="timed passes of each kind")
    parser.add_argument("--shapes", type=int, default=len(SHAPES), help="how many shapes")
    args = parser.parse_args()
    line({"benchmark": "attention", **machine()})
    rows = []
    for shape in SHAPES[: args.shapes]:
        torch.manual_seed(0)
        q, k, v = (torch.randn(shape, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
        ways = {"plain": attend, "fused": F.scaled_dot_product_attention}
        apart = (ways["plain"](q, k, v) - ways["fused"](q, k, v)).abs().max().item()
        times: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(args.repeats + 1):
            for name, way in ways.items():
                took = milliseconds(way, q, k, v)
                if turn:  # the first one warms up
                    times[name].append(took)
        plain, fused = (statistics.median(times[name]) for name in ways)
        names = ("batch", "heads", "tokens", "channels")
        rows.append({**dict(zip(names, shape, strict=True)), "plain_ms": plain, "fused_ms": fused,
                     "fused/plain": fused / plain, "apart": apart})  # fmt: skip
        line(rows[-1])
    table(rows)


if __name__ == "__main__":
    main()
