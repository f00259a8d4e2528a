"""Tar files, walked with suspicion: every member is refused by name or told with its place.

A tar says nothing of its own damage: a broken header ends it early, without a word. So the walk
looks at what follows the last member, too.
"""

import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from unigen.data.items import PART_OF, Item, Listing, Member, Refused
from unigen.errors import MediaError
from unigen.media import limits

BLOCK = 512
MOST_MEMBERS = 1_000_000
META = re.compile(r"__[^/]*__($|/)")  # members about the tar itself, by webdataset's convention
APART = "its key appears again after another one"
CODE = (".pkl", ".pickle", ".pyd", ".pt", ".pth", ".npy", ".npz", ".joblib", ".py", ".so", ".dll")


class Found(NamedTuple):
    """A member of a tar: a plain file, or what is wrong with it."""

    member: Member
    fault: str | None


class Passing(NamedTuple):
    """A sample of a tar that passes by, or what is wrong with it."""

    key: str  # empty: the tar itself
    item: Item
    fault: str | None


def walk_tar(path: Path) -> Iterator[Found]:
    """Yield the members of a tar in order; the last may be a fault of the archive itself.

    Links, devices, folders out of the archive and what declares more than there is are faults.
    """
    size = path.stat().st_size
    place = Member(path, path.name, 0, 0)
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for count in range(MOST_MEMBERS + 1):
                info = tar.next()
                vars(tar)["members"] = []  # what is past is not kept: memory stays flat
                if info is None:
                    break
                if count == MOST_MEMBERS:
                    raise MediaError(f"it has more than {MOST_MEMBERS} members; split it")
                member = Member(path, info.name, info.offset_data, info.size)
                if info.offset_data + info.size > size:
                    left = max(0, size - info.offset_data)
                    raise MediaError(
                        f"{info.name!r} declares {info.size} bytes, and {left} are left"
                    )
                if not info.isdir():
                    yield Found(member, fault_of(info))
            end = tar.offset
            file.seek(end)
            rest = file.read(BLOCK)
            if len(rest) < BLOCK:
                raise MediaError(f"the archive is cut at byte {end}: its end mark is missing")
            while rest:
                if rest.strip(b"\0"):
                    raise MediaError(f"the archive is damaged at byte {end}: no header there")
                rest = file.read(1 << 20)
    except MediaError as error:
        yield Found(place, str(error))
    except (tarfile.TarError, ValueError, OSError, OverflowError) as error:
        yield Found(place, f"the archive is damaged: {_printable(error)}")


def pass_tar(
    stream: IO[bytes],
    group: Callable[..., Iterator[dict[str, Any]]],
    refuse: Callable[[str, str], None],
) -> Iterator[Passing]:
    """Yield the samples of a tar as it passes by: members side by side that share a key.

    A key that comes twice or apart is a fault; the last one may be that of the tar itself, and the
    sample that it falls into is left out. group: webdataset's `group_by_keys`. refuse: told the
    names of members, and why.
    """
    past: set[str] = set()
    twice: dict[str, str | None] = {}  # the part that a key has twice
    last, damage = "", None

    def files() -> Iterator[dict[str, Any]]:
        nonlocal last, damage
        try:
            for last, file in _wanted(stream, refuse):
                yield {"fname": last, "data": file.read(), "__url__": ""}
        except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
            damage = f"it cannot be read as a tar: {_printable(error)}"

    def repeated(error: Exception) -> bool:
        if not isinstance(error, ValueError):  # which is what a name that comes twice raises
            raise error
        key, extension = split_name(last)
        twice[key] = part_of(extension)
        return True  # go on

    for sample in group(files(), keys=split_name, handler=repeated):
        key, item = str(sample["__key__"]), {}
        fault = f"its key has two of {twice[key]}" if key in twice else None
        fault = APART if key in past else fault
        for extension, data in sample.items():
            part = None if extension.startswith("__") else part_of(extension)
            if part is not None:
                fault = f"its key has two of {part}" if part in item else fault
                item[part] = data
        past.add(key)
        if damage is None or key != split_name(last)[0]:
            yield Passing(key, item, fault)
    if damage is not None:
        yield Passing("", {}, damage)


def _wanted(
    stream: IO[bytes], refuse: Callable[[str, str], None]
) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield name and file of the members that are wanted; tell of those that are not."""
    with tarfile.open(fileobj=stream, mode="r|*") as tar:
        for info in tar:
            vars(tar)["members"] = []  # what is past is not kept: memory stays flat
            if info.isdir() or META.match(info.name):
                continue
            fault, extension = fault_of(info), split_name(info.name)[1]
            file = None if fault else tar.extractfile(info)
            if fault is not None:
                refuse(info.name, fault)
            elif part_of(extension) and file is not None:
                yield info.name, file


def _printable(error: Exception) -> str:
    words = " ".join(str(error).split())
    return "".join(c if c.isprintable() else "?" for c in words)[:80]


def fault_of(info: tarfile.TarInfo) -> str | None:
    """Say why a member is not wanted, if it is not."""
    if not info.isreg() or info.issparse():
        return "it is a link, a device or another special file"
    if fault := fault_of_name(info.name):
        return fault
    if info.size > limits.FILE_BYTES:
        return f"it has {info.size} bytes, the limit is {limits.FILE_BYTES}"
    return None


def fault_of_name(name: str) -> str | None:
    """Say why a member of this name is not wanted, if it is not."""
    path = PurePosixPath(name)
    if name.startswith("/") or ".." in path.parts or "\\" in name or "\0" in name:
        return "its name leads out of the archive"
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", name):
        return "its name is a URL"
    if PurePosixPath(name.lower()).suffix in CODE:
        return "a pickle or a program is never read"
    return None


def split_name(name: str) -> tuple[str, str]:
    """Return the key and the extension of a member: all up to the first dot, and what follows."""
    folder, _, last = name.rpartition("/")
    stem, _, extension = last.partition(".")
    return (f"{folder}/{stem}" if folder else stem), extension.lower()


def part_of(extension: str) -> str | None:
    """Return the part that an extension means: `png`, or `depth.png` with the part before."""
    part, dot, _ = extension.partition(".")
    return part if dot else PART_OF.get(f".{extension}")


def add_tar(found: Listing, path: Path) -> None:
    """Add the items of a tar without an index; keys that come twice or apart are refused."""
    items: dict[str, Item] = {}
    broken: dict[str, str] = {}
    last, others = "", 0
    for member, fault in walk_tar(path):
        key, extension = split_name(member.name)
        part = part_of(extension)
        if fault is not None:
            found.refused.append(Refused(f"{path.name}/{member.name}", part or "tar", fault))
            continue
        if part is None:
            others += 1
            continue
        if key in items and key != last:
            broken[key] = APART
        elif part in items.get(key, {}):
            broken[key] = f"its key has two of {part}"
        items.setdefault(key, {})[part] = member
        last = key
    for key, item in items.items():
        name = f"{path.name}/{key}"
        if key in broken:
            found.refused.append(Refused(name, "tar", broken[key]))
        else:
            found.add(name, item)
    if others:
        found.notes.append(f"{others} members of {path.name} are of other kinds and left out")


def check_header(block: bytes, member: Member) -> None:
    """Raise MediaError where the block before a member's bytes is not its header."""
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        raise MediaError("its header in the shard is damaged or missing") from None
    if info.size != member.size:
        raise MediaError(f"its header says {info.size} bytes, the index {member.size}")
