"""What a training run survives, by breaking it: kills, stops, flipped bytes, full disks.

    python benchmarks/faults.py                # every check at its full count: hours on 2 cores
    python benchmarks/faults.py A7 A8 --share 0.1

Prints one JSON line a check: {"id", "what", "n", "good", "limit", "pass"}. Runs are those of
`unigen train` on the world, with a small model, in processes of their own. The same checks at
small counts are tests (tests/test_faults.py).
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from unigen.errors import CheckpointError, ResourceError
from unigen.runs import latest_step, load_step, save_step, sweep

ROOT = Path(__file__).resolve().parents[1]
SMALL = ("model=small", "modality=[text,image]", "trainer.cache=64", "trainer.batch=8",
         "trainer.log_every=1", "trainer.preview_every=0", "trainer.warmup=2")  # fmt: skip
TEAM = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def started(out: Path, *words: str, team: tuple[str, ...] = ()) -> subprocess.Popen:
    """Start `unigen train` in a process group of its own, under torchrun if there is a team."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *team, "-m", "unigen", "train", *SMALL, *words, f"out={out}"]
    return subprocess.Popen(
        command, env=env, cwd=out.parent, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, errors="replace", start_new_session=True,
    )  # fmt: skip


def finished(run: subprocess.Popen, seconds: float = 300) -> tuple[int, str]:
    """Wait for a run; return its exit code and what it said."""
    try:
        _, said = run.communicate(timeout=seconds)
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
    return run.returncode, said


def logged(out: Path) -> list[str]:
    """Return the lines of the log of losses, which is exact to the last bit."""
    path = out / "losses.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def until(condition: Callable[[], bool], run: subprocess.Popen, seconds: float = 240) -> None:
    """Wait until a condition holds; RuntimeError where the run ends before, or time does."""
    end = time.monotonic() + seconds
    while not condition():
        if run.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"the run ended too early: {finished(run)[1][-2000:]}")
        time.sleep(0.02)


