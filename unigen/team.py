"""The processes of one run: alone, or as many as torchrun started.

They meet in a store, which torchrun keeps, and in collectives, which end at a timeout. Where one
of them fails, the others say which.
"""

import gc
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore

from unigen import errors
from unigen.errors import ResourceError, UnigenError, UsageError
from unigen.rendezvous import LONG, begin
from unigen.share import Share

NOTICE = 2.0  # seconds that gloo takes beyond a timeout
GRACE = 2.5  # seconds in which processes that live come to the roll call
WRITING = timedelta(minutes=30)  # for what one process writes while the others wait


class Team:
    """One process, alone."""

    rank, size = 0, 1

    def device(self, name: str) -> str:
        """Return the device of this process."""
        return name

    def shares(self, passes: int) -> Iterator[Share]:
        """Return the shares of a step that this process takes, one after another."""
        for i in range(passes):
            yield Share(i, passes)

    def tell(self, value: Any) -> Any:
        """Return what process 0 says."""
        return value

    def hear(self, value: Any) -> list[Any]:
        """Return what every process says."""
        return [value]

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean over the processes."""
        return value

    def any(self, *words: bool) -> tuple[bool, ...]:
        """Return of each word whether some process says it."""
        return words

    def meet(self, patience: timedelta = LONG) -> None:
        """Wait for everybody, as long as it may take."""

    @contextmanager
    def roll_call(self) -> Iterator[None]:
        """Say which process failed, where the work inside ends with an error."""
        yield

    @contextmanager
    def together(self) -> Iterator[None]:
        """Do work that may fail on one process only; it fails on all of them then."""
        yield


ALONE = Team()


class Torchrun(Team):
    """The processes that torchrun started."""

    def __init__(self, timeout: float):
        """Meet the others.

        timeout: seconds after which a process that is silent counts as gone and this one ends.
        """
        self.timeout = timedelta(seconds=max(timeout - NOTICE - GRACE, timeout / 2))
        store, self.rank, self.size = begin()
        self._store = PrefixStore("unigen", store)
        backend = "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            backend = "cpu:gloo,cuda:nccl"
        dist.init_process_group(
            backend, store=store, rank=self.rank, world_size=self.size, timeout=self.timeout
        )
        # connections of their own: a wait in the store would not see that somebody died
        self._rooms: dict[timedelta, dist.ProcessGroup] = {}
        for patience in (LONG, WRITING):
            self._rooms[patience] = dist.new_group(backend="gloo", timeout=patience)  # type: ignore
        self._meshes: list[DeviceMesh] = []

    def leave(self) -> None:
        """Take the groups down while Python lives: a thread of theirs that outlasts it aborts."""
        self._rooms.clear()
        for mesh in self._meshes:  # which the caches of DTensor keep for ever
            mesh._pg_registry.clear()
        dist.destroy_process_group()
        gc.collect()  # the wrappers of a module hold groups, and are held in circles

    def device(self, name: str) -> str:
        """Return the device of this process: its own one of the node's GPUs."""
        return f"cuda:{torch.cuda.current_device()}" if name == "cuda" else name

    def mesh(self, device: str) -> DeviceMesh:
        """Return the processes in a row, for torch to share tensors over."""
        self._meshes.append(init_device_mesh(device, (self.size,)))
        return self._meshes[-1]

    def shares(self, passes: int) -> Iterator[Share]:
        """Return the shares of a step that this process takes, one after another."""
        for i in range(passes):
            yield _TeamShare(self, self.rank * passes + i, self.size * passes)

    def tell(self, value: Any) -> Any:
        """Return what process 0 says."""
        said = [value]
        dist.broadcast_object_list(said, src=0, device=torch.device("cpu"))
        return said[0]

    def hear(self, value: Any) -> list[Any]:
        """Return what every process says."""
        said: list[Any] = [None] * self.size
        dist.all_gather_object(said, value)
        return said

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean over the processes."""
        total = value.clone()
        dist.all_reduce(total)
        return total / self.size

    def any(self, *words: bool) -> tuple[bool, ...]:
        """Return of each word whether some process says it."""
        return tuple(bool(x > 0) for x in self.mean(torch.tensor(words, dtype=torch.float32)))

    def meet(self, patience: timedelta = LONG) -> None:
        """Wait for everybody, as long as it may take, or until somebody dies."""
        dist.barrier(group=self._rooms[patience])

    @contextmanager
    def roll_call(self) -> Iterator[None]:
        """Say which process failed, where the work inside ends with an error.

        Everybody who still can answers, in a few seconds; who does not is dead or hangs.
        """
        try:
            yield
        except (Exception, SystemExit) as raised:
            error = _fault(raised)
            if isinstance(error, SystemExit):
                raise
            if not _of_the_network(error):
                self._store.set(f"end/{self.rank}", f"{error}"[:300] or type(error).__name__)
                raise
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun saw it too
            silent, told = self._answers()
            if silent:
                raise ResourceError(
                    f"process {_names(silent)} of {self.size} died or hangs. Start the run again, "
                    "or with torchrun --max-restarts=3: it goes on from its last checkpoint."
                ) from error
            if told:
                rank, sentence = next(iter(told.items()))
                raise ResourceError(f"process {rank} of {self.size} failed: {sentence}") from error
            raise ResourceError(
                f"the processes lost each other, none of them dead: {error}; look at the network."
            ) from error

    def _answers(self) -> tuple[list[int], dict[int, str]]:
        """Return who is silent, and what the others say that went wrong, if not the network."""
        self._store.set(f"end/{self.rank}", "")
        silent = set(range(self.size)) - {self.rank}
        end = time.monotonic() + GRACE
        while silent and time.monotonic() < end:
            silent -= {i for i in silent if self._store.check([f"end/{i}"])}
            time.sleep(0.02)
        others = [i for i in range(self.size) if i not in silent and i != self.rank]
        told = {i: self._store.get(f"end/{i}").decode() for i in others}
        return sorted(silent), {i: sentence for i, sentence in told.items() if sentence}

    @contextmanager
    def together(self) -> Iterator[None]:
        """Do work that may fail on one process only; it fails on all of them then."""
        fault, cause = None, None
        try:
            yield
        except UnigenError as error:
            fault, cause = (type(error).__name__, str(error)), error
        self.meet(WRITING)
        for other in self.hear(fault):
            if other is not None:
                raise getattr(errors, other[0], ResourceError)(other[1]) from cause


class _TeamShare(Share):
    """A share taken by one process of a team."""

    def __init__(self, team: Torchrun, index: int, of: int):
        super().__init__(index, of)
        self.team = team

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all shares, with gradient; UsageError where they come one by one."""
        if self.of != self.team.size:
            return super().gather(rows)
        from torch.distributed.nn.functional import all_gather

        return torch.cat(all_gather(rows.contiguous()))

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a number over the shares that are taken at the same time."""
        return self.team.mean(value.detach())


@contextmanager
def team_of(timeout: float) -> Iterator[Team]:
    """Give the team of this process: alone, unless torchrun's environment is there.

    timeout: seconds. Raises UsageError for one that is not positive.
    """
    if not timeout > 0:
        raise UsageError(f"trainer.timeout={timeout} is no time to wait; give seconds, like 120.")
    if "WORLD_SIZE" not in os.environ or "MASTER_ADDR" not in os.environ:
        yield Team()
        return
    team = Torchrun(timeout)
    with team.roll_call():  # after a fault nothing is taken down: that would wait for the dead
        yield team
    team.leave()


def _fault(error: BaseException) -> BaseException:
    """Return what went wrong before torchrun, who saw it too, asked this process to end."""
    while isinstance(error, SystemExit) and error.__context__:
        error = error.__context__
    return error


def _of_the_network(error: BaseException) -> bool:
    """Tell whether an error is what a collective raises when others are gone."""
    words = ("gloo", "NCCL", "Connection closed", "Connection reset", "Timed out", "imeout")
    known = isinstance(error, dist.DistError) or type(error) is RuntimeError
    return known and any(word in str(error) for word in words)


def _names(ranks: list[int]) -> str:
    return ", ".join(map(str, ranks[:8])) + (" and more" if len(ranks) > 8 else "")
