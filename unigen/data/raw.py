"""One value of an item to raw data: read in the isolated worker, by the modality itself."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unigen import media
from unigen.data.items import Member, Value
from unigen.errors import MediaError, UnigenError
from unigen.media import limits
from unigen.modalities.base import Modality, Raw

DEGRADED = "degraded"  # how notes on damage begin


def take(modality: Modality, value: Value, draw: int) -> Raw:
    """Return a raw batch of one; of several captions the one that `draw` falls on.

    Raises MediaError with the reason, without the name, for anything that cannot be read whole.
    """
    with opened(value) as place:
        if modality.plain:
            lines = place if isinstance(place, list) else captions(place)
            raw, notes = modality.take(lines[draw % len(lines)])
        else:
            raw, notes = modality.read(place)
    damage = [note for note in notes if note.startswith(DEGRADED)]
    if damage:
        raise MediaError("; ".join(damage))
    return raw


def all_captions(value: Value) -> list[str]:
    """Return every caption of a value."""
    with opened(value) as place:
        return place if isinstance(place, list) else captions(place)


def captions(path: Path) -> list[str]:
    """Return the captions of a text file, one a line."""
    lines = [line.strip() for line in media.read_text(path).splitlines()]
    return [line for line in lines if line]


@contextmanager
def opened(value: Value) -> Iterator[Any]:
    """Yield captions, or a path to read from; errors inside lose the name of the file."""
    if isinstance(value, list):
        kept = [line for line in value if line.strip()]
        if not kept:
            raise MediaError("it has no words")
        yield kept
        return
    with at_path(value) as path:
        try:
            yield path
        except UnigenError as error:
            words = str(error)
            for name in (media.shown(path), str(path)):
                words = words.removeprefix(f"{name} ")
            raise MediaError(words.removeprefix("cannot be read: ")) from error


@contextmanager
def at_path(value: Path | Member | bytes) -> Iterator[Path]:
    """Yield a path to a value's bytes, which lie in memory where the system can, if in no file."""
    if isinstance(value, Path):
        yield value
        return
    data = value if isinstance(value, bytes) else read_member(value)
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("member", os.MFD_CLOEXEC), "wb") as file:
            file.write(data)
            file.flush()
            yield Path(f"/proc/self/fd/{file.fileno()}")
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            yield Path(file.name)


def read_member(member: Member) -> bytes:
    """Return the bytes of a member, as its index knows them, or raise MediaError."""
    from unigen.data.tars import check_header

    if member.size > limits.FILE_BYTES:
        raise MediaError(f"it has {member.size} bytes, the limit is {limits.FILE_BYTES}")
    try:
        with member.shard.open("rb") as file:
            file.seek(member.offset - 512)
            block, data = file.read(512), file.read(member.size)
    except OSError as error:
        raise MediaError(f"its shard cannot be read: {error.strerror}") from None
    check_header(block, member)
    if len(data) != member.size:
        raise MediaError(f"its shard is cut, {len(data)} of {member.size} bytes are there")
    if member.sha256 is not None and hashlib.sha256(data).hexdigest() != member.sha256:
        raise MediaError("it is not what was packed: its sha256 is another one")
    return data


def where(value: Value) -> dict[str, Any]:
    """Return where a value lies, for a report."""
    if isinstance(value, Member):
        return {"file": value.name, "shard": value.shard.name, "offset": value.offset}
    return {"file": str(value)} if isinstance(value, Path) else {}
