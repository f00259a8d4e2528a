"""Samples during training: what the averaged weights make, on disk and in TensorBoard."""

from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter

from unigen.generation import generate


def preview(trainer, writer: SummaryWriter, folder: Path, count: int = 4) -> None:
    """Write `count` joint samples of the averaged weights to `folder` and TensorBoard.

    Only a run that teaches the denoiser has samples to show. The weights and the random numbers
    of the run are left as they were.
    """
    model = trainer.model
    if trainer.module is not model.denoiser:
        return
    kept = {k: v.clone() for k, v in trainer.module.state_dict().items()}
    trainer.averaged_model().eval()
    results = generate(model, list(model.modalities), {}, seeds=range(count))
    for result in results:
        result.save(folder)
        for part, modality in model.modalities.items():
            modality.log(writer, f"{part}/{result.recipe['seed']}", result[part], trainer.step)
    trainer.module.load_state_dict(kept)
    torch.set_grad_enabled(True)
    model.train()
