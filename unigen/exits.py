"""How a command ends: one line on standard error, and the exit code that says whose fault it was.

0 done, 1 our bug, 2 usage, 3 media, 4 checkpoint, 5 out of a resource, 130 interrupted, 143 ended.
A traceback is shown for our bugs, and for everything with UNIGEN_TRACEBACK=1.
"""

import errno
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from unigen.errors import UnigenError

USER_PATHS = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}
OUT_OF = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS}
OUT_OF |= {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO}
LONGEST = 600  # characters of a message


@contextmanager
def termination() -> Iterator[None]:
    """Turn SIGTERM into `SystemExit(143)`, so that open files are closed and cleaned up."""

    def leave(number, frame) -> None:
        raise SystemExit(143)

    try:
        before = signal.signal(signal.SIGTERM, leave)
    except ValueError:  # not the main thread: the program around us owns its signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def report(error: BaseException) -> int:
    """Say on standard error what went wrong, and return the exit code."""
    code, message = verdict(error)
    if code == 1 or os.environ.get("UNIGEN_TRACEBACK") == "1":
        traceback.print_exception(error)
    if code == 141:  # the reader of our output has gone: nothing to say, and nobody to say it to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code
    return say(message, code)


def verdict(error: BaseException) -> tuple[int, str]:
    """The exit code of `error`, and the sentence that goes with it."""
    if isinstance(error, KeyboardInterrupt):
        return 130, "interrupted"
    if isinstance(error, UnigenError) and error.exit_code != 1:
        return error.exit_code, str(error)
    if isinstance(error, BrokenPipeError):
        return 141, "the reader of the output has gone"
    if isinstance(error, TimeoutError):
        return 5, f"out of time: {error}"
    if isinstance(error, OSError) and error.errno in USER_PATHS | OUT_OF:
        where = f": {error.filename}" if error.filename is not None else ""
        return 2 if error.errno in USER_PATHS else 5, f"{error.strerror}{where}"
    allocator = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    if isinstance(error, MemoryError) or allocator or type(error).__name__ == "OutOfMemoryError":
        return 5, "out of memory; ask for less at a time, or for a smaller model"
    return 1, "this is a bug of unigen, please report it with the lines above"


def say(message: str, code: int) -> int:
    """Print one line on standard error, no control character raw in it, and return `code`."""
    line = " ".join(message.split())
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    sys.stderr.write(f"unigen: {line if len(line) <= LONGEST else line[: LONGEST - 3] + '...'}\n")
    return code
