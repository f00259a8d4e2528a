"""What is saved survives: kills and ends while saving, flipped bits, full disks."""

import os
import random
import resource
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import torch
from faults_shared import (
    FOREVER,
    TEAM,
    finished,
    line,
    logged,
    newest,
    process,
    saved,
    stages,
    started,
    until,
)

from unigen.errors import CheckpointError, ResourceError
from unigen.runs import latest_step, load_step, save_step, sweep

Outcome = dict[str, Any]
LARGE = ("model.denoiser.width=320", "model.denoiser.depth=5", "trainer.batch=2")  # over 100 MB


def a1(folder: Path, n: int = 50) -> Outcome:
    """Kill a run at a random moment of a save; it goes on, and loses no older checkpoint.

    Every fifth time, the second first, the run is two processes that share the rows of everything.
    """
    chance, out = random.Random(1), folder / "run"
    good, half, swept, lost, size, teams = 0, 0, 0, 0, 0, 0
    spans: dict[int, float] = {}
    for kill in range(n + 1):  # the last one only shows that the run goes on
        first, left = newest(out), stages(out)
        team = TEAM if kill < n and kill % 5 == 1 else ()
        words = (FOREVER, "trainer.save_every=0", "trainer.engine=fsdp", *LARGE)
        run = started(out, *words, team=team)
        until(lambda first=first: newest(out) > first, run)
        ranks = [process(run, rank) for rank in (0, 1)] if team else []
        swept += not left & stages(out)
        if kill < n:
            until(lambda: bool(stages(out)), run)
            start, seen = time.monotonic(), newest(out)
            if len(ranks) not in spans:  # how long a save takes: when the kills fall
                until(lambda seen=seen: newest(out) > seen, run)
                spans[len(ranks)] = time.monotonic() - start
                until(lambda: bool(stages(out)), run)
            time.sleep(chance.uniform(0, spans[len(ranks)]))
        safe = newest(out)
        for pid in ranks:  # torchrun gives each a group of its own
            os.kill(pid, signal.SIGKILL)
        os.killpg(run.pid, signal.SIGKILL)
        finished(run)
        half += bool(stages(out))
        found, notes = latest_step(out)
        step = load_step(found)[1]["step"] if found else -1
        size = sum(file.stat().st_size for file in found.iterdir()) if found else 0
        lost = max(lost, sum(each.endswith("}") for each in logged(out)) - step)
        good += kill < n and not notes and step >= safe and lost <= 1
        teams += bool(team)
    sweep(out)
    clean = swept == n + 1 and not stages(out)
    return line("A1", "kill -9 while saving", n, good if clean else 0, half_written=half,
                of_teams=teams, megabytes=round(size / 1e6),
                save_s=[round(span, 2) for span in spans.values()], steps_lost=lost)  # fmt: skip


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
    return line("A10", "full disk", n, good if small else 0, disk_of_64_mb=small)


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


def _on_a_small_disk(place: Path) -> bool | str:
    """Do the same on a real disk of 64 MB; say so where none may be mounted."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        return "may not be mounted here"
    try:
        tensors = {"model": {"w": torch.randn(8_000_000)}}
        save_step(place, 1, tensors, {"step": 1})
        return _refused(place, tensors)
    finally:
        subprocess.run(["umount", str(place)], check=True)
