"""Weights & Biases: it gets what TensorBoard gets, and a run that goes on is one run there, too."""

import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any
from uuid import uuid4

from torch import Tensor

from unigen.disk import put
from unigen.errors import UsageError


class Tracker:
    """A run of Weights & Biases, in which samples are shown as in a writer of TensorBoard."""

    def __init__(self, project: str, out: Path, config: dict):
        """Begin the run, or go on with the one whose id lies in the folder.

        It is online with WANDB_API_KEY or WANDB_MODE, else offline. Raises UsageError where
        Weights & Biases is not installed.
        """
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise UsageError(
                f"trainer.wandb={project} needs Weights & Biases; type pip install wandb."
            ) from error
        mode: Any = os.environ.get("WANDB_MODE") or (
            "online" if "WANDB_API_KEY" in os.environ else "offline"
        )
        self._media: Any = wandb
        self.run = wandb.init(project=project, name=out.name, dir=str(out), config=config,
                              mode=mode, id=_id(out / "wandb.id"), resume="allow")  # fmt: skip

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Draw curves."""
        self.run.log(dict(values), step=step)

    def add_image(self, tag: str, picture: Tensor, step: int) -> None:
        """Show a picture [c h w] from 0 to 1."""
        pixels = picture.detach().float().clamp(0, 1).mul(255).round().byte().movedim(0, -1)
        self.log({tag: self._media.Image(pixels.squeeze(-1).cpu().numpy())}, step)

    def add_audio(self, tag: str, sound: Tensor, step: int, rate: int) -> None:
        """Play a sound from -1 to 1."""
        samples = sound.detach().float().cpu().numpy()
        self.log({tag: self._media.Audio(samples, sample_rate=rate)}, step)

    def add_text(self, tag: str, sentence: str, step: int) -> None:
        """Show a sentence."""
        self.log({tag: self._media.Html(escape(sentence))}, step)

    def finish(self) -> None:
        """End the run."""
        self.run.finish()


def _id(path: Path) -> str:
    """Return the id that a file keeps, a new one where there is none."""
    if not path.exists():
        put(path, uuid4().hex.encode())
    return path.read_text().strip()
