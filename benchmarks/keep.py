"""How well the model goes on from a part of a clip, of a picture, of a sound.

    python benchmarks/keep.py
    python benchmarks/keep.py --split seen --n 256

Scenes have one object; the number of a scene is its seed. What comes out is read by the oracles and
held against the scene, but only in what the kept part tells:

* The first second of a clip or of a sound tells everything except a later event. The event counts
  where it falls in that second, and everywhere if the whole sound is given. (The last half frame of
  the second is left out: a flash lights the nearest frame, and that one is not kept.)
* Half a picture tells the background. Shape, color, size and position count in those scenes only
  whose object has its center in that half. A second object in the other half is no mistake.

mean: over the attributes. all: the share of scenes in which everything that counts is right; of
pictures, among the scenes whose object is kept. made "nothing" is what there is to beat: the media
as the model gets them, with the last kept frame held, silence, or a flat color for the rest. Lines
carry intervals and numbers of scenes.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace

import torch
from table import line, machine, scored, table
from torch import Tensor

import unigen
from unigen import metrics
from unigen.data.world import Scenes, World, vocabulary
from unigen.data.world.oracles import OBJECTS, Reading, join, read, truth
from unigen.data.world.scenes import paths
from unigen.metrics import Draws
from unigen.reference import BATCH, Setting, scenes_of, sizes_of

CASES = (  # name, given, want, the part of which a region is kept, the region
    ("clip", ["video"], ["video"], "video", "0:1"),
    ("clip, sound given", ["video", "audio"], ["video"], "video", "0:1"),
    ("clip, sound made", ["video"], ["video", "audio"], "video", "0:1"),
    ("left half", ["image"], ["image"], "image", "0,0,0.5,1"),
    ("right half", ["image"], ["image"], "image", "0.5,0,1,1"),
    ("sound", ["audio"], ["audio"], "audio", "0:1"),
)
COLUMNS = (
    "count", "background", "shape", "color", "size", "motion", "position", "event", "mean", "all",
)  # fmt: skip


def told(world: World, scenes: Scenes, given: Sequence[str], part: str, region: str) -> Reading:
    """Return what the given parts tell of some scenes if only a region of `part` is kept."""
    scene = truth(scenes)
    if part == "image":
        here = shown(scenes, region)[:, None]
        objects = {name: torch.where(here, getattr(scene, name), -1) for name in OBJECTS}
        return replace(scene, **objects, count=torch.full_like(scene.count, -1))
    last = float(region.split(":")[1]) - vocabulary.SECONDS / world.frames / 2
    heard = (scene.event < last) | (part != "audio" and "audio" in given)
    return replace(scene, event=torch.where(heard, scene.event, torch.nan))


def shown(scenes: Scenes, region: str) -> Tensor:
    """Tell which scenes have the center of their object in a region, [b]."""
    if ":" in region:
        return torch.ones(len(scenes), dtype=torch.bool)
    left, _, right, _ = (float(edge) for edge in region.split(","))
    x = paths(scenes, torch.zeros(1))[0][:, 0, 0, 0]
    return (x >= left) & (x < right)


def outcomes(model, world: World, index: Tensor, case: tuple) -> dict[str, Reading]:
    """Return the readings of what one case makes, by part, and of "nothing" made."""
    _, given, want, part, region = case
    modality, found = model.modality(part), {name: [] for name in ("nothing", *want)}
    for chunk in index.split(BATCH):
        raw = world.batch(chunk, given)
        made = model.generate(want, raw, seeds=chunk.tolist(), keep={part: region})
        held = modality.blank(raw[part], modality.kept(region))
        found["nothing"].append(read(part, held, world.rate))
        for name in want:
            found[name].append(read(name, torch.cat([m[name] for m in made]), world.rate))
    readings = {name: join(some) for name, some in found.items()}
    right = part == "image" and float(region.split(",")[0]) > 0
    return {name: rightmost(some) if right else some for name, some in readings.items()}


def rightmost(pictures: Reading) -> Reading:
    """Return the reading with the object farther right in slot 0."""
    two, objects = pictures.count[:, None] == 2, {name: getattr(pictures, name) for name in OBJECTS}
    turned = {name: torch.where(two, codes.flip(1), codes) for name, codes in objects.items()}
    return replace(pictures, **turned)


def score(made: list[Reading], reference: Reading, whose: Tensor) -> dict[str, Draws]:
    """Return the shares that are right; "all" is over the scenes in `whose`."""
    shares = metrics.score([metrics.compare(m, reference) for m in made])
    del shares["all"]
    if whose.any():
        some = [metrics.compare(m[whose], reference[whose]) for m in made]
        shares["all"] = metrics.score(some)["all"]
    return shares


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a folder; the embedded model if left out")
    parser.add_argument("--split", choices=("held_out", "seen"), default="held_out")
    parser.add_argument("--n", type=int, default=64, help="scenes of a case")
    args = parser.parse_args()
    model = unigen.load(args.model)
    line({"benchmark": "keep", "model": model.hash, "split": args.split, "n": args.n, **machine()})
    world, index, rows = Setting(args.split, 1).world(**sizes_of(model)), scenes_of(0, args.n), []
    scenes = world.scenes(index)
    for case in CASES:
        name, given, want, part, region = case
        reference, whose = told(world, scenes, given, part, region), shown(scenes, region)
        found = outcomes(model, world, index, case)
        sets = [["nothing"], *([p] for p in want), *([want] if len(want) > 1 else [])]
        for parts in sets:
            shares = score([found[p] for p in parts], reference, whose)
            rows.append(scored({"kept": name, "made": " + ".join(parts)}, shares, COLUMNS))
    table(rows)


if __name__ == "__main__":
    main()
