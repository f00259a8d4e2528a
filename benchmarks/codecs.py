"""What survives the codecs: every attribute of scenes that are encoded and decoded.

    python benchmarks/codecs.py
    python benchmarks/codecs.py --n 128 --parts image

Each modality alone, seen and held-out pairs, one and two objects. noise: standard deviation of what
is added to the latents, which have unit variance. Lines carry intervals.
"""

import argparse
from itertools import product

from table import line, machine, scored, table

import unigen
from unigen.gates import NOISE, codec
from unigen.reference import FULL, parts_of, scenes_of

COLUMNS = ("count", "background", "shape", "color", "size", "position", "motion", "sound", "event",
           "mean", "all")  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="a folder; the embedded model if left out")
    parser.add_argument("--n", type=int, default=512, help="scenes of a row")
    parser.add_argument("--parts", nargs="+", help="modalities; all if left out")
    args = parser.parse_args()
    model = unigen.load(args.model)
    line({"benchmark": "codecs", "model": model.hash, "n": args.n, **machine()})
    rows = []
    for part, setting, noise in product(args.parts or parts_of(model), FULL, (0.0, NOISE)):
        draws = codec(model, part, scenes_of(0, args.n), setting, noise)
        about = {"part": part, "split": setting.split, "objects": setting.objects, "noise": noise}
        rows.append(scored(about, draws, COLUMNS))
    table(rows)


if __name__ == "__main__":
    main()
