"""The table of every direction: what the model makes of the world, read back by the oracles.

A row is {"given", "want", "split", "objects", "metric", "attribute", "value", "low", "high", "n"};
"objects" is the largest number of objects in a scene of the row.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from unigen import disk, media, metrics, report
from unigen.data.world import Scenes
from unigen.data.world.oracles import Reading, join, read, truth
from unigen.errors import UsageError
from unigen.gates import CANDIDATES, NOISE, codec, codec_gate, recalled, retrieval
from unigen.metrics import Draws
from unigen.model import load
from unigen.presence import Direction, directions, subsets
from unigen.reference import (
    BATCH,
    FREE,
    FULL,
    QUICK,
    Setting,
    captions,
    data_marginals,
    data_mentions,
    left_out,
    parts_of,
    scenes_of,
    shared,
    sizes_of,
)  # fmt: skip

__all__ = ["codec_gate", "directions", "measure", "retrieval", "rows_of", "run"]


def run(cfg: Mapping[str, Any]) -> list[Path]:
    """Measure as configured (conf/evaluate.yaml); write and return the table and the heat map.

    They take the place of those of an earlier evaluation in the same folder.
    """
    for key, least in (("n", 1), ("seed", 0)):
        if type(cfg[key]) is not int or cfg[key] < least:
            raise UsageError(f"{key}={cfg[key]} is no whole number from {least}; type {key}=20.")
    if type(cfg["full"]) is not bool:
        raise UsageError(f"full={cfg['full']} is neither true nor false; type full=true.")
    if not isinstance(cfg["order"], list | None):
        raise UsageError(f"order={cfg['order']} is no list; type order=[image,audio], say.")
    with media.new_folder(cfg["out"]) as folder:
        model = load(cfg["model"], cfg["plugins"])
        options = {key: cfg[key] for key in ("steps", "guidance", "sampler", "order")}
        rows = measure(model, cfg["n"], full=cfg["full"], seed=cfg["seed"], progress=True,
                       **options)  # fmt: skip
        return _written(rows, folder)


def _written(rows: list[dict], folder: Path) -> list[Path]:
    """Write the table and the heat map, each whole; those of an earlier evaluation go."""
    picture = BytesIO()
    report.heat_map(rows).savefig(picture, format="png")
    sys.stderr.write(f"unigen: {report.summary(rows)}\n")
    files = {
        "directions.json": json.dumps(rows, indent=1, allow_nan=False).encode(),
        "directions.md": report.markdown(rows).encode(),
        "heatmap.png": picture.getvalue(),
    }
    for name, data in files.items():
        disk.put(folder / name, data)
    return [folder / name for name in files]


def measure(
    model, n: int, *, full: bool = False, seed: int = 0, progress: bool = False, **options
) -> list[dict]:
    """Return the rows of every direction, the codecs and the shared space, `n` scenes each.

    full: held-out scenes with two objects, too. seed: of the scenes and of the noise. options:
    of `generate`. Raises UsageError for a model without any of the world's modalities.
    """
    parts = parts_of(model)
    settings = FULL if full else QUICK
    conditional, free = directions(parts), [((), want) for want in subsets(parts)]
    chunks, codecs = -(-n // BATCH), len(settings) * len(parts) * 2
    total = (len(settings) * len(conditional) + len(free)) * chunks + codecs + 1
    rows = []
    with tqdm(total=total, unit="step", file=sys.stderr, disable=not progress) as bar:
        for setting in settings:
            index = scenes_of(seed, n)
            rows += rows_of(model, setting, index, conditional, bar.update, **options)
            for part in parts:
                for noise in (0.0, NOISE):
                    before, way = "noisy:" if noise else "", ((part,), (part,), "accuracy")
                    for name, draws in codec(model, part, index, setting, noise).items():
                        rows.append(_row(setting, *way, before + name, draws))
                    bar.update()
        rows += rows_of(model, FREE, scenes_of(seed, n), free, bar.update, **options)
        for (a, b), hits in recalled(model, CANDIDATES, seed).items():
            found = metrics.ratio(hits, torch.ones_like(hits))
            rows.append(_row(FREE, (a,), (b,), "retrieval", "recall@1", found))
        bar.update()
    return rows


def rows_of(
    model, setting: Setting, index: Tensor, wanted: Iterable[Direction],
    tick: Callable[[], Any] = lambda: None, **options,
) -> list[dict]:  # fmt: skip
    """Generate some directions for some scenes and return their rows; `tick` is called often."""
    world, wanted = setting.world(**sizes_of(model)), list(wanted)
    inputs = sorted({part for given, _ in wanted for part in given})
    told: dict[str, list[Reading]] = {part: [] for part in inputs}
    made: dict[Direction, dict[str, list[Reading]]] = {
        (given, want): {part: [] for part in want} for given, want in wanted
    }
    for chunk in index.split(BATCH):
        raw = world.batch(chunk, inputs)
        for part in inputs:
            told[part].append(read(part, raw[part], world.rate))
        for given, want in wanted:
            results = model.generate(
                list(want), {part: raw[part] for part in given}, seeds=chunk.tolist(), **options
            )
            for part, readings in made[given, want].items():
                outcome = _stack([result[part] for result in results])
                readings.append(read(part, outcome, world.rate))
            tick()
    given_readings = {part: join(readings) for part, readings in told.items()}
    scenes, rows = world.scenes(index), []
    for (given, want), readings in made.items():
        outputs = [join(readings[part]) for part in want]
        inputs_ = [given_readings[part] for part in given]
        for metric, name, draws in _scores(setting, scenes, inputs_, outputs):
            rows.append(_row(setting, given, want, metric, name, draws))
    return rows


def _scores(
    setting: Setting, scenes: Scenes, given: list[Reading], made: list[Reading]
) -> Iterable[tuple[str, str, Draws]]:
    """Yield (metric, attribute, draws) of one direction."""
    if given:
        reference = shared(truth(scenes), given)
        yield from _named("accuracy", metrics.score([metrics.compare(m, reference) for m in made]))
    else:
        pairs = [metrics.agreement(a, b) for a, b in combinations(made, 2)]
        yield from _named("agreement", metrics.score(pairs))
        yield from _named("tv", _distances(made, data_marginals(setting)))
    yield from _named("sync", metrics.synchrony(made))
    sentences = captions()
    if len(given) == 1 and given[0].part in sentences and setting.split == "seen":
        seen = [m for m in made if m.part not in sentences]
        found = _distances(seen, data_marginals(setting), left_out(given[0]))
        yield from _named("tv", found, "open:")
    for caption in (m for m in made if m.part in sentences):
        yield "accuracy", "parses", metrics.ratio(caption.ok, torch.ones_like(caption.ok))
        usual = data_mentions(setting)[caption.part]
        rates = metrics.mentions(caption)
        gaps = {name: metrics.gap(rates[name], usual[name]) for name in rates}
        yield from _named("tv", gaps, "mention:")


def _distances(made: Sequence[Reading], data: Mapping, where: Mapping | None = None) -> dict:
    """Average distances to the data over parts; "floor" is what draws from the data would have."""
    found = [metrics.distances(m, data, where) for m in made]
    result = metrics.combine([distance for distance, _ in found])
    floor = metrics.combine([least for _, least in found])
    return {**result, "floor": floor["mean"]} if result else {}


def _stack(raws: list) -> Tensor | list[str]:
    first = raws[0]
    return [s for raw in raws for s in raw] if isinstance(first, list) else torch.cat(raws)


def _named(metric: str, draws: Mapping[str, Draws], before: str = "") -> Iterable:
    return ((metric, before + name, d) for name, d in draws.items())


def _row(setting: Setting, given, want, metric: str, attribute: str, draws: Draws) -> dict:
    return {
        "given": list(given), "want": list(want), "split": setting.split,
        "objects": setting.objects, "metric": metric, "attribute": attribute, **draws.estimate(),
    }  # fmt: skip
