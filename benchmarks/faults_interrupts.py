"""Nothing is swallowed: what comes in between comes out of every door, and damage has one name."""

import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from faults_shared import FOREVER, finished, line, newest, saved, started, until

from unigen.data.ahead import Ahead
from unigen.data.folder import Folder
from unigen.errors import CheckpointError
from unigen.exits import verdict
from unigen.runs import latest_step, load_step, save_step
from unigen.tensorfile import read_weights, write_weights

Outcome = dict[str, Any]


class Unusual(BaseException):
    """What is no `Exception`, such as some libraries raise."""


class Interrupted(dict):
    """Tensors during whose saving something comes in between."""

    def __init__(self, error: BaseException):
        """error: what."""
        super().__init__(w=torch.ones(9))
        self.error = error

    def items(self) -> Any:
        """Be interrupted."""
        raise self.error


def a13(folder: Path, n: int = 40) -> Outcome:
    """Interrupt and damage every door: nothing is swallowed, and damage has one name."""
    media = folder / "media"
    media.mkdir()
    (media / "a.txt").write_text("words")
    cases: list[Callable[[], bool]] = [lambda: _interrupt_a_run(folder / "run")]
    for kind in (KeyboardInterrupt, SystemExit, Unusual):
        cases += [
            lambda kind=kind: _passes(kind, lambda error: _read(media, error)),
            lambda kind=kind: _passes(kind, lambda error: Ahead(_raising(error), 0)(3)),
            lambda kind=kind: _passes(kind, lambda error: _ahead(error)),
            lambda kind=kind: _passes(kind, lambda error: _save(folder / "saved", error)),
        ]
    cases.append(lambda: verdict(KeyboardInterrupt())[0] == 130)
    path = folder / "w.safetensors"
    write_weights(path, {f"w{i}": torch.randn(8) for i in range(20)})
    whole = path.read_bytes()
    cases += [lambda i=i: _mapped(path, whole, random.Random(i)) for i in range(n - len(cases))]
    return line("A13", "nothing is swallowed, damage is mapped", n, sum(c() for c in cases[:n]))


def _passes(kind: type[BaseException], door: Callable[[BaseException], None]) -> bool:
    """Whether what is raised inside of a door comes out of it, the very same."""
    error = kind("from inside")
    try:
        door(error)
    except BaseException as caught:
        return caught is error
    return False


def _raising(error: BaseException) -> Callable[[int], None]:
    def work(step: int) -> None:
        if step == 3:
            raise error

    return work


def _ahead(error: BaseException) -> None:
    """Have step 3 made by a thread."""
    ahead = Ahead(_raising(error), 2)
    try:
        for step in (2, 3):
            ahead(step)
    finally:
        ahead.close()


def _read(media: Path, error: BaseException) -> None:
    """Read an item and be interrupted; it must not count as a broken one."""
    source = Folder(str(media))

    def read(item: int, part: str, draw: int) -> None:
        raise error

    source.read = read  # pyright: ignore
    try:
        source.batch(torch.tensor([0]), ["text"])
    finally:
        if source.bad.reasons:
            raise AssertionError("an interrupt was taken for a broken sample")


def _save(run: Path, error: BaseException) -> None:
    """Be interrupted in the middle of a save; what was saved before is all that stays."""
    save_step(run, 1, {"model": {"w": torch.ones(9)}}, {"step": 1})
    try:
        save_step(run, 2, {"ema": {"w": torch.ones(9)}, "model": Interrupted(error)}, {})
    finally:
        if saved(run) != ["step-00000001"]:
            raise AssertionError(f"a save that was interrupted left {saved(run)}")


def _mapped(path: Path, whole: bytes, chance: random.Random) -> bool:
    """Whether a damaged header is a `CheckpointError`, or tensors as good as any."""
    data, end = bytearray(whole), 8 + int.from_bytes(whole[:8], "little")
    for _ in range(chance.randrange(1, 5)):
        data[chance.randrange(end)] = chance.randrange(256)
    if chance.random() < 0.3:
        del data[chance.randrange(len(data)) :]
    path.write_bytes(data)
    try:
        return all(value.isfinite().all() for value in read_weights(path)[0].values())
    except CheckpointError:
        return True


def _interrupt_a_run(out: Path) -> bool:
    """Type Ctrl-C while a run saves: 130, and what was saved before is good."""
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background a shell
    run = started(out, FOREVER, "trainer.save_every=0")  # lets it be ignored, by children, too
    signal.signal(signal.SIGINT, ours)
    until(lambda: newest(out) > 2, run)
    safe = newest(out)
    run.send_signal(signal.SIGINT)
    code, said = finished(run)
    found, notes = latest_step(out)
    whole = found is not None and not notes and load_step(found)[1]["step"] >= safe
    return code == 130 and "interrupted" in said and "Traceback" not in said and whole
