"""What is saved survives: kills and ends while saving, flipped bits, full disks, interrupts."""

import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from faults_shared import finished, line, logged, newest, saved, stages, started, until

from unigen.data.ahead import Ahead
from unigen.data.folder import Folder
from unigen.errors import CheckpointError, ResourceError
from unigen.exits import verdict
from unigen.runs import latest_step, load_step, save_step, sweep
from unigen.tensorfile import read_weights, write_weights

Outcome = dict[str, Any]
LARGE = ("model.denoiser.width=320", "model.denoiser.depth=5", "trainer.batch=2")  # over 100 MB
FOREVER = "trainer.steps=100000"


def a1(folder: Path, n: int = 50) -> Outcome:
    """Kill a run at a random moment of a save; it goes on, and loses no older checkpoint."""
    chance, out = random.Random(1), folder / "run"
    good, half, swept, span, lost, size = 0, 0, 0, 0.0, 0, 0
    for kill in range(n + 1):  # the last one only shows that the run goes on
        first, left = newest(out), stages(out)
        run = started(out, FOREVER, "trainer.save_every=0", *LARGE)
        until(lambda first=first: newest(out) > first, run)
        swept += not left & stages(out)
        if kill < n:
            until(lambda: bool(stages(out)), run)
            start, seen = time.monotonic(), newest(out)
            if not span:  # how long a save takes: the moments that the kills fall into
                until(lambda seen=seen: newest(out) > seen, run)
                span = time.monotonic() - start
                until(lambda: bool(stages(out)), run)
            time.sleep(chance.uniform(0, span))
        safe = newest(out)
        os.killpg(run.pid, signal.SIGKILL)
        finished(run)
        half += bool(stages(out))
        found, notes = latest_step(out)
        step = load_step(found)[1]["step"] if found else -1
        size = sum(file.stat().st_size for file in found.iterdir()) if found else 0
        lost = max(lost, sum(each.endswith("}") for each in logged(out)) - step)
        good += kill < n and not notes and step >= safe and lost <= 1
    sweep(out)
    clean = swept == n + 1 and not stages(out)
    return line("A1", "kill -9 while saving", n, good if clean else 0, half_written=half,
                megabytes=round(size / 1e6), save_s=round(span, 2), steps_lost=lost)  # fmt: skip


def a2(folder: Path, n: int = 20) -> Outcome:
    """End a run with SIGTERM; it saves the step it is at within 10 s and exits with 143."""
    good, slowest = 0, 0.0
    for i in range(n):
        out = folder / f"run{i}"
        run = started(out, FOREVER, "trainer.save_every=1000.0", *LARGE)
        until(lambda out=out, i=i: len(logged(out)) > 3 + i, run)
        start = time.monotonic()
        run.send_signal(signal.SIGTERM)
        code, _ = finished(run)
        slowest = max(slowest, time.monotonic() - start)
        good += code == 143 and newest(out) == len(logged(out)) and not stages(out)
    return line("A2", "SIGTERM saves", n, good, {"slowest": (slowest, 10)})


def a3(folder: Path, n: int = 100) -> Outcome:
    """Flip one bit anywhere in the newest checkpoint; it is found, and the older one is used."""
    chance, good = random.Random(3), 0
    for step in (1, 2):
        groups = {name: {"w": torch.randn(10_000)} for name in ("model", "ema", "optimizer0")}
        save_step(folder, step, groups, {"step": step, "losses": [0.1] * 1000})
    old, new = sorted((folder / "checkpoints").iterdir())
    files = sorted(new.iterdir())
    for i in range(n):
        path = files[i % len(files)]
        with flipped(path, chance):
            found, notes = latest_step(folder)
            try:
                load_step(new)
            except CheckpointError as error:
                good += found == old and path.name in notes[0] and path.name in str(error)
    with flipped(old / "model.safetensors", chance), flipped(new / "meta.json", chance):
        code, said = finished(started(folder, "trainer.steps=3"))  # none is good
    told = code == 4 and all(name in said for name in ("model.safetensors", "meta.json"))
    return line("A3", "one flipped bit", n, good if told else 0, code_where_none_is_good=code)


class flipped:
    """A file with one bit flipped, for a while."""

    def __init__(self, path: Path, chance: random.Random):
        """chance: which bit."""
        self.path, self.whole = path, path.read_bytes()
        data = bytearray(self.whole)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)

    def __enter__(self) -> None:
        """Leave it so."""

    def __exit__(self, *error: object) -> None:
        """Write it back as it was."""
        self.path.write_bytes(self.whole)


def a10(folder: Path, n: int = 20) -> Outcome:
    """Let the disk be full at some size; the sentence tells it, and the older step still loads."""
    tensors = {"model": {"w": torch.randn(50_000)}, "ema": {"w": torch.randn(50_000)}}
    save_step(folder, 1, tensors, {"step": 1})
    full = max(file.stat().st_size for file in (folder / "checkpoints").glob("*/*"))
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    good = 0
    for i in range(n):
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096 + (full - 4096) * i // n, hard))
        try:
            good += _refused(folder, tensors)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, before)
    small = _on_a_small_disk(folder / "small")
    return line("A10", "full disk", n, good if small in (None, True) else 0,
                disk_of_64_mb={None: "may not be mounted here"}.get(small, small))  # fmt: skip


def _refused(folder: Path, tensors: dict[str, dict[str, torch.Tensor]]) -> bool:
    """Whether step 2 cannot be saved, in a sentence, and step 1 is all that there is."""
    try:
        save_step(folder, 2, tensors, {"step": 2})
    except ResourceError as error:
        told = "bytes" in str(error) and "step-00000002" in str(error) and error.exit_code == 5
        return (
            told
            and saved(folder) == ["step-00000001"]
            and load_step(latest_step(folder).folder)[1] == {"step": 1}  # pyright: ignore
        )
    return False


def _on_a_small_disk(place: Path) -> bool | None:
    """Do the same on a real disk of 64 MB; None where none may be mounted."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        return None
    try:
        tensors = {"model": {"w": torch.randn(8_000_000)}}
        save_step(place, 1, tensors, {"step": 1})
        return _refused(place, tensors)
    finally:
        subprocess.run(["umount", str(place)], check=True)


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
    run = started(out, FOREVER, "trainer.save_every=0")
    until(lambda: newest(out) > 2, run)
    safe = newest(out)
    run.send_signal(signal.SIGINT)
    code, said = finished(run)
    found, notes = latest_step(out)
    whole = found is not None and not notes and load_step(found)[1]["step"] >= safe
    return code == 130 and "interrupted" in said and "Traceback" not in said and whole
