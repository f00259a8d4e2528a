"""Samples during training: what the averaged weights make, on disk and in TensorBoard."""

from pathlib import Path


def preview(trainer, writer, folder: Path) -> None:
    """Write samples of the averaged weights to `folder` and TensorBoard."""
