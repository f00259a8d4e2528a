"""The tasks around generation: generate, caption, embed, replay. Each prints through the CLI."""

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from unigen import media
from unigen.errors import CheckpointError, UsageError
from unigen.model import UniGen, load


def run(cfg: dict) -> list[Path]:
    """Generate as configured (conf/generate.yaml), write the results, return their paths."""
    seeds = _seeds(cfg)
    for key in ("want", "through"):
        if not isinstance(cfg[key], list):
            raise UsageError(f"{key}={cfg[key]} is no list; type {key}=[image], say.")
    media.make_folder(cfg["out"])
    model = _load(cfg)
    given, negative = (
        {part: value for part, value in cfg[key].items() if value is not None}
        for key in ("given", "negative")
    )
    results = model.generate(cfg["want"], given, seeds=seeds, keep=_strings(cfg["keep"]),
                             through=cfg["through"], negative=negative,
                             deterministic=cfg["deterministic"], progress=True,
                             mutual_guidance=cfg["mutual_guidance"],
                             **_options(cfg))  # fmt: skip
    _say(results[0].recipe["notes"])
    return [path for result in results for path in result.save(cfg["out"])]


def caption(cfg: dict) -> Iterator[str]:
    """Yield one line a file: what it shows or sounds like; write it too where `out` is set."""
    model = _load(cfg)
    for file in cfg["files"]:
        part = media.probe(file).kind
        (result,) = model.generate(cfg["want"], {part: file}, seeds=[cfg["seed"]],
                                   deterministic=cfg["deterministic"], **_options(cfg))  # fmt: skip
        _say(f"{file}: {note}" for note in result.recipe["notes"])
        if cfg["out"] is not None:
            result.save(cfg["out"])
        yield " ".join(str(getattr(result, part)) for part in cfg["want"])


def embed(cfg: dict) -> Path:
    """Place files in the shared space; write points.json: {file: numbers}."""
    model = _load(cfg)
    kinds = {name: model.modality(name) for name in model.modalities}
    plain = {kind.suffix: name for name, kind in kinds.items() if kind.plain}
    points = {}
    for file in cfg["files"]:
        part = plain.get(Path(file).suffix) or media.probe(file).kind
        raw, notes = model.modality(part).read(Path(file))
        _say(f"{file}: {note}" for note in notes)
        points[str(file)] = model.embed({part: raw})[part][0].tolist()
    path = media.free_name(media.make_folder(cfg["out"]), "points", ".json")
    path.write_text(json.dumps(points, indent=1), encoding="utf-8")
    return path


def replay(cfg: dict) -> Iterator[Path]:
    """Make results again from the recipes that they carry; yield the new files."""
    models: dict[str, UniGen] = {}
    for file in cfg["files"]:
        recipe = media.read_recipe(file)
        missing = {"model", "seed", "want", "given", "keep", "steps", "guidance", "sampler"} - set(
            recipe
        )
        if missing:
            raise UsageError(
                f"{file} has a recipe without {sorted(missing)[0]}; it cannot be replayed."
            )
        name = str(cfg["model"])
        model = models.setdefault(name, _load(cfg))
        if model.hash != recipe["model"]:
            raise CheckpointError(
                f"{file} was made by model {recipe['model']}, this one is {model.hash}; "
                "name the folder with model=..., and recipe= and size= as they were."
            )
        if recipe.get("noise"):
            raise UsageError(f"{file} was made from noise of its own; it cannot be replayed.")
        (result,) = model.generate(
            recipe["want"], {p: _again(p, s) for p, s in recipe["given"].items()},
            seeds=[recipe["seed"]], keep=recipe["keep"], through=recipe.get("through", []),
            steps=recipe["steps"], guidance=recipe["guidance"], sampler=recipe["sampler"],
            mutual_guidance=recipe.get("mutual_guidance"),
            deterministic=bool(recipe.get("deterministic")), joint=bool(recipe.get("joint", True)),
            negative={p: _again(p, s) for p, s in recipe.get("negative", {}).items()},
        )  # fmt: skip
        yield from result.save(cfg["out"])


def _again(part: str, source) -> str:
    """Return an input that a recipe names, unchanged since."""
    if isinstance(source, str):
        return source
    file = source.get("file") if isinstance(source, dict) else None
    if file is None:
        raise UsageError(f"the recipe's {part} was no file; it cannot be replayed.")
    if not Path(file).is_file():
        raise UsageError(f"the recipe's {part} {file} does not exist any more.")
    if hashlib.sha256(Path(file).read_bytes()).hexdigest() != source.get("sha256"):
        raise UsageError(f"the recipe's {part} {file} has changed since.")
    return file


def _load(cfg: dict) -> UniGen:
    return load(cfg["model"], cfg["plugins"], cfg["recipe"], cfg["size"], cfg["download"])


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
