"""Output files: names that are safe, writes that are whole or absent and never overwrite."""

import errno
import os
import re
import secrets
import unicodedata
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path

from unigen.errors import ResourceError, UsageError

STEM_BYTES = 60
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
    number = 0
    while True:
        path = Path(folder) / f"{stem}_{number}{suffix}"
        if not os.path.lexists(path) and not os.path.lexists(f"{path}.json"):
            return path
        number += 1


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


def write_whole(path: str | Path, fill: Callable[[Path], None], beside: bytes) -> Path:
    """Write a file and its sidecar, whole or not at all.

    `fill` writes to a temporary file in the same folder; then both files get their names. Raises
    FileExistsError if one is taken, ResourceError if the disk, the size limit or the rights end.
    """
    from unigen.media.recipe import sidecar

    path = Path(path).absolute()
    make_folder(path.parent)
    targets = [path, sidecar(path)]
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
