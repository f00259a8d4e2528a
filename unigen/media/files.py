"""Output files: names that are safe, writes that are whole or absent and never overwrite."""

import errno
import os
import re
import secrets
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count, islice
from pathlib import Path
from typing import Any

from unigen.errors import ResourceError, UsageError

STEM_BYTES = 60
TRIES = 100  # numbers in a row that other writers may take just before us
_MODE = 0o640
_RESOURCE = {
    getattr(errno, name)
    for name in ("ENOSPC", "EFBIG", "EDQUOT", "EACCES", "EPERM", "EROFS", "EMFILE", "ENFILE", "EIO")
    if hasattr(errno, name)
}
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)")


def safe_stem(text: str) -> str:
    """Any text to a file name without suffix: a-z, 0-9, - and _, 1 to 60 bytes."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    stem = re.sub(r"[^a-z0-9_]+", "-", plain).strip("-_")[:STEM_BYTES].strip("-_")
    return f"{stem}-" if _DEVICES.fullmatch(stem) else stem or "untitled"


def free_name(folder: str | Path, stem: str, suffix: str) -> Path:
    """The first of stem_0.suffix, stem_1.suffix, ... that neither exists nor has a sidecar."""
    return next(_free(folder, [(stem, suffix)]))[0]


def write_next(
    folder: str | Path, files: Sequence[tuple[str, str, Callable[[Path], Any]]]
) -> list[Path]:
    """Write files under the next number that is free for all of them; none stays if one fails.

    files: stem, suffix and writer of each. A writer that raises FileExistsError came later than
    another one, in another process, say: then it is the turn of the next number.
    """
    for paths in islice(_free(folder, [file[:2] for file in files]), TRIES):
        with suppress(FileExistsError), _all_or_none() as made:
            for path, (_, _, write) in zip(paths, files, strict=True):
                write(path)
                made.append(path)
            return paths
    raise UsageError(f"{folder} is being filled by another program; choose another folder")


def _free(folder: str | Path, names: Sequence[tuple[str, str]]) -> Iterator[list[Path]]:
    """The paths of all names (stem, suffix), for each number of which none is taken."""
    from unigen.media.recipe import sidecar

    for number in count():
        paths = [Path(folder) / f"{stem}_{number}{suffix}" for stem, suffix in names]
        if not any(os.path.lexists(p) or os.path.lexists(sidecar(p)) for p in paths):
            yield paths


@contextmanager
def _all_or_none() -> Iterator[list[Path]]:
    """A list of files that were written; what follows fails, and they go, with their sidecars."""
    from unigen.media.recipe import sidecar

    made: list[Path] = []
    try:
        yield made
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
            sidecar(path).unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """Make a folder for what is to come; where that fails, the folder goes, if it is empty.

    So one that cannot be made is told at once, and a call that fails leaves no trace.
    """
    folder = Path(folder)
    made = [part for part in (folder, *folder.parents) if not os.path.lexists(part)]
    try:
        yield make_folder(folder)
    except BaseException:
        for part in made:
            with suppress(OSError):  # something lies in it, or it was never made
                part.rmdir()
        raise


def make_folder(folder: str | Path) -> Path:
    """Make a folder and its parents, closed to others (mode 0750 at most)."""
    folder = Path(folder)
    with _resources(folder):
        for part in (*reversed(folder.parents), folder):
            if os.path.lexists(part) and not part.is_dir():
                raise UsageError(f"{part} is a file; give a folder")
            if not part.is_dir():
                try:
                    part.mkdir(mode=0o750, exist_ok=True)
                except (
                    FileNotFoundError
                ) as error:  # its parent is there: no folder can be made in it
                    raise UsageError(f"{part} cannot be made; choose another folder.") from error
    return folder


def write_whole(path: str | Path, fill: Callable[[Path], Any], beside: bytes | None = None) -> Path:
    """Write a file and its sidecar, if it has one, whole or not at all.

    `fill` writes to a temporary file in the same folder; then both files get their names. Raises
    FileExistsError if one is taken, ResourceError if the disk, the size limit or the rights end.
    """
    from unigen.media.recipe import sidecar

    path = Path(path).absolute()
    make_folder(path.parent)
    targets = [path] if beside is None else [path, sidecar(path)]
    made: list[Path] = []
    with _resources(path):
        for target in targets:
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, "the file exists", str(target))
        parts = [path.with_name(f".{secrets.token_hex(8)}.part") for _ in targets]
        try:
            for part in parts:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                os.close(os.open(part, flags, _MODE))
            fill(parts[0])
            if beside is not None:
                parts[1].write_bytes(beside)
            for part, target in zip(parts, targets, strict=True):
                _sync(part)
                _name(part, target)
                made.append(target)
        except BaseException:
            for target in made:
                target.unlink(missing_ok=True)
            raise
        finally:
            for part in parts:
                with suppress(OSError):
                    part.unlink(missing_ok=True)
    return path


def _name(part: Path, target: Path) -> None:
    """Give a finished file its name, unless the name is taken."""
    try:
        os.link(part, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _MODE))
        part.replace(target)


def _sync(part: Path) -> None:
    fd = os.open(part, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _resources(path: Path):
    """Turn the end of a resource into a sentence with the path."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.errno not in _RESOURCE:
            raise
        reason = os.strerror(error.errno)
        words = f"{path} cannot be written: {reason}; make room or choose another folder"
        raise ResourceError(words) from None
