"""What a model has learned of a changed world: a color and a motion that it never saw before.

    python benchmarks/changed_world.py --model runs/changed/denoise/model

docs/finetune.md has the commands that make the model. Sentences about one object of the new color
and the new motion are given; pictures, clips and sounds are made, and the oracles read them. The
codecs alone are measured, too: nothing that is made can be better. `--old 8` adds the mean of the
50 directions in the world as it was, eight scenes each; without --model it is the embedded model's.
"""

import argparse

from table import line, machine, table

import unigen
from unigen.data.world.oracles import matches, read, truth
from unigen.evaluate import directions, rows_of
from unigen.reference import Setting, captions, parts_of, scenes_of, sizes_of

NOVEL = Setting("novel", 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a folder; the embedded model if left out")
    parser.add_argument("--n", type=int, default=200, help="scenes")
    parser.add_argument("--old", type=int, default=0, help="scenes of each of the old directions")
    args = parser.parse_args()
    model = unigen.load(args.model)
    line({"benchmark": "changed_world", "model": model.hash, "n": args.n, **machine()})
    told = tuple(p for p in parts_of(model) if p in captions())
    made = tuple(p for p in parts_of(model) if p not in told)
    index, scores = scenes_of(0, args.n), []
    for row in rows_of(model, NOVEL, index, [(told, (part,)) for part in made]):
        if row["attribute"] in ("color", "motion", "mean"):
            line(row)
            scores.append({"to": row["want"], "attribute": row["attribute"],
                           "accuracy": f"{row['value']:.3f}"})  # fmt: skip
    world = NOVEL.world(**sizes_of(model))
    scenes, raw = truth(world.scenes(index)), world.batch(index, made)
    for part in made:
        decoded = model.modality(part).decode(model.modality(part).encode(raw[part]))
        for name, (correct, valid) in matches(read(part, decoded, world.rate), scenes).items():
            if name in ("color", "motion") and valid.any():
                share = (correct.sum() / valid.sum()).item()
                scores.append({"to": f"{part}, by its codec alone", "attribute": name,
                               "accuracy": f"{share:.3f}"})  # fmt: skip
    table(scores)
    for setting in (Setting("seen", 1), Setting("held_out", 1)) if args.old else ():
        rows = rows_of(model, setting, scenes_of(0, args.old), directions(parts_of(model)))
        means = [row["value"] for row in rows
                 if (row["metric"], row["attribute"]) == ("accuracy", "mean")]  # fmt: skip
        line({"split": setting.split, "directions": len(means), "n": args.old * len(means),
              "mean": sum(means) / len(means)})  # fmt: skip


if __name__ == "__main__":
    main()
