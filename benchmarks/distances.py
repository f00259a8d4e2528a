"""How far what the model makes is from the data: total variation of every attribute.

    python benchmarks/distances.py
    python benchmarks/distances.py --n 200 --case "nothing given"
    python benchmarks/distances.py --n 250 --case "caption given" --order

"nothing given" makes every part together. "caption given" makes all but the caption and looks only
at what the caption leaves open; captions are chosen so that each attribute is left open in n of
them, some 2 n in all. A distance is half the sum of the differences between how often
each value occurs and how often it does in the data; `floor` is what as many draws from the data
would have. mention: how often captions say an attribute, against those of the data. Lines carry
intervals.
"""

import argparse

import torch
from table import line, machine, table
from torch import Tensor

import unigen
from unigen.data.world.oracles import read
from unigen.evaluate import rows_of
from unigen.reference import FREE, Setting, captions, left_out, parts_of, scenes_of

CASES = ("nothing given", "caption given")
ONE, POOL = Setting("seen", 1), 8  # captions that are looked at for each that is wanted


def open_ones(n: int) -> Tensor:
    """Return scenes whose captions leave each attribute open in n of them, the rarest first."""
    pool = scenes_of(0, POOL * n)
    left = left_out(read("text", ONE.world().batch(pool, ["text"])["text"]))
    left = {name: each.reshape(len(pool), -1).any(1) for name, each in left.items()}
    chosen = torch.zeros(len(pool), dtype=torch.bool)
    for each in sorted(left.values(), key=lambda each: int(each.sum())):
        more = (each & ~chosen).nonzero()[: max(0, n - int((each & chosen).sum())), 0]
        chosen[more] = True
    return pool[chosen]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a folder; the embedded model if left out")
    parser.add_argument("--n", type=int, default=2000, help="samples of each distance")
    parser.add_argument("--case", choices=CASES, help="one of the two; both if left out")
    parser.add_argument(
        "--order",
        nargs="*",
        help="parts made one after another; none: all at once; left out: usual",
    )
    args = parser.parse_args()
    model = unigen.load(args.model)
    line({"benchmark": "distances", "model": model.hash, "n": args.n, **machine()})
    parts = tuple(parts_of(model))
    told = tuple(p for p in parts if p in captions())
    rest = tuple(p for p in parts if p not in told)
    ways = ((FREE, (), parts, scenes_of(0, args.n)), (ONE, told, rest, open_ones(args.n)))
    cases = {name: way for name, way in zip(CASES, ways, strict=True)
             if args.case in (None, name)}  # fmt: skip
    found: dict[str, dict[str, str]] = {}
    for name, (setting, given, want, index) in cases.items():
        for row in rows_of(model, setting, index, [(given, want)], order=args.order):
            line({"case": name, **row})
            if row["metric"] == "tv":
                found.setdefault(row["attribute"].removeprefix("open:"), {})[name] = (
                    f"{row['value']:.3f}"
                )
    table([{"attribute": key} | {name: row.get(name, "-") for name in cases}
           for key, row in found.items()])  # fmt: skip


if __name__ == "__main__":
    main()
