"""The isolated child that decodes. It runs as `python -m unigen.media.worker <socket>`.

Limits are set before any file is seen: memory, file size zero (it can write nothing), open files,
no new privileges and, where the system allows it, no network. It never imports torch. Each request
brings an open file; a request that takes too long ends the process.
"""

import ctypes
import importlib
import os
import re
import resource
import signal
import socket
import sys
from functools import partial

from unigen.media import limits, wire

_MODULES = {
    "probe": "unigen.media.decode_any",
    "image": "unigen.media.decode_image",
    "video": "unigen.media.decode_video",
    "audio": "unigen.media.decode_audio",
    "recipe": "unigen.media.decode_recipe",
}
_NO_NEW_PRIVS, _NEW_USER, _NEW_NET = 38, 0x10000000, 0x40000000


class Refused(Exception):
    """A file that is not wanted, in words; `usage` where the call was wrong, not the file."""

    def __init__(self, words: str, usage: bool = False):
        super().__init__(words)
        self.usage = usage


def confine(memory: int = limits.WORKER_MEMORY, output: int = 0) -> None:
    """Give up what decoding does not need; memory, output: bytes it may have and write."""
    for what, most in (
        (resource.RLIMIT_FSIZE, output),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, limits.WORKER_FILES),
        (resource.RLIMIT_AS, memory),
    ):
        if sys.platform == "linux" or what != resource.RLIMIT_AS:
            resource.setrlimit(what, (most, most))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
        if libc.unshare(_NEW_NET) != 0:  # without the right to, this is one wall less
            libc.unshare(_NEW_USER | _NEW_NET)


def serve(sock: socket.socket) -> None:
    """Answer requests until the other side hangs up."""
    while True:
        held: list[int] = []
        try:
            request = wire.receive(partial(_read, sock, held))
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, limits.WORKER_START + limits.WORKER_SECONDS + 5)
        answer = _answer(sock, request, held)
        signal.setitimer(signal.ITIMER_REAL, 0)
        wire.send(sock, answer)


def _answer(sock: socket.socket, request: dict, held: list[int]) -> dict:
    def emit(at, array) -> None:
        shape = {"array": list(array.shape), "dtype": str(array.dtype), "at": at}
        wire.send(sock, shape, memoryview(array).cast("B"))

    with os.fdopen(held.pop(), "rb") as file:
        try:
            module = importlib.import_module(_MODULES[request["op"]])
            wire.send(sock, {"ready": True})
            return {"done": module.read(file, request["args"], emit)}
        except Refused as refused:
            return {"fault": str(refused), "usage": refused.usage}
        except MemoryError:
            fault = "it needs more memory than a file may take"
            return {"fault": fault, "usage": False, "spent": True}
        except Exception as error:  # decoders raise all sorts of things; all mean a bad file
            return {"fault": f"it is damaged ({_in_words(error)})", "usage": False}


def _in_words(error: Exception) -> str:
    """What a library says, without its numbers and without its name for our open file."""
    words = getattr(error, "strerror", None) or str(error)
    words = re.sub(r"Error opening <.*?>:|<_io\S* name=\d+>|\[Errno -?\d+\]|: '\d+'", "", words)
    return f"{type(error).__name__}: {words.strip()}"


def _read(sock: socket.socket, held: list[int], view: memoryview) -> None:
    while len(view):
        if held:
            count = sock.recv_into(view)
        else:
            data, fds, _, _ = socket.recv_fds(sock, len(view), 1)
            held.extend(fds)
            view[: len(data)] = data
            count = len(data)
        if not count:
            raise EOFError
        view = view[count:]


if __name__ == "__main__":
    from unigen.media import worker  # so that there is one class Refused, not two

    worker.confine()
    worker.serve(socket.socket(fileno=int(sys.argv[1])))