def process(run: subprocess.Popen, rank: int) -> int:
    """Return the process of a rank of a torchrun."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            facts = (path.parent / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if parent == run.pid and f"RANK={rank}".encode() in facts:
            return int(path.parent.name)
    raise RuntimeError(f"rank {rank} is not there")


def line(name: str, what: str, n: int, good: int, **facts) -> bool:
    """Print the outcome of a check; return whether it passed."""
    passed = good == n
    print(json.dumps({"id": name, "what": what, "n": n, "good": good, "limit": n, **facts,
                      "pass": passed}), flush=True)  # fmt: skip
    return passed


def a1(folder: Path, n: int = 50) -> bool:
    """Kill a run at a random moment of its saves; it goes on, and loses no older checkpoint."""
    chance, good, half, newest = random.Random(1), 0, 0, 0
    out = folder / "run"
    for _ in range(n):
        run = started(out, "trainer.steps=100000", "trainer.save_every=0")
        first = newest
        until(lambda first=first: _newest(out) > first, run)
        time.sleep(chance.uniform(0, 0.5))
        os.killpg(run.pid, signal.SIGKILL)
        finished(run)
        half += any(".tmp-" in path.name for path in (out / "checkpoints").iterdir())
        folder_, notes = latest_step(out)
        good += folder_ is not None and not notes and load_step(folder_)[1]["step"] >= newest
        newest = _newest(out)
    sweep(out)
    clean = not [p for p in (out / "checkpoints").iterdir() if ".tmp-" in p.name]
    return line("A1", "kill -9 while saving", n, good if clean else 0, half_written=half)


def _newest(out: Path) -> int:
    folder = out / "checkpoints"
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    return max((int(name[5:]) for name in names if ".tmp-" not in name), default=0)


def a2(folder: Path, n: int = 20) -> bool:
    """End a run with SIGTERM; it saves the step it is at within 10 s and exits with 143."""
    good, slowest = 0, 0.0
    for i in range(n):
        out = folder / f"run{i}"
        run = started(out, "trainer.steps=100000", "trainer.save_every=1000")
        until(lambda out=out, i=i: len(logged(out)) > 3 + i, run)
        start = time.monotonic()
        run.send_signal(signal.SIGTERM)
        code, _ = finished(run)
        slowest = max(slowest, time.monotonic() - start)
        good += code == 143 and _newest(out) == len(logged(out))
    return line("A2", "SIGTERM saves", n, good if slowest < 10 else 0, slowest_s=round(slowest, 2))


def a3(folder: Path, n: int = 100) -> bool:
    """Flip one bit anywhere in the newest checkpoint; it is found, and the older one is used."""
    chance, good = random.Random(3), 0
    for step in (1, 2):
        save_step(folder, step, {"model": {"w": torch.randn(10_000)}}, {"step": step})
    old, new = sorted((folder / "checkpoints").iterdir())
    for _ in range(n):
        path = chance.choice(sorted(new.iterdir()))
        data = bytearray(whole := path.read_bytes())
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        found, notes = latest_step(folder)
        try:
            load_step(new)
        except CheckpointError as error:
            good += found == old and path.name in notes[0] and path.name in str(error)
        path.write_bytes(whole)
    return line("A3", "one flipped bit", n, good)


def a4(folder: Path, n: int = 12) -> bool:
    """Stop runs at random steps and go on; losses and the model are those of one never stopped."""
    steps, chance = 24, random.Random(4)
    told = (f"trainer.steps={steps}", "trainer.save_every=1000", "trainer.schedule=cosine")
    finished(started(folder / "straight", *told))
    good = 0
    for i in range(n):
        out, stop = folder / f"run{i}", chance.randrange(1, steps - 4)
        run = started(out, *told)
        until(lambda out=out, stop=stop: len(logged(out)) >= stop, run)
        run.send_signal(signal.SIGTERM)
        finished(run)
        finished(started(out, *told))
        same = [(folder / "straight" / "model" / f).read_bytes() == (out / "model" / f).read_bytes()
                for f in ("config.json", "model.safetensors")]  # fmt: skip
        good += logged(out) == logged(folder / "straight") and all(same)
    return line("A4", "resumed is never stopped, bit for bit", n, good)


def a7(folder: Path, n: int = 10) -> bool:
    """Kill one of two processes: the other ends and names it; restarted, the run ends the same."""
    told = ("trainer.steps=12", "trainer.save_every=0")
    finished(started(folder / "straight", *told, team=TEAM))
    good, slowest = 0, 0.0
    for i in range(n):
        out = folder / f"run{i}"
        run = started(out, *told, team=(*TEAM, "--max-restarts", "1"))
        until(lambda out=out: len(logged(out)) >= 5, run)
        os.kill(process(run, 1), signal.SIGKILL)
        start, steps = time.monotonic(), len(logged(out))
        code, said = finished(run)
        slowest = max(slowest, time.monotonic() - start)
        good += (
            code == 0
            and "process 1 of 2 died" in said
            and steps < 12
            and logged(out) == logged(folder / "straight")
        )
    return line("A7", "a killed process", n, good, slowest_to_the_end_s=round(slowest, 1))


def a8(folder: Path, n: int = 5) -> bool:
    """Stop one of two processes: the other ends at the timeout and names it."""
    good, slowest = 0, 0.0
    for i in range(n):
        out = folder / f"run{i}"
        run = started(out, "trainer.steps=100000", "trainer.timeout=10", team=TEAM)
        until(lambda out=out: len(logged(out)) >= 3, run)
        hung, other = process(run, 1), process(run, 0)
        os.kill(hung, signal.SIGSTOP)
        start = time.monotonic()
        until(lambda other=other: not _runs(other), run)
        slowest = max(slowest, time.monotonic() - start)
        os.kill(hung, signal.SIGKILL)
        code, said = finished(run)
        good += code != 0 and "process 1 of 2 died or hangs" in said
    return line("A8", "a stopped process, timeout 10 s", n, good if slowest < 20 else 0,
                slowest_s=round(slowest, 1))  # fmt: skip


def _runs(pid: int) -> bool:
    """Tell whether a process runs: one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def a10(folder: Path, n: int = 20) -> bool:
    """Let the disk be full at some size; the sentence tells it, and the older step still loads."""
    tensors = {"model": {"w": torch.randn(50_000)}, "ema": {"w": torch.randn(50_000)}}
    save_step(folder, 1, tensors, {"step": 1})
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    good = 0
    for i in range(n):
        resource.setrlimit(resource.RLIMIT_FSIZE, (100 + 200_000 * i // n, hard))
        try:
            save_step(folder, 2, tensors, {"step": 2})
        except ResourceError as error:
            told = "bytes" in str(error) and "step-00000002" in str(error)
            names = [p.name for p in (folder / "checkpoints").iterdir()]
            good += told and names == ["step-00000001"] and error.exit_code == 5
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        good -= load_step(latest_step(folder).folder)[1] != {"step": 1}
    signal.signal(signal.SIGXFSZ, before)
    return line("A10", "full disk", n, good)


def a12(folder: Path, n: int = 3) -> bool:
    """Start a second run in a folder that one uses: it ends with 2 and the first goes on."""
    good, out = 0, folder / "run"
    run = started(out, "trainer.steps=100000")
    until(lambda: len(logged(out)) >= 1, run)
    for _ in range(n):
        code, said = finished(started(out, "trainer.steps=100000"))
        good += code == 2 and "used by another run" in said
    steps = len(logged(out))
    until(lambda: len(logged(out)) > steps, run)
    os.killpg(run.pid, signal.SIGKILL)
    finished(run)
    return line("A12", "two runs in one folder", n, good)


CHECKS = {"A1": (a1, 50), "A2": (a2, 20), "A3": (a3, 100), "A4": (a4, 12), "A7": (a7, 10),
          "A8": (a8, 5), "A10": (a10, 20), "A12": (a12, 3)}  # fmt: skip


def main() -> int:
    """Run the checks that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checks", nargs="*", help=f"some of {' '.join(CHECKS)}; none: all")
    parser.add_argument("--share", type=float, default=1.0, help="of the full count of each")
    args = parser.parse_args()
    passed = True
    for name in args.checks or CHECKS:
        check, n = CHECKS[name]
        folder = Path(tempfile.mkdtemp(prefix=f"unigen-{name}-"))
        passed &= check(folder, max(1, round(n * args.share)))
        shutil.rmtree(folder)
    return not passed


if __name__ == "__main__":
    sys.exit(main())
