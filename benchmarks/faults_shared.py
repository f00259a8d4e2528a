"""What the checks of benchmarks/faults.py share: runs in processes of their own, and one line."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unigen import cli

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.append(str(ROOT / "tests"))  # whose media and tars are broken in known ways

SMALL = ("model=small", "modality=[text,image]", "trainer.cache=64", "trainer.batch=8",
         "trainer.log_every=1", "trainer.preview_every=0", "trainer.warmup=2")  # fmt: skip
FOREVER = "trainer.steps=100000"
TEAM = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def started(out: Path, *words: str, team: tuple[str, ...] = ()) -> subprocess.Popen:
    """Start `unigen train` in a process group of its own, under torchrun if there is a team."""
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{HERE}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
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


def here(out: Path, *words: str) -> int:
    """Run `unigen train` in this process, its words on standard error; return its exit code."""
    with contextlib.redirect_stdout(sys.stderr):
        return cli.main(["train", *SMALL, *words, f"out={out}"])


def logged(out: Path) -> list[str]:
    """Return the lines of the log of losses, which is exact to the last bit."""
    path = out / "losses.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def saved(out: Path) -> list[str]:
    """Return what lies in the checkpoint folder of a run, by name."""
    folder = out / "checkpoints"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def stages(out: Path) -> set[str]:
    """Return the checkpoints that are half written, or that a kill left so."""
    return {name for name in saved(out) if ".tmp-" in name}


def newest(out: Path) -> int:
    """Return the step of the newest whole checkpoint, 0 where there is none."""
    return max((int(name[5:]) for name in saved(out) if ".tmp-" not in name), default=0)


def until(condition: Callable[[], bool], run: subprocess.Popen, seconds: float = 240) -> None:
    """Wait until a condition holds; RuntimeError where the run ends before, or time does."""
    end = time.monotonic() + seconds
    while not condition():
        if run.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"the run ended too early: {finished(run)[1][-2000:]}")
        time.sleep(0.005)


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


def runs(pid: int) -> bool:
    """Tell whether a process runs: one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def line(
    name: str, what: str, n: int, good: int, seconds: dict[str, tuple[float, float]] | None = None,
    **facts: Any,
) -> dict[str, Any]:  # fmt: skip
    """Print the outcome of a check and return it.

    n: what was tried; all of it must be good. seconds: the longest that something took, and the
    most that it may.
    """
    times = {k: [round(took, 2), most] for k, (took, most) in (seconds or {}).items()}
    passed = good == n and all(took <= most for took, most in times.values())
    outcome = {"id": name, "what": what, "n": n, "good": good, "limit": n,
               **({"seconds": times} if times else {}), **facts, "pass": passed}  # fmt: skip
    print(json.dumps(outcome), flush=True)
    return outcome
