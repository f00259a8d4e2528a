"""Models and methods of other projects, run by this one's `generate(want, given)`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unigen.disk import named, parse_json, reading, real_path
from unigen.errors import CheckpointError
from unigen.interop.hub import fetched
from unigen.registry import shown

__all__ = ["INDEX", "fetched", "is_pipeline", "load_pipeline"]

INDEX = "model_index.json"  # what tells a pipeline folder of diffusers
_KNOWN = ("UniDiffuserPipeline",)


def is_pipeline(folder: str | Path) -> bool:
    """Tell whether a folder is a pipeline as diffusers writes it."""
    return (Path(folder) / INDEX).is_file()


def load_pipeline(
    folder: str | Path, recipe: str | None = None, size: int | Sequence[int] | None = None
) -> Any:
    """Load a pipeline folder as a model; raises CheckpointError for one that is not known.

    recipe: how it samples, one of `unigen.interop.unidiffuser.RECIPES`; None: this project's way.
    size: of its pictures, if not what they were trained with.
    """
    root = real_path(folder)
    with reading(root / INDEX, root, 1_000_000) as (file, _):
        kind = parse_json(file.read(), named(root / INDEX)).get("_class_name")
    if kind not in _KNOWN:
        raise CheckpointError(
            f"{named(root)} is a {shown(kind)}; of diffusers' pipelines only "
            f"{', '.join(_KNOWN)} is read."
        )
    from unigen.interop import unidiffuser  # transformers and diffusers take seconds to import

    return unidiffuser.load(root, recipe, size)
