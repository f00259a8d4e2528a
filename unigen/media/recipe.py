"""The recipe of a result: how it was made, kept inside the file and in a JSON beside it."""

import json
from pathlib import Path

from unigen.errors import MediaError, UsageError
from unigen.media import limits

MARK = "digitalSourceType"
MADE_BY_MODEL = "trainedAlgorithmicMedia"


def to_json(recipe: dict) -> str:
    """One line of ASCII JSON, with the mark that says the media came from a model.

    Raises UsageError for a recipe that is too long to be kept.
    """
    text = json.dumps(recipe | {MARK: MADE_BY_MODEL}, allow_nan=False, sort_keys=True)
    if len(text) > limits.RECIPE_BYTES:
        most = limits.RECIPE_BYTES
        raise UsageError(f"the recipe has {len(text)} bytes, at most {most} fit; give shorter text")
    return text


def sidecar(path: str | Path) -> Path:
    """The place of the JSON beside a file: image_0.png has image_0.png.json."""
    path = Path(path)
    return path.with_name(path.name + ".json")


def read_recipe(path: str | Path) -> dict:
    """Read the recipe of a file this package wrote.

    `path` is the png, jpg, wav, flac or mp4 itself, a text file with its JSON beside it, or that
    JSON. The recipe is data from outside: nothing in it is run or trusted.

    Raises UsageError for a missing file, MediaError where there is no recipe or it is damaged.
    """
    from unigen.media.read import ask, shown

    path = Path(path)
    if path.suffix == ".json":
        return _parse(_text(path), path)
    fault = None
    try:
        text = ask("recipe", path, {}, lambda at, array: None)["text"]
    except MediaError as error:
        text, fault = None, error
    if text and MARK in text:
        return _parse(text, path)
    if sidecar(path).is_file():
        return _parse(_text(sidecar(path)), sidecar(path))
    if fault is not None and path.suffix != ".txt":
        raise fault
    raise MediaError(f"{shown(path)} carries no recipe; give a file that unigen wrote")


def _text(path: Path) -> str:
    from unigen.media.read import shown

    if not path.is_file():
        raise UsageError(f"{shown(path)} does not exist; give the path of a file")
    with path.open("rb") as file:
        data = file.read(limits.RECIPE_BYTES + 1)
    return data.decode("utf-8", "replace")


def _parse(text: str, path: Path) -> dict:
    from unigen.media.read import shown

    if len(text) > limits.RECIPE_BYTES:
        raise MediaError(f"{shown(path)} has a recipe of more than {limits.RECIPE_BYTES} bytes")
    try:
        recipe = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise MediaError(f"{shown(path)} has a damaged recipe; it is no JSON") from None
    if not isinstance(recipe, dict):
        raise MediaError(f"{shown(path)} has a damaged recipe; it is no JSON object")
    return recipe


def _no_constant(name: str):
    raise ValueError(name)
