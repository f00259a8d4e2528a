"""Samples during training: what the averaged weights make, on disk and beside the curves."""

from pathlib import Path

import torch

from unigen.follow import Follower
from unigen.generation import generate


def preview(trainer, follower: Follower | None, folder: Path, count: int = 4) -> None:
    """Write `count` joint samples of the averaged weights to `folder`, and show them.

    Only a run that teaches the denoiser has samples to show, and the process with a follower makes
    them. The weights and the random numbers of the run are left as they were.
    """
    model, engine = trainer.model, trainer.engine
    if trainer.module is not model.denoiser:
        return
    with engine.averaged(model, trainer.module, trainer.ema.module) as made, engine.team.together():
        if follower is not None:
            made.to(trainer.device).eval()
            results = generate(made, list(made.modalities), {}, seeds=range(count))
            for result in results:
                result.save(folder)
                for part, modality in made.modalities.items():
                    tag = f"{part}/{result.recipe['seed']}"
                    follower.show(modality, tag, result[part], trainer.step)
    torch.set_grad_enabled(True)
    model.train()
