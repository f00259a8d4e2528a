"""How many scenes of the world are made in a minute, whole and by part.

python benchmarks/world.py
"""

import argparse
import statistics
import time

import torch
from table import line, machine, table

from unigen.data.world import World


def main() -> None:
    """Time batches of new scenes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64, help="scenes made at once")
    parser.add_argument("--repeats", type=int, default=5, help="timed batches")
    args = parser.parse_args()
    line({"benchmark": "world", "batch": args.batch, **machine()})
    world, rows = World(), []
    for parts in (list(World.parts), *([part] for part in World.parts)):
        times = []
        for turn in range(args.repeats + 1):
            index = torch.arange(turn * args.batch, (turn + 1) * args.batch)
            start = time.perf_counter()
            world.batch(index, parts)
            times.append(time.perf_counter() - start)
        seconds = statistics.median(times[1:])  # the first one warms up
        rows.append({"parts": "+".join(parts), "scenes_a_minute": 60 * args.batch / seconds})
        line(rows[-1])
    table(rows)


if __name__ == "__main__":
    main()
