"""The reader's side of the worker: start it, ask it, time it, replace it.

One worker serves one process; calls from several threads wait for each other. A forked process
starts its own. The worker gets an open file, never a path.
"""

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from unigen.errors import MediaError, UsageError
from unigen.media import limits, wire

_PASSED = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR", "LANG", "LC_ALL")
_DTYPES = ("uint8", "float32")


class Fault(Exception):
    """A read that failed, in words and without the file's name; `spent`: so is the worker."""

    def __init__(self, error: type, words: str, spent: bool = False):
        super().__init__(words)
        self.error, self.words, self.spent = error, words, spent


class Worker:
    """One child process that decodes; see `unigen.media.worker` for its limits."""

    def __init__(self):
        mine, its = socket.socketpair()
        root = str(Path(__file__).parents[2])
        places = [str(Path(p).absolute()) for p in [root, *sys.path]]
        env = {k: os.environ[k] for k in _PASSED if k in os.environ}
        env |= {"PYTHONPATH": os.pathsep.join(dict.fromkeys(places)), "MALLOC_ARENA_MAX": "1"}
        env |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with its:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-B", "-m", "unigen.media.worker", str(its.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[its.fileno()],
                env=env,
                cwd="/",
                start_new_session=True,
            )
        self.socket, self.calls = mine, 0
        self.ready: set[str] = set()  # operations whose libraries it has imported
        self.deadline = self.end = self.cpu = 0.0

    def call(self, op: str, fd: int, args: dict, take: Callable) -> dict:
        """Run one operation on an open file; `take(places, array)` gets each array on arrival."""
        self.calls += 1
        self._allow(limits.WORKER_SECONDS if op in self.ready else limits.WORKER_START)
        wire.send(self.socket, {"op": op, "args": args}, fd=fd)
        budget = max(limits.VIDEO_BYTES, limits.AUDIO_BYTES)
        while True:
            message = wire.receive(self._read)
            if "ready" in message:
                self.ready.add(op)
                self._allow(limits.WORKER_SECONDS)
            elif "array" in message:
                array = np.empty([int(n) for n in message["array"]], _checked(message["dtype"]))
                budget -= array.nbytes
                if budget < 0 or array.nbytes != message["bytes"]:
                    raise ValueError("more bytes than were announced")
                self._read(array.data.cast("B"))
                take(message["at"], array)
            elif "done" in message:
                return message["done"]
            else:
                kind = UsageError if message["usage"] else MediaError
                raise Fault(kind, _clean(message["fault"]), bool(message.get("spent")))

    def _allow(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds
        self.end = time.monotonic() + max(seconds, limits.WORKER_PATIENCE)
        self.cpu = _activity(self.process)[1] + seconds

    def _read(self, view: memoryview) -> None:
        while len(view):
            self.socket.settimeout(max(self.deadline - time.monotonic(), 0.001))
            try:
                count = self.socket.recv_into(view)
            except TimeoutError:
                self._extend()
                continue
            if not count:
                raise EOFError
            view = view[count:]

    def _extend(self) -> None:
        """Give more time to a child that waits for its turn on the processor, and to no other."""
        busy, used = _activity(self.process)
        if not busy or used >= self.cpu or time.monotonic() >= self.end:
            raise TimeoutError
        self.deadline = time.monotonic() + 0.5

    def close(self) -> None:
        """End the child, whatever it does."""
        self.socket.close()
        self.process.kill()
        self.process.wait()


_lock = threading.Lock()
_worker: Worker | None = None


def ask(op: str, fd: int, args: dict, take: Callable) -> dict:
    """Decode in the worker; a crash, a hang or a lack of memory there is a `Fault` here."""
    global _worker
    with _lock:
        if _worker is None or _worker.calls >= limits.WORKER_CALLS:
            _drop()
            _worker = Worker()
        whole = False
        try:
            answer = _worker.call(op, fd, args, take)
            whole = True
            return answer
        except Fault as fault:
            whole = not fault.spent
            raise
        except TimeoutError:
            seconds = f"{limits.WORKER_SECONDS:g} s"
            raise Fault(MediaError, f"it took more than {seconds} to decode") from None
        except (EOFError, ConnectionError):
            raise Fault(MediaError, f"its decoder {_fate(_worker.process)}") from None
        except (ValueError, KeyError, TypeError):
            raise Fault(MediaError, "its decoder answered nonsense") from None
        finally:
            if not whole:
                _drop()


def _drop() -> None:
    global _worker
    if _worker is not None:
        _worker.close()
        _worker = None


def _forget() -> None:
    """After a fork: leave the parent's worker alone."""
    global _worker, _lock
    _lock = threading.Lock()
    if _worker is not None:
        _worker.socket.close()
        _worker = None


def _fate(process: subprocess.Popen) -> str:
    """Say how the child ended."""
    try:
        code = process.wait(1)
    except subprocess.TimeoutExpired:
        return "stopped answering"
    if code < 0:
        return f"crashed ({signal.Signals(-code).name})"
    return f"stopped (exit code {code})"


def _activity(process: subprocess.Popen) -> tuple[bool, float]:
    """Whether the child runs or wants to, and the processor seconds it has used (Linux only)."""
    try:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return False, 0.0
    ticks = int(fields[11]) + int(fields[12])
    return fields[0] in "RD", ticks / os.sysconf("SC_CLK_TCK")


def _checked(dtype: str) -> str:
    if dtype not in _DTYPES:
        raise ValueError(dtype)
    return dtype


def _clean(words) -> str:
    """One printable line of at most 200 characters."""
    line = "".join(c if c.isprintable() else " " for c in str(words)[:1000])
    return " ".join(line.split())[:200]


atexit.register(_drop)
os.register_at_fork(after_in_child=_forget)
