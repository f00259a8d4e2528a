"""Files that are whole or absent: staged in a sibling folder, synced, renamed, parent synced.

Reading opens regular files only and never follows a link out of the folder it was told.
"""

import ctypes
import errno
import fcntl
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

from unigen.errors import CheckpointError, ResourceError, UsageError

FILE_MODE, FOLDER_MODE = 0o640, 0o750  # the umask may take away more
_WRONG_PATH = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}
_AT_FDCWD, _EXCHANGE = -100, 2  # renameat2(2): here, and swap two names in one step
_held: set[int] = set()  # locked descriptors, which a forked child must not keep


def _forget_held() -> None:
    """Close the locks that a forked child inherited; the parent keeps its own."""
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget_held)


@contextmanager
def held(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """Hold an exclusive flock on a file or folder; `BlockingIOError` where another has it."""
    owner, descriptor = os.getpid(), os.open(path, flags | os.O_CLOEXEC, FILE_MODE)
    _held.add(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    finally:
        if os.getpid() == owner:
            _held.discard(descriptor)
            with suppress(OSError):  # a child just forked may still have a copy: unlock it too
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


@contextmanager
def writing(target: Path, size: int = 0) -> Iterator[None]:
    """Turn a failed write into one sentence: `UsageError` for a wrong path, else `ResourceError`.

    `size` is the number of bytes the write needs.
    """
    try:
        yield
    except OSError as error:
        kind = UsageError if error.errno in _WRONG_PATH else ResourceError
        raise kind(
            f"Cannot write {named(target)} ({size} bytes): {error.strerror or error}; free some "
            "space or choose another folder."
        ) from error
    except MemoryError as error:
        raise ResourceError(f"Out of memory while writing {named(target)}.") from error


@contextmanager
def staged(target: Path, size: int) -> Iterator[Path]:
    """Give an empty sibling folder to fill; on success it becomes `target` in one rename.

    An existing `target` is swapped out whole. On any failure `target` stays as it was. Files
    inside must have been synced by the writer. `size` bytes must be free 1.2 times over. What a
    killed writer of the same target left is deleted first. Raises `UsageError` where another one
    is at work: a target has one writer at a time.
    """
    with writing(target, size):
        target.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        sweep_stages(target.parent, re.escape(target.name))
        need_space(target, size)
        stage = target.with_name(f"{target.name}.tmp-{uuid.uuid4().hex}")
        stage.mkdir(mode=FOLDER_MODE)
        try:
            with held(stage):
                yield stage
                sync(stage)
                _place(stage, target)
                sync(target.parent)
        finally:  # what failed, or what was replaced
            shutil.rmtree(stage, ignore_errors=True)


def sweep_stages(parent: Path, targets: str) -> list[Path]:
    """Delete the stages of targets whose names match a regular expression; return them.

    Raises `UsageError` where a process is filling one of them.
    """
    names = re.compile(rf"({targets})\.tmp-[0-9a-z]+")
    stages = sorted(path for path in parent.glob("*.tmp-*") if names.fullmatch(path.name))
    for stage in stages:
        with writing(stage):
            try:
                with held(stage):
                    remove = shutil.rmtree if stage.is_dir() else os.unlink
                    remove(stage)
            except BlockingIOError as error:
                target = stage.with_name(stage.name.rpartition(".tmp-")[0])
                raise UsageError(
                    f"{named(target)} is being written by another process; wait for it, or choose "
                    "another folder."
                ) from error
    return stages


def real_path(path: Path | str) -> Path:
    """Return an absolute path without links; `UsageError` for one that no file can have.

    A link that leads nowhere or to itself stays as it is.
    """
    try:
        return Path(os.path.realpath(path))
    except ValueError as error:  # NUL, surrogates
        raise UsageError(f"{named(path)} is no usable path: {ascii(str(error))[:100]}.") from error


def need_space(target: Path, size: int) -> None:
    """Raise `ResourceError` where fewer than 1.2 x `size` bytes are free."""
    free, wanted = shutil.disk_usage(target.parent).free, size + size // 5
    if free < wanted:
        raise ResourceError(
            f"Saving {named(target)} needs {wanted} bytes and {free} are free; free some space or "
            "choose another folder."
        )


def _place(stage: Path, target: Path) -> None:
    """Rename a stage to its target, swapping out a folder that is there."""
    try:
        stage.rename(target)
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    with suppress(AttributeError):  # a C library without renameat2
        swap = ctypes.CDLL(None, use_errno=True).renameat2
        if swap(_AT_FDCWD, os.fsencode(stage), _AT_FDCWD, os.fsencode(target), _EXCHANGE) == 0:
            return
    old = target.with_name(f"{target.name}.old-{uuid.uuid4().hex}")  # never swept by itself
    target.rename(old)
    stage.rename(target)
    shutil.rmtree(old)


def write_file(path: Path, data: bytes) -> None:
    """Write a new file and sync it; an existing file or link of that name is an error."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, FILE_MODE), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def put(path: Path, data: bytes) -> None:
    """Write a file that is whole or absent; an existing one is replaced."""
    stage = path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex}")
    with writing(path, len(data)), ExitStack() as stack:
        stack.callback(stage.unlink, missing_ok=True)
        write_file(stage, data)
        stage.replace(path)
        sync(path.parent)


def sync(path: Path) -> None:
    """Sync a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def reading(path: Path, root: Path, limit: int) -> Iterator[tuple[BufferedReader, int]]:
    """Open a regular file of at most `limit` bytes that lies under `root`; yield it and its size.

    A link out of it leads only to the blobs of the hub's cache whose snapshot it lies in. Raises
    `CheckpointError` for a missing, linked-out, special or too large file and `ResourceError` for
    one that may not or cannot be read.
    """
    try:
        real, home = real_path(path), real_path(root)
        if not real.is_relative_to(home) and real.parent != _blobs(home):
            raise CheckpointError(f"{named(path)} is a link out of its folder; put a copy there.")
        if not stat.S_ISREG(real.lstat().st_mode):
            raise CheckpointError(f"{named(path)} is not a regular file; put a copy there.")
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(real, flags), "rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise CheckpointError(f"{named(path)} is no longer a regular file; copy it again.")
            if facts.st_size > limit:
                raise CheckpointError(
                    f"{named(path)} has {facts.st_size} bytes, and at most {limit} are read."
                )
            yield file, facts.st_size
    except FileNotFoundError as error:
        raise CheckpointError(f"{named(path)} is missing; copy the whole folder.") from error
    except OSError as error:
        raise ResourceError(f"Cannot read {named(path)}: {error}.") from error
    except MemoryError as error:
        raise ResourceError(f"Out of memory while reading {named(path)}.") from error


def _blobs(folder: Path) -> Path | None:
    """Return where the files of a snapshot in the cache of the Hugging Face hub are, if it is one.

    A repository there is `snapshots/<revision>/...`, all links, beside `blobs/`.
    """
    for path in (folder, *folder.parents):
        if path.parent.name == "snapshots":
            return path.parents[1] / "blobs"
    return None


def parse_json(raw: bytes, what: str) -> dict[str, Any]:
    """Parse strict JSON: an object, UTF-8, no repeated key, no NaN; else `CheckpointError`."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise ValueError("a key is repeated")
        return made

    def constant(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=unique, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{what} is not valid JSON: {ascii(str(error))[:120]}.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{what} is a JSON {type(value).__name__}; an object was wanted.")
    return value


def dump_json(value: dict[str, Any]) -> bytes:
    """Write a plain object as the one text `parse_json` gives back; `ValueError` for NaN."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode("ascii")


def named(path: Path | str) -> str:
    """Return a path in quotes, as ASCII, its beginning cut where it is long."""
    text = ascii(str(path))
    return text if len(text) <= 200 else f"'...{text[-190:]}"
