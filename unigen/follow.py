"""Following a run: the progress bar, the log of losses, TensorBoard, Weights & Biases.

`losses.jsonl` depends on the run's configuration only; what depends on the machine, such as
samples a second, goes to the bar and the curves.
"""

import json
import os
import re
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from unigen.disk import write_file, writing
from unigen.errors import UsageError

_LOGGED = re.compile(rb'\{"step": (\d+)[,}]')


class Follower:
    """What shows and keeps the losses of a run, in process 0; in the others it does nothing."""

    def __init__(
        self, writer: SummaryWriter, log: TextIO, bar: tqdm, batch: int, tracker: Any,
        validations: TextIO | None = None,
    ):  # fmt: skip
        """`batch`: samples a step. tracker: a run of Weights & Biases, or None."""
        self.writer, self.tracker = writer, tracker
        self._log, self._bar, self._batch, self._validations = log, bar, batch, validations
        self._sums: dict[str, tuple[float, int]] = {}
        self._since, self._steps = time.monotonic(), 0

    def add(self, losses: dict[str, float]) -> None:
        """Take the losses of one step."""
        for k, x in losses.items():
            total, count = self._sums.get(k, (0.0, 0))
            self._sums[k] = (total + x, count + 1)
        self._steps += 1
        self._bar.update()

    def tell(self, step: int) -> None:
        """Write and show the means since the last call."""
        means = {k: total / count for k, (total, count) in self._sums.items()}
        self._log.write(json.dumps({"step": step, **means}) + "\n")
        self._log.flush()
        pace = {"samples/s": self._steps * self._batch / max(1e-9, time.monotonic() - self._since),
                "GB": peak_memory() / 1e9}  # fmt: skip
        shown = {k: f"{x:.3f}" for k, x in means.items() if ":" not in k}
        self._bar.set_postfix({**shown, **{k: f"{x:.1f}" for k, x in pace.items()}})
        for k, x in {**means, **pace}.items():
            self.writer.add_scalar(k, x, step)
        if self.tracker is not None:
            self.tracker.log({**means, **pace}, step=step)
        self._sums, self._since, self._steps = {}, time.monotonic(), 0

    def validated(self, step: int, losses: dict[str, float]) -> None:
        """Write and show the losses of a validation."""
        if self._validations is not None:
            self._validations.write(json.dumps({"step": step, **losses}) + "\n")
            self._validations.flush()
        curves = {f"validation/{k}": x for k, x in losses.items()}
        for k, x in curves.items():
            self.writer.add_scalar(k, x, step)
        if self.tracker is not None:
            self.tracker.log(curves, step=step)


@contextmanager
def following(
    out: Path, step: int, steps: int, batch: int, wandb: str | None, config: dict,
    validates: bool = False,
) -> Iterator[Follower]:  # fmt: skip
    """Follow a run that goes on after a step, in its folder.

    wandb: project of Weights & Biases. Raises UsageError where that is not installed. validates:
    whether `validation.jsonl` is kept, too.
    """
    tracker = None if wandb is None else _tracker(wandb, out, config)
    writer = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)
    bar = tqdm(total=steps, initial=step, unit="step", file=sys.stderr,
               mininterval=1.0, dynamic_ncols=True)  # fmt: skip
    with ExitStack() as stack:
        stack.callback(writer.close)
        if tracker is not None:
            stack.callback(tracker.finish)
        stack.enter_context(bar)
        log = stack.enter_context(journal(out / "losses.jsonl", step))
        path = out / "validation.jsonl"
        validations = stack.enter_context(journal(path, step)) if validates else None
        yield Follower(writer, log, bar, batch, tracker, validations)


def _tracker(project: str, out: Path, config: dict) -> Any:
    """Return a run of Weights & Biases: online with WANDB_API_KEY or WANDB_MODE, else offline."""
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UsageError(
            f"trainer.wandb={project} needs Weights & Biases; type pip install wandb."
        ) from error
    mode: Any = os.environ.get("WANDB_MODE") or (
        "online" if "WANDB_API_KEY" in os.environ else "offline"
    )
    return wandb.init(
        project=project, name=out.name, dir=str(out), config=config, mode=mode, resume="allow"
    )


def peak_memory() -> int:
    """Return the most bytes that this process has held: of its GPU, or of the machine."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def journal(path: Path, step: int) -> TextIO:
    """Open a log of JSON lines, each beginning with its step, to go on after a step.

    Lines of later steps are dropped, for the run takes those steps again; so is half a line that
    a kill left at the end.
    """
    with writing(path):
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        good = [x for x in lines if x.endswith(b"\n") and not _later(x, step)]
        if good != lines:
            stage = path.with_name(f"{path.name}.tmp-{os.urandom(8).hex()}")
            write_file(stage, b"".join(good))
            stage.replace(path)
        return path.open("a")


def _later(line: bytes, step: int) -> bool:
    """Tell whether a line of a log belongs to a later step."""
    found = _LOGGED.match(line)
    return found is not None and int(found[1]) > step
