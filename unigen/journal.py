"""Logs of JSON lines, each beginning with its step: a run that goes on takes them up exactly."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unigen.disk import put, writing

_LOGGED = re.compile(rb'\{"step": (\d+)[,}]')


def append(path: Path, step: int, values: Mapping[str, Any]) -> None:
    """Add the line of a step; nothing of it is held back for later."""
    line = (json.dumps({"step": step, **values}) + "\n").encode()
    with writing(path, len(line)), path.open("ab") as log:
        log.write(line)


def rewind(path: Path, step: int) -> None:
    """Take a log back to a step.

    Lines of later steps are dropped, for the run takes those steps again; so is half a line that
    a kill or a full disk left at the end.
    """
    with writing(path):
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    good = [x for x in lines if x.endswith(b"\n") and not _later(x, step)]
    if good != lines:
        put(path, b"".join(good))


def _later(line: bytes, step: int) -> bool:
    """Tell whether a line of a log belongs to a later step."""
    found = _LOGGED.match(line)
    return found is not None and int(found[1]) > step
