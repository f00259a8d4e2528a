"""Parts that break a run from inside, or tell what it did: plugins of benchmarks/faults.py.

What they tell goes to files in the folder `log`, one a process: JSON lines.
"""

import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unigen.data.folder import Folder
from unigen.data.shards import Shards
from unigen.data.world import World
from unigen.errors import MediaError
from unigen.media import client
from unigen.objectives import Denoise

RANK, SIZE = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def tell(log: str, **facts: Any) -> None:
    """Add a line to the file of this process, in one write: threads may share it."""
    with (Path(log) / f"rank-{RANK}.jsonl").open("a") as file:
        file.write(json.dumps(facts) + "\n")


def told(log: Path, rank: int = 0) -> list[dict[str, Any]]:
    """Return what a process told."""
    return [json.loads(line) for line in (log / f"rank-{rank}.jsonl").read_text().splitlines()]


class Watched:
    """A source that tells which items each step asks for, and which of them it read."""

    log: str
    now: threading.local  # the step that a thread is at
    names: Sequence[str]

    def order(self, seed: int, step: int, batch: int) -> Tensor:
        """Remember the step: who asks for an order asks for its batch next, in the same thread."""
        index = super().order(seed, step, batch)  # pyright: ignore[reportAttributeAccessIssue]
        self.now.step = step
        return index

    def batch(self, index: Tensor, parts: Any) -> dict[str, Any]:
        """Tell which items of the step are asked for here."""
        step = getattr(self.now, "step", -1)
        tell(self.log, step=step, index=index.tolist())
        return super().batch(index, parts)  # pyright: ignore[reportAttributeAccessIssue]

    def read(self, item: int, part: str, draw: int) -> Any:
        """Tell what was read."""
        raw = super().read(item, part, draw)  # pyright: ignore[reportAttributeAccessIssue]
        tell(self.log, read=self.names[item], part=part)
        return raw


class WatchedFolder(Watched, Folder):
    """A folder of media that is watched."""

    def __init__(self, root: str, seed: int = 0, max_bad: float = 0.05, log: str = "."):
        """log: the folder to tell in."""
        super().__init__(root, seed, max_bad)
        self.log, self.now = log, threading.local()


class WatchedShards(Watched, Shards):
    """Shards that are watched."""

    def __init__(self, root: str, seed: int = 0, max_bad: float = 0.05, log: str = "."):
        """log: the folder to tell in."""
        super().__init__(root, seed, max_bad)
        self.log, self.now = log, threading.local()


class Attacked(Folder):
    """A folder whose decoder is killed or stopped when it should read some items."""

    def __init__(self, root: str, seed: int, max_bad: float, log: str, attacks: dict[str, str]):
        """attacks: by name of an item, SIGKILL or SIGSTOP. log: the folder to tell in."""
        super().__init__(root, seed, max_bad)
        self.log, self.attacks, self.waiting = log, dict(attacks), False

    def read(self, item: int, part: str, draw: int) -> Any:
        """Attack the decoder before an item; tell how long the attacked and the next one took."""
        attack = self.attacks.pop(str(self.names[item]), None)
        if attack and client._worker is not None:
            os.kill(client._worker.process.pid, signal.Signals[attack])
        start = time.monotonic()
        try:
            raw = super().read(item, part, draw)
        except MediaError:
            self.waiting = True
            tell(self.log, name=self.names[item], attack=attack, lost_s=time.monotonic() - start)
            raise
        if self.waiting:
            tell(self.log, back_s=time.monotonic() - start)
        self.waiting = False
        return raw


class Sick(World):
    """A world in which the last picture of every batch is NaN, from some step on."""

    def __init__(self, first: int, batch: int, **world: Any):
        """first: the step. batch: samples a step. world: of the scenes."""
        super().__init__(**world)
        self.first, self.size_of_batch = first, batch

    def batch(self, index: Tensor, parts: Any = World.parts) -> dict[str, Any]:
        """Return scenes, some with a sick picture."""
        raw = super().batch(index, parts)
        bad = (index >= self.first * self.size_of_batch) & (index % self.size_of_batch == 7)
        raw["image"][bad] = float("nan")
        return raw


class Poisoned(Denoise):
    """A lesson whose loss or gradient is not finite at some steps, on the last process only."""

    def __init__(self, steps: Any, log: str, **lesson: Any):
        """steps: where. log: the folder to tell the sha256 of the weights in, before each step.

        lesson: of the objective.
        """
        super().__init__(**lesson)
        self.steps, self.log, self.step = list(steps), log, 0

    def loss(self, model: Any, batch: dict, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the loss of every part, or what should be one."""
        sha = hashlib.sha256()
        for name, value in sorted(model.denoiser.state_dict().items()):
            sha.update(name.encode() + value.detach().contiguous().numpy().tobytes())
        tell(self.log, step=self.step, sha=sha.hexdigest())
        losses, poisoned = super().loss(model, batch, generator), self.step in self.steps
        which, self.step = len([s for s in self.steps if s < self.step]) % 4, self.step + 1
        if not poisoned or RANK != SIZE - 1:
            return losses
        weight = next(model.denoiser.parameters())
        nothing = (weight - weight.detach()).sum()
        worse = (nothing.abs().sqrt(), nothing * 3e38, float("nan"), float("inf"))[which]
        return {part: value + worse for part, value in losses.items()}
