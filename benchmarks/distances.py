"""How far what the model makes is from the data: total variation of every attribute.

    python benchmarks/distances.py
    python benchmarks/distances.py --n 200

"nothing given" makes every part together. "caption given" makes all but the caption and looks only
at what the caption leaves open. A distance is half the sum of the differences between how often
each value occurs and how often it does in the data; `floor` is what as many draws from the data
would have. mention: how often captions say an attribute, against those of the data. Lines carry
intervals.
"""

import argparse

from table import line, machine, table

import unigen
from unigen.evaluate import rows_of
from unigen.reference import FREE, Setting, captions, parts_of, scenes_of


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a folder; the embedded model if left out")
    parser.add_argument("--n", type=int, default=2000, help="samples of each of the two")
    args = parser.parse_args()
    model = unigen.load(args.model)
    line({"benchmark": "distances", "model": model.hash, "n": args.n, **machine()})
    parts, index = tuple(parts_of(model)), scenes_of(0, args.n)
    told = tuple(p for p in parts if p in captions())
    rest = tuple(p for p in parts if p not in told)
    cases = (("nothing given", FREE, (), parts), ("caption given", Setting("seen", 1), told, rest))
    found: dict[str, dict[str, str]] = {}
    for name, setting, given, want in cases:
        for row in rows_of(model, setting, index, [(given, want)]):
            line({"case": name, **row})
            if row["metric"] == "tv":
                found.setdefault(row["attribute"].removeprefix("open:"), {})[name] = (
                    f"{row['value']:.3f}"
                )
    table([{"attribute": key} | {name: row.get(name, "-") for name, *_ in cases}
           for key, row in found.items()])  # fmt: skip


if __name__ == "__main__":
    main()
