"""Items: what belongs together, part by part, before anything of it is read.

A value is a path, the captions themselves, a member of a shard, or bytes. What an item lacks is
an absent key.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from unigen.errors import MediaError, UsageError

TEXT = "text"  # the part whose values are captions
SUFFIXES = {
    "image": (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"),
    "video": (".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi"),
    "audio": (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".aac"),
    TEXT: (".txt",),
}
PART_OF = {suffix: part for part, suffixes in SUFFIXES.items() for suffix in suffixes}


class Member(NamedTuple):
    """A stretch of a shard: the bytes of one file of an item."""

    shard: Path
    name: str  # of the file inside the shard
    offset: int  # of its first byte
    size: int
    sha256: str | None = None  # of its bytes, where an index knows it


Value = Path | list[str] | Member | bytes
Item = dict[str, Value]


class Refused(NamedTuple):
    """Something of a source that is not used, by name."""

    name: str
    part: str
    reason: str


@dataclass
class Listing:
    """The items of a source with their names, and what is to be said about them once."""

    root: Path
    names: list[str] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)

    def add(self, name: str, item: Item) -> None:
        """Add one item that has anything at all."""
        if item:
            self.names.append(name)
            self.items.append(item)

    def checked(self, what: str) -> "Listing":
        """Return this listing, or raise MediaError where it has no item."""
        if not self.items:
            said = [*self.notes]
            if self.refused:
                name, _, reason = self.refused[0]
                said.append(f"{len(self.refused)} refused, such as {name[:120]!r}: {reason}")
            hidden = f" ({'; '.join(said)})" if said else ""
            raise MediaError(f"{what} holds no items{hidden}; {_WANTED}")
        self.notes += incomplete(self.items)
        return self

    def digest(self) -> str:
        """Return a name for exactly these items: names, places, and sizes and times of files."""
        sha = hashlib.sha256()
        for name, item in zip(self.names, self.items, strict=True):
            facts = {part: facts_of(value) for part, value in sorted(item.items())}
            sha.update(f"{name!r} {facts}\n".encode("utf-8", "surrogatepass"))
        return sha.hexdigest()[:16]


_WANTED = (
    "wanted are <root>/<modality>/<id>.* (image, video, audio, text), or files side by side that "
    "share a name, such as cat.png and cat.txt"
)


def facts_of(value: Value) -> Any:
    """Return what tells a value from another one without reading a file."""
    if not isinstance(value, Path):
        return value
    try:
        found = value.stat()
    except OSError:
        return str(value)
    return str(value), found.st_size, found.st_mtime_ns


def incomplete(items: Iterable[Item]) -> list[str]:
    """Say once which parts are missing, and how often."""
    items = list(items)
    counts = Counter(part for item in items for part in item)
    lacking = [f"{len(items) - n} have no {p}" for p, n in sorted(counts.items()) if n < len(items)]
    return [f"of {len(items)} items {', '.join(lacking)}"] if lacking else []


def folder(root: str | Path, key: str = "data.root") -> Path:
    """Return the real path of an existing folder, or raise UsageError."""
    place = Path(os.path.realpath(root))
    if not place.is_dir():
        raise UsageError(f"{key}={root} is no folder; give the folder that holds the files.")
    return place


def inside(root: Path, place: Path, text: str, key: str) -> Path:
    """Return the path that a text names, relative to `place`, if it lies under `root`.

    Raises UsageError for one that leads elsewhere: absolute, `../`, a link out, or a URL.
    """
    try:
        real = Path(os.path.realpath(place / text))
    except ValueError:
        real = Path("/")
    if "\0" in text or "://" in text or not real.is_relative_to(root) or real == root:
        raise UsageError(
            f"{key} names {text[:80]!r}, which leads out of {root}; copy the file there, or set "
            "data.root to a folder that holds both."
        )
    return Path(os.path.normpath(place / text))


def walk(root: Path, notes: list[str]) -> Iterator[Path]:
    """Yield the regular files under a folder by name.

    Links to folders and out of it, pipes, sockets and devices are left, and said.
    """
    left: list[str] = []
    special: list[str] = []
    for here, folders, files in os.walk(root, followlinks=False):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        left += [f for f in folders if Path(here, f).is_symlink()]
        for name in sorted(f for f in files if not f.startswith(".")):
            path = Path(here, name)
            if path.is_symlink() and not _stays(path, root):
                left.append(name)
            elif not path.is_file():
                special.append(path.relative_to(root).as_posix())
            else:
                yield path
    if left:
        notes.append(
            f"{len(left)} links lead to folders, out of the folder or nowhere and are left out, "
            f"such as {left[0]!r}"
        )
    if special:
        names = ", ".join(map(repr, special[:5]))
        notes.append(f"{len(special)} are no regular files and are left out ({names})")


def _stays(link: Path, root: Path) -> bool:
    """Whether a link ends at a file under a folder."""
    real = Path(os.path.realpath(link))
    return real.is_file() and real.is_relative_to(root)
