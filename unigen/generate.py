"""The tasks around generation: generate, caption, embed. Each prints through the CLI."""

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

from unigen import media
from unigen.data.items import PART_OF
from unigen.errors import UsageError
from unigen.model import UniGen, load


def run(cfg: dict) -> list[Path]:
    """Generate as configured (conf/generate.yaml), write the results, return their paths."""
    seeds = _seeds(cfg)
    for key, kinds in (("want", list), ("through", list), ("order", list | None)):
        if not isinstance(cfg[key], kinds):
            raise UsageError(f"{key}={cfg[key]} is no list; type {key}=[image], say.")
    given, negative = (
        {part: value for part, value in cfg[key].items() if value is not None}
        for key in ("given", "negative")
    )
    with media.new_folder(cfg["out"]) as folder:
        model = loaded(cfg)
        results = model.generate(cfg["want"], given, seeds=seeds, keep=_strings(cfg["keep"]),
                                 through=cfg["through"], negative=negative,
                                 deterministic=cfg["deterministic"], progress=True,
                                 mutual_guidance=cfg["mutual_guidance"], order=cfg["order"],
                                 **_options(cfg))  # fmt: skip
        _say(results[0].recipe["notes"])
        return [path for result in results for path in result.save(folder)]


def caption(cfg: dict) -> Iterator[str]:
    """Yield one line a file: what it shows or sounds like; write it too where `out` is set."""
    with nullcontext() if cfg["out"] is None else media.new_folder(cfg["out"]) as folder:
        model = loaded(cfg)
        for file in cfg["files"]:
            (result,) = model.generate(cfg["want"], {_kind(file): file}, seeds=[cfg["seed"]],
                                       deterministic=cfg["deterministic"],
                                       **_options(cfg))  # fmt: skip
            _say(f"{file}: {note}" for note in result.recipe["notes"])
            if folder is not None:
                result.save(folder)
            yield " ".join(str(getattr(result, part)) for part in cfg["want"])


def embed(cfg: dict) -> Path:
    """Place files in the shared space; write points_0.json: {file: numbers}."""
    with media.new_folder(cfg["out"]) as folder:
        model = loaded(cfg)
        kinds = {name: model.modality(name) for name in model.modalities}
        plain = {kind.suffix: name for name, kind in kinds.items() if kind.plain}
        points = {}
        for file in cfg["files"]:
            part = plain.get(Path(file).suffix.lower()) or _kind(file)
            raw, notes = model.modality(part).read(Path(file))
            _say(f"{file}: {note}" for note in notes)
            points[str(file)] = model.embed({part: raw})[part][0].tolist()
        return media.write_json(folder, "points", points)


def loaded(cfg: dict) -> UniGen:
    """Return the model that a configuration names."""
    return load(cfg["model"], cfg["plugins"], cfg["recipe"], cfg["size"], cfg["download"])


def _kind(file: str) -> str:
    """Return what a file holds; say so where its name says something else."""
    found = media.probe(file)
    if PART_OF.get(Path(file).suffix.lower(), found.kind) != found.kind:
        _say([f"{file}: holds {found.words}, whatever its name says"])
    return found.kind


def _seeds(cfg: dict) -> list[int]:
    if cfg["seeds"] is not None:
        return cfg["seeds"]
    if not isinstance(cfg["n"], int) or cfg["n"] < 1:
        raise UsageError(f"n={cfg['n']}; type a whole number from 1.")
    if not isinstance(cfg["seed"], int):
        raise UsageError(f"seed={cfg['seed']}; type a whole number.")
    return [cfg["seed"] + i for i in range(cfg["n"])]


def _strings(keep: dict) -> dict[str, str]:
    """Return regions as the user wrote them; Hydra reads 0,1 as a list."""
    return {part: ",".join(map(str, r)) if isinstance(r, list) else str(r)
            for part, r in keep.items()}  # fmt: skip


def _options(cfg: dict) -> dict:
    return {key: cfg[key] for key in ("steps", "guidance", "sampler")}


def _say(notes) -> None:
    for note in notes:
        sys.stderr.write(f"unigen: {note}\n")
