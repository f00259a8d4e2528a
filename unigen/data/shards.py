"""Shards: tar files in the WebDataset convention, read in any order, each byte checked.

`unigen data shard` writes them with an index (`index.jsonl`: counts, offsets, sha256). Tars from
elsewhere have none; local ones are walked once for their offsets.
"""

import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

from tqdm import tqdm

from unigen.data.files import Files
from unigen.data.indexed import Indexed
from unigen.data.items import PART_OF, Item, Listing, Member, Value, folder
from unigen.data.raw import at_path
from unigen.data.tables import read_table
from unigen.data.tars import BLOCK, add_tar, part_of, split_name
from unigen.disk import FILE_MODE, named, staged, sync, write_file, writing
from unigen.errors import MediaError, UnigenError, UsageError

INDEX = "index.jsonl"
VERSION = 1


class Shards(Files):
    """A folder of tar shards, with the index that `unigen data shard` wrote or without one."""

    def __init__(self, root: str, seed: int = 0, max_bad: float = 0.05):
        """root: the folder, or one tar. seed: of the captions drawn. max_bad: see Indexed."""
        super().__init__(listing(root), seed, max_bad)


def listing(root: str | Path) -> Listing:
    """List the items of shards; raises MediaError for a folder without any."""
    if "://" in str(root) or str(root).startswith("pipe:"):
        raise UsageError(
            f"data.root={root} is no local folder; data=stream reads tars of a URL in their order."
        )
    if Path(root).is_file():
        found = Listing(Path(root).resolve().parent)
        add_tar(found, Path(root).resolve())
        return found.checked(f"{root}")
    place = folder(root)
    found = Listing(place)
    if (place / INDEX).is_file():
        _read_index(found, place / INDEX)
    else:
        for path in sorted(place.rglob("*.tar")):
            if path.is_file() and path.resolve().is_relative_to(place):
                add_tar(found, path)
        found.notes.append(
            f"there is no {INDEX}: the bytes of the tars cannot be checked; unigen data shard "
            "packs them with one"
        )
    return found.checked(f"{root}")


def _read_index(found: Listing, path: Path) -> None:
    """Add the items of an index, after what it says of itself has been checked."""
    head, *rows = read_table(path)
    shards = head.get("shards")
    if head.get("version") != VERSION or not isinstance(shards, dict):
        raise MediaError(f"{path} is no index of shards; pack them again with unigen data shard.")
    if head.get("items") != len(rows):
        raise MediaError(
            f"{path} is cut: it lists {len(rows)} of {head.get('items')} items; copy it again."
        )
    for name, size in shards.items():
        shard = found.root / name
        if Path(name).name != name or not name.endswith(".tar") or not shard.is_file():
            raise MediaError(f"{path} names {name[:80]!r}, which is no shard beside it; copy it.")
        if shard.stat().st_size != size:
            found.notes.append(f"{name} has {shard.stat().st_size} bytes, the index says {size}")
    try:
        for row in rows:
            parts = row["parts"].items()
            found.add(row["name"], {part: _member(found.root, shards, m) for part, m in parts})
    except (KeyError, TypeError, ValueError, AttributeError):
        raise MediaError(f"{path} is damaged at item {len(found.items)}; copy it again.") from None


def _member(root: Path, shards: dict[str, int], entry: list[Any]) -> Member:
    """Return a member as the index lists it; ValueError for one that no shard can hold."""
    shard, name, offset, size, sha = entry
    whole = isinstance(offset, int) and isinstance(size, int) and isinstance(sha, str)
    if shard not in shards or not whole or not 0 <= offset - BLOCK <= shards[shard] - size:
        raise ValueError(name)
    return Member(root / shard, str(name), offset, size, sha)


