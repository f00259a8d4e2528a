"""The task behind `unigen replay`: results are made again from the recipes that they carry."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from unigen import media
from unigen.errors import CheckpointError, MediaError, UsageError
from unigen.generate import loaded
from unigen.generation import Result
from unigen.model import UniGen
from unigen.registry import shown


def run(cfg: dict) -> Iterator[Path]:
    """Replay as configured (conf/replay.yaml); yield the new files."""
    model: UniGen | None = None
    with media.new_folder(cfg["out"]) as folder:
        for file in cfg["files"]:
            recipe = checked(media.read_recipe(file), file)
            model = model or loaded(cfg)
            yield from _made(model, recipe, file).save(folder)


def checked(recipe: dict[str, Any], file: str | Path) -> dict[str, Any]:
    """Return a recipe with all that a replay asks for.

    Raises MediaError for one that lacks something or has it of another type.
    """
    recipe = {**_USUAL, **recipe}
    for key, (fits, wanted) in _FIELDS.items():
        if key not in recipe:
            raise MediaError(f"{file} has a recipe without {key}; it cannot be replayed.")
        if not fits(recipe[key]):
            raise MediaError(
                f"{file} has a recipe whose {key} is {shown(recipe[key])}; {wanted} was wanted."
            )
    return recipe


def _made(model: UniGen, recipe: dict[str, Any], file: str | Path) -> Result:
    """Return the result of a recipe."""
    if model.hash != recipe["model"]:
        raise CheckpointError(
            f"{file} was made by model {recipe['model']}, this one is {model.hash}; "
            "name the folder with model=..., and recipe= and size= as they were."
        )
    if recipe["noise"]:
        raise UsageError(f"{file} was made from noise of its own; it cannot be replayed.")
    given, negative = (
        {part: _unchanged(part, source) for part, source in recipe[key].items()}
        for key in ("given", "negative")
    )
    options = {key: recipe[key] for key in _OPTIONS}
    try:
        return model.generate(
            recipe["want"], given, seeds=[recipe["seed"]], negative=negative, **options
        )[0]
    except UsageError as error:  # nobody typed this: it stands in the file
        raise MediaError(f"{file} has a recipe that cannot be replayed: {error}") from error


def _unchanged(part: str, source: str | dict[str, str]) -> str:
    """Return an input that a recipe names, unchanged since."""
    if isinstance(source, str):
        return source
    file = source.get("file")
    if file is None:
        raise UsageError(f"the recipe's {part} was no file; it cannot be replayed.")
    if not Path(file).is_file():
        raise UsageError(f"the recipe's {part} {file} does not exist any more.")
    if hashlib.sha256(Path(file).read_bytes()).hexdigest() != source.get("sha256"):
        raise UsageError(f"the recipe's {part} {file} has changed since.")
    return file


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: type(value) in kinds


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: type(value) is list and all(map(fits, value))


def _by_part(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: type(value) is dict and all(map(fits, value.values()))


def _either(*fit: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: any(fits(value) for fits in fit)


_sources = _by_part(_either(_is(str), _by_part(_is(str))))
_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "model": (_is(str), "a hash"),
    "seed": (_is(int), "a whole number"),
    "want": (_list_of(_is(str)), "a list of parts"),
    "given": (_sources, "a text or a file by part"),
    "negative": (_sources, "a text or a file by part"),
    "keep": (_by_part(_is(str)), "a region by part"),
    "through": (_list_of(_is(str)), "a list of parts"),
    "steps": (_is(int), "a whole number"),
    "guidance": (_either(_is(int, float), _by_part(_is(int, float))), "a number"),
    "mutual_guidance": (_is(int, float, type(None)), "a number"),
    "sampler": (_is(str), "a name"),
    "order": (_list_of(_is(str)), "a list of parts"),
    "noise": (_list_of(_is(str)), "a list of parts"),
    "deterministic": (_is(bool), "true or false"),
    "joint": (_is(bool), "true or false"),
}
_USUAL = {
    "negative": {}, "through": [], "mutual_guidance": None, "order": [], "noise": [],
    "deterministic": False, "joint": True,
}  # fmt: skip
_OPTIONS = ("keep", "through", "steps", "guidance", "mutual_guidance", "sampler",
            "order", "deterministic", "joint")  # fmt: skip
