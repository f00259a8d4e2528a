"""Repositories of the Hugging Face hub, fetched as plain files."""

import re
from pathlib import Path

from unigen.disk import real_path
from unigen.errors import ResourceError, UsageError
from unigen.registry import brief, shown

_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)+", re.ASCII)
_KINDS = ("json", "safetensors", "txt")  # what is fetched; no pickle, no code
_PICKLES = ("bin", "pth")  # what `unigen convert` asks for, too
#: How to come by safetensors where a folder has none.
MAKE = (
    "only safetensors are loaded: make them with unigen convert FOLDER out=NEW, or of a repository "
    "of the hub with unigen convert OWNER/NAME download=true out=NEW"
)


def fetched(name: str | Path, pickles: bool = False) -> Path:
    """Fetch a repository of the hub, `owner/name`, or a folder in it; return where it lies.

    Files lie beside the hub's own cache as themselves: its cache has links, and none is followed
    out of a model's folder. What is there already is not fetched again. pickles: fetch them too, to
    convert them. Raises UsageError for what
    is no such name, ResourceError where it cannot be fetched.
    """
    from huggingface_hub import constants, snapshot_download

    if not _NAME.fullmatch(str(name)):
        raise UsageError(f"{shown(str(name))} is no repository; download=true needs owner/name.")
    owner, repository, *inside = str(name).split("/")
    here = Path(constants.HF_HUB_CACHE, "unigen", owner, repository)
    kinds = (*_KINDS, *_PICKLES) if pickles else _KINDS
    patterns = ["/".join([*inside, f"*.{kind}"]) for kind in kinds]
    try:
        snapshot_download(f"{owner}/{repository}", allow_patterns=patterns, local_dir=here)
    except (OSError, ValueError) as error:
        raise ResourceError(
            f"{name} cannot be fetched from the hub: {brief(error).partition('. ')[0]}."
        ) from error
    return real_path(here.joinpath(*inside))
