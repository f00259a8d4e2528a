"""What a run survives while it trains: stops, dead and silent processes, NaN, a second run."""

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from faults_plugin import told
from faults_shared import (
    FOREVER,
    TEAM,
    finished,
    here,
    line,
    logged,
    newest,
    process,
    runs,
    started,
    until,
)
from media_folder import mixed, png

from unigen.runs import latest_step, load_step

Outcome = dict[str, Any]
ALL = "modality=[text,image,video,audio]"
LIVE = ("trainer.cache=0", "trainer.workers=2")  # media read and encoded as the steps come
EXACT = ("trainer.bf16=false", "trainer.muon_lr=null")  # Muon rounds, so a last bit becomes many


def a4(folder: Path, n: int = 12) -> Outcome:
    """Stop runs at random steps and go on; losses and the model are those of one never stopped.

    Media of a folder, all four parts, epochs of a few steps; 0 and 2 threads that read ahead. Runs
    end with SIGTERM, and every third with SIGKILL, to go on from the last save.
    """
    steps, chance = max(24, 200 * n // 12), random.Random(4)
    mixed(folder / "media", 40)
    told_all = ("data=folder", f"data.root={folder / 'media'}", ALL, f"trainer.steps={steps}",
                "trainer.schedule=cosine", "trainer.cache=0")  # fmt: skip
    whole = folder / "straight"
    finished(started(whole, *told_all, "trainer.save_every=1000.0", "trainer.workers=0"))
    good = 0
    for i in range(n):
        out, stop = folder / f"run{i}", chance.randrange(2, steps - 4) if i else steps // 2
        words = (*told_all, f"trainer.workers={2 * (i % 2)}")
        kill = i % 3 == 0
        run = started(out, *words, f"trainer.save_every={0.002 if kill else 1000}")
        until(lambda out=out, stop=stop: len(logged(out)) >= stop, run)
        if kill:
            until(lambda out=out: newest(out) > 0, run)
        run.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        finished(run)
        stopped = 0 < newest(out) < steps
        finished(started(out, *words, "trainer.save_every=1000.0"))
        same = [(whole / "model" / f).read_bytes() == (out / "model" / f).read_bytes()
                for f in ("config.json", "model.safetensors")]  # fmt: skip
        good += stopped and logged(out) == logged(whole) and len(logged(out)) == steps and all(same)
    return line("A4", "resumed is never stopped, bit for bit", n, good, steps=steps)


def watched(media: Path, log: Path) -> tuple[str, ...]:
    """Return the words for a folder of media that tells which items are asked for."""
    log.mkdir(parents=True)
    return ("plugins=[faults_plugin]", "data=folder", f"data.root={media}", f"+data.log={log}",
            "data._target_=faults_plugin.WatchedFolder")  # fmt: skip


def asked(log: Path, first: int, last: int, size: int = 1) -> list[list[int]]:
    """Return the items of the steps from `first` to before `last`, of all processes in turn."""
    of: list[dict[int, list[int]]] = [{} for _ in range(size)]
    for rank, steps in enumerate(of):
        for each in told(log, rank):
            if "step" in each:
                steps.setdefault(each["step"], each["index"])
    return [[i for steps in of for i in steps[step]] for step in range(first, last)]


def a5(folder: Path, n: int = 5) -> Outcome:
    """Read with 0, 1, 2 and 4 threads, and by two processes: the samples have one order."""
    mixed(folder / "media", 20)
    steps, orders = 30, []
    for i, (workers, team) in enumerate([(0, ()), (2, TEAM), (2, ()), (1, ()), (4, ())][:n]):
        log, out = folder / f"log{i}", folder / f"run{i}"
        words = (*watched(folder / "media", log), ALL, "trainer.cache=0", f"trainer.steps={steps}",
                 f"trainer.workers={workers}", "trainer.save_every=1000.0")  # fmt: skip
        code = finished(started(out, *words, team=team))[0] if team else here(out, *words)
        orders.append((code, asked(log, 0, steps, 2 if team else 1)))
    good = sum(order == (0, orders[0][1]) for order in orders)
    return line("A5", "one order of samples", n, good, steps=steps)


def a6(folder: Path, n: int = 3) -> Outcome:
    """Go on with 1 process, and with 2 again: each sample once an epoch, the losses of one run."""
    for i in range(40):
        png(folder / f"media/image/{i:02d}.png", i)
    steps, epoch, chance = 20, 5, random.Random(6)
    words = (
        *EXACT,
        *LIVE,
        "modality=[image]",
        f"trainer.steps={steps}",
        "trainer.save_every=1000.0",
    )
    straight = folder / "straight"
    finished(started(straight, *watched(folder / "media", folder / "log"), *words, team=TEAM))
    good, most = 0, 0.0
    for i in range(n):
        out, seen, ends = folder / f"run{i}", [], [0, chance.randint(4, 7), chance.randint(10, 14)]
        for phase, team in enumerate((TEAM, (), TEAM)):
            log = folder / f"log{i}-{phase}"
            run = started(out, *watched(folder / "media", log), *words, team=team)
            if phase < 2:
                until(lambda out=out, stop=ends[phase + 1]: len(logged(out)) >= stop, run)
                os.kill(process(run, 1) if team else run.pid, signal.SIGTERM)
            finished(run)
            seen += asked(log, len(seen), newest(out), 2 if team else 1)
        epochs = [
            [j % 40 for step in seen[k : k + epoch] for j in step] for k in range(0, steps, epoch)
        ]
        once = all(sorted(each) == list(range(40)) for each in epochs)
        apart = difference(logged(out), logged(straight))
        most = max(most, apart)
        good += once and len(seen) == steps and apart <= 1e-5
    return line("A6", "2, 1 and 2 processes", n, good, largest_difference=most)


def difference(a: list[str], b: list[str]) -> float:
    """Return the largest difference of two logs of losses, relative where they are large."""
    ours, theirs = ([json.loads(each) for each in log] for log in (a, b))
    if [x.keys() for x in ours] != [y.keys() for y in theirs]:
        return float("inf")
    return max(abs(x[k] - y[k]) / max(1.0, abs(y[k]))
               for x, y in zip(ours, theirs, strict=True) for k in x)  # fmt: skip


def a7(folder: Path, n: int = 10) -> Outcome:
    """Kill one of two processes: the other ends and names it; restarted, the run ends the same."""
    steps, at = (24, 20) if n > 1 else (12, 5)
    words = (f"trainer.steps={steps}", "trainer.save_every=0")
    finished(started(folder / "straight", *words, team=TEAM))
    good, slowest, again = 0, 0.0, 0.0
    for i in range(n):
        out = folder / f"run{i}"
        run = started(out, *words, team=(*TEAM, "--max-restarts", "1"))
        until(lambda out=out: len(logged(out)) >= at, run)
        survivor = process(run, 0)
        os.kill(process(run, 1), signal.SIGKILL)
        start, reached = time.monotonic(), len(logged(out))
        until(lambda survivor=survivor: not runs(survivor), run)
        slowest = max(slowest, time.monotonic() - start)
        done = len(logged(out))  # a step may have ended meanwhile
        until(lambda out=out, done=done: len(logged(out)) > done or done == steps, run)
        again = max(again, time.monotonic() - start)
        code, said = finished(run)
        named = "process 1 of 2 died" in said
        same = logged(out) == logged(folder / "straight")
        good += code == 0 and named and reached < steps and same
    return line("A7", "a killed process", n, good,
                {"survivor": (slowest, 5), "back_at_the_step": (again, 30)})  # fmt: skip


def a8(folder: Path, n: int = 5) -> Outcome:
    """Stop one of two processes: the other ends at the timeout, 2 s more or less, and names it."""
    good, slowest, timeout = 0, 0.0, 10
    for i in range(n):
        out = folder / f"run{i}"
        run = started(out, FOREVER, f"trainer.timeout={timeout}", team=TEAM)
        until(lambda out=out: len(logged(out)) >= 3, run)
        hung, other = process(run, 1), process(run, 0)
        os.kill(hung, signal.SIGSTOP)
        start = time.monotonic()
        until(lambda other=other: not runs(other), run)
        took = time.monotonic() - start
        slowest = max(slowest, took)
        os.kill(hung, signal.SIGKILL)
        code, said = finished(run)
        good += code != 0 and "process 1 of 2 died or hangs" in said and took > timeout - 2
    return line(
        "A8", "a stopped process, timeout 10 s", n, good, {"slowest": (slowest, timeout + 2)}
    )


def a9(folder: Path, n: int = 6) -> Outcome:
    """Make losses and gradients of one process NaN and Inf: both skip the step; five in a row stop.

    n: the steps so poisoned, 1, 7, 8, 9 and 50, and at last the run that stops.
    """
    poison = [1, 7, 8, 9, 50][: max(1, n - 1)]
    steps, out, log = max(poison) + 4, folder / "run", folder / "log"
    log.mkdir()
    words = ("plugins=[faults_plugin]", "objective._target_=faults_plugin.Poisoned",
             f"+objective.steps={poison}".replace(" ", ""), f"+objective.log={log}",
             f"trainer.steps={steps}", "trainer.save_every=0")  # fmt: skip
    code, said = finished(started(out, *words, team=TEAM))
    if code:
        raise RuntimeError(said[-2000:])
    shas = [[each["sha"] for each in told(log, rank)] for rank in (0, 1)]
    skipped = [k for k in range(steps - 1) if shas[0][k] == shas[0][k + 1]]
    counted = json.loads(logged(out)[-1])["skipped"] == len(poison)
    together = shas[0] == shas[1] and counted and finite(out)
    good = len({*poison} & {*skipped}) if together and len(skipped) <= len(poison) else 0
    good += _stops(folder / "sick") if n > 1 else 0
    return line("A9", "NaN and Inf", n, good, skipped=skipped)


def finite(out: Path) -> bool:
    """Whether every checkpoint of a run is whole and holds no NaN."""
    found, notes = latest_step(out)
    if found is None or notes:
        return False
    every = [load_step(path)[0] for path in found.parent.iterdir()]
    return all(bool(value.isfinite().all()) for groups in every for group in groups.values()
               for value in group.values() if value.is_floating_point())  # fmt: skip


def _stops(out: Path, first: int = 6) -> bool:
    """Whether five sick batches in a row end a run: 5, the samples named, nothing bad saved."""
    words = ("plugins=[faults_plugin]", "data._target_=faults_plugin.Sick", f"+data.first={first}",
             "+data.batch=8", "modality=[image]", *LIVE, "trainer.save_every=0")  # fmt: skip
    code, said = finished(started(out, *words))
    sick = 8 * (first + 4) + 7  # of the last of five steps
    named = f"5 steps in a row, up to step {first + 5}, whose samples are {sick} (" in said
    return code == 5 and named and "their data is not finite" in said and finite(out)


def a12(folder: Path, n: int = 3) -> Outcome:
    """Start a second run in a folder that one uses: it ends with 2 and the first goes on."""
    good, slowest, out = 0, 0.0, folder / "run"
    run = started(out, FOREVER)
    until(lambda: len(logged(out)) >= 1, run)
    for _ in range(n):
        start = time.monotonic()
        code, said = finished(started(out, FOREVER))
        slowest = max(slowest, time.monotonic() - start)
        good += code == 2 and "used by another run" in said
    steps = len(logged(out))
    until(lambda: len(logged(out)) > steps, run)
    os.killpg(run.pid, signal.SIGKILL)
    finished(run)
    return line("A12", "two runs in one folder", n, good, {"slowest": (slowest, 2)})