def pack(source: Indexed, out: str | Path, items: int = 1000, megabytes: int = 512) -> Path:
    """Write the files of a source as shards of so many items or bytes, whichever comes first.

    The folder is whole or absent. Raises UsageError where `out` exists or the source has no files.
    """
    if not isinstance(source, Files):
        raise UsageError("only a source of files can be packed; give data=folder or another one.")
    target = Path(out).absolute()
    if target.exists():
        raise UsageError(f"{named(out)} exists; give out= a new folder.")
    listed = source.listing
    sizes = [sum(_size(value) for value in item.values()) for item in listed.items]
    with staged(target, sum(sizes) + 4096 * len(sizes)) as stage:
        writer = _Writer(stage, items, megabytes * 1_000_000)
        bar = tqdm(listed.items, desc="packing", file=sys.stderr, mininterval=1.0)
        for name, item in zip(listed.names, bar, strict=True):
            writer.add(name, item)
        writer.close()
    return target


class _Writer:
    """Fills one shard after another, and the index last."""

    def __init__(self, root: Path, items: int, size: int):
        self.root, self.most, self.most_bytes = root, items, size
        self.shards: dict[str, int] = {}
        self.rows: list[dict[str, Any]] = []
        self.tar: tarfile.TarFile | None = None
        self.count = 0

    def add(self, name: str, item: Item) -> None:
        """Append the files of an item."""
        if self.tar is None or self.count >= self.most or self.tar.offset >= self.most_bytes:
            self._next()
        assert self.tar is not None
        shard, parts = f"shard-{len(self.shards):05d}.tar", {}
        for part, value in sorted(item.items()):
            data, suffix = _bytes(value)
            info = tarfile.TarInfo(f"{len(self.rows):08d}.{_extension(part, suffix)}")
            info.size, info.mode = len(data), FILE_MODE
            offset = self.tar.offset + BLOCK
            self.tar.addfile(info, io.BytesIO(data))
            sha = hashlib.sha256(data).hexdigest()
            parts[part] = [shard, info.name, offset, len(data), sha]
        self.rows.append({"name": name, "parts": parts})
        self.count += 1

    def _next(self) -> None:
        self._finish()
        path = self.root / f"shard-{len(self.shards):05d}.tar"
        write_file(path, b"")
        self.count = 0
        self.tar = tarfile.TarFile(path, "w", format=tarfile.USTAR_FORMAT)

    def _finish(self) -> None:
        if self.tar is not None:
            path = self.root / f"shard-{len(self.shards):05d}.tar"
            self.tar.close()
            sync(path)
            self.shards[path.name] = path.stat().st_size

    def close(self) -> None:
        """Write the index."""
        self._finish()
        head = {"version": VERSION, "items": len(self.rows), "shards": self.shards}
        lines = [json.dumps(row) + "\n" for row in (head, *self.rows)]
        with writing(self.root / INDEX):
            write_file(self.root / INDEX, "".join(lines).encode("ascii"))


def _extension(part: str, suffix: str) -> str:
    """Return the extension by which a reader of tars finds the part again."""
    return suffix.lstrip(".") if PART_OF.get(suffix) == part else f"{part}{suffix or '.bin'}"


def _size(value: Value) -> int:
    if isinstance(value, Member):
        return value.size
    if isinstance(value, list):
        return sum(4 * len(line) for line in value)
    return len(value) if isinstance(value, bytes) else value.stat().st_size


def _bytes(value: Value) -> tuple[bytes, str]:
    """Return what a value holds, and its suffix."""
    if isinstance(value, list):
        return "\n".join(" ".join(v.split()) for v in value).encode(), ".txt"
    if isinstance(value, bytes):
        return value, ""
    name = value.name
    try:
        with at_path(value) as path:
            data = path.read_bytes()
    except (OSError, UnigenError) as error:
        raise MediaError(f"{name} cannot be packed: {error}") from error
    extension = split_name(name)[1] if isinstance(value, Member) else ""
    return data, f".{extension}" if part_of(extension) else Path(name).suffix.lower()
