"""Following a run: the progress bar, the log of losses, the curves, and samples beside them.

`losses.jsonl` depends on the run's configuration only, however often it was stopped; what depends
on the machine, such as samples a second, goes to the bar and the curves.
"""

import resource
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from unigen.disk import writing
from unigen.journal import append, rewind
from unigen.tracker import Tracker

LOSSES, VALIDATIONS, CURVES = "losses.jsonl", "validation.jsonl", "tensorboard"


class Follower:
    """What shows and keeps the losses of a run, in process 0."""

    def __init__(
        self, out: Path, writer: SummaryWriter, bar: tqdm, batch: int, tracker: Any = None,
        unlogged: Mapping[str, Sequence[Any]] | None = None,
    ):  # fmt: skip
        """batch: samples a step. tracker: see Tracker. unlogged: what `state` said."""
        self.out, self.writer, self.tracker = out, writer, tracker
        self._bar, self._batch = bar, batch
        self._sums = {k: (float.fromhex(x), n) for k, (x, n) in (unlogged or {}).items()}
        self._since, self._steps = time.monotonic(), 0

    def add(self, losses: Mapping[str, float]) -> None:
        """Take the losses of one step."""
        for k, x in losses.items():
            total, count = self._sums.get(k, (0.0, 0))
            self._sums[k] = (total + x, count + 1)
        self._steps += 1
        self._bar.update()

    def tell(self, step: int) -> None:
        """Write and show the means since the last call."""
        means = {k: total / count for k, (total, count) in self._sums.items()}
        append(self.out / LOSSES, step, means)
        pace = {"samples/s": self._steps * self._batch / max(1e-9, time.monotonic() - self._since),
                "GB": peak_memory() / 1e9}  # fmt: skip
        shown = {k: f"{x:.3f}" for k, x in means.items() if ":" not in k}
        self._bar.set_postfix({**shown, **{k: f"{x:.1f}" for k, x in pace.items()}})
        self._draw({**means, **pace}, step)
        self._sums, self._since, self._steps = {}, time.monotonic(), 0

    def state(self) -> dict[str, list[Any]]:
        """Return the sums since the last line as JSON, to the last bit; they may be no numbers."""
        return {k: [total.hex(), count] for k, (total, count) in self._sums.items()}

    def validated(self, step: int, losses: Mapping[str, float]) -> None:
        """Write and show the losses of a validation."""
        append(self.out / VALIDATIONS, step, losses)
        self._draw({f"validation/{k}": x for k, x in losses.items()}, step)

    def show(self, modality: Any, tag: str, raw: Any, step: int) -> None:
        """Show a raw batch of one wherever there are curves."""
        for writer in (self.writer, self.tracker):
            if writer is not None:
                with writing(self.out / CURVES):
                    modality.log(writer, tag, raw, step)

    def _draw(self, curves: Mapping[str, float], step: int) -> None:
        """Add one point to each curve."""
        with writing(self.out / CURVES):
            for k, x in curves.items():
                self.writer.add_scalar(k, x, step)
        if self.tracker is not None:
            self.tracker.log(curves, step=step)


@contextmanager
def following(
    out: Path, step: int, steps: int, batch: int, wandb: str | None, config: dict,
    unlogged: Mapping[str, Sequence[Any]] | None = None,
) -> Iterator[Follower]:  # fmt: skip
    """Follow a run that goes on after a step, in its folder.

    wandb: project of Weights & Biases. Raises UsageError where that is not installed. unlogged: of
    the checkpoint that the run goes on from.
    """
    for name in (LOSSES, VALIDATIONS):
        rewind(out / name, step)
    with ExitStack() as stack:
        tracker = None
        if wandb is not None:
            tracker = Tracker(wandb, out, config)
            stack.callback(tracker.finish)
        writer = stack.enter_context(_curves(out / CURVES, step))
        bar = tqdm(total=steps, initial=step, unit="step", file=sys.stderr,
                   mininterval=1.0, dynamic_ncols=True)  # fmt: skip
        stack.enter_context(bar)
        yield Follower(out, writer, bar, batch, tracker, unlogged)


@contextmanager
def _curves(folder: Path, step: int) -> Iterator[SummaryWriter]:
    """Give the writer of TensorBoard; what its thread fails at is raised here, not printed."""
    before = threading.excepthook

    def elsewhere(failed: threading.ExceptHookArgs) -> None:
        if not _of_tensorboard(failed.thread):
            before(failed)

    threading.excepthook = elsewhere
    try:
        with writing(folder):
            writer = SummaryWriter(str(folder), purge_step=step + 1)
        try:
            yield writer
        finally:
            with writing(folder):
                writer.close()
    finally:
        for thread in filter(_of_tensorboard, threading.enumerate()):
            thread.join(1.0)  # it failed, and is about to say so
        threading.excepthook = before


def _of_tensorboard(thread: threading.Thread | None) -> bool:
    """Tell whether a thread writes curves."""
    return type(thread).__module__.startswith("tensorboard.")


def peak_memory() -> int:
    """Return the most bytes that this process has held: of its GPU, or of the machine."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
