"""Optimizers, learning-rate schedule and averaged weights of the training loop."""

import math

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from unigen.errors import UsageError

SHAPES = ("constant", "cosine")

#: Names of matrices that are tables, not maps between hidden features: AdamW takes them.
_EDGES = ("embed", "place", "level", "clock", "squeeze", "expand", "paint", "tower.out",
          "head_out", "similarity", "lora_")  # fmt: skip


def optimizers(
    module: nn.Module, muon_lr: float | None, lr: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """Return Muon for hidden matrices and AdamW for the rest (Jordan et al. 2024), or AdamW alone.

    Weights that do not learn are in neither. muon_lr: None puts everything under AdamW.
    """
    hidden, rest = [], []
    for name, p in module.named_parameters():
        if not p.requires_grad:
            continue
        edge = any(word in name for word in _EDGES) or p.ndim != 2
        (rest if edge or muon_lr is None else hidden).append(p)
    result: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    ]
    if muon_lr is None:
        result[0].param_groups[0]["weight_decay"] = weight_decay
    elif hidden:
        result.append(
            torch.optim.Muon(hidden, lr=muon_lr, momentum=0.95, weight_decay=weight_decay)
        )
    for optimizer in result:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return result


def schedule(step: int, steps: int, warmup: int, decay: float, shape: str = "constant") -> float:
    """Return the factor of the learning rate: warm-up, constant, late linear decay to 0.

    decay: share of the steps at the end; 0 leaves a run that can be continued for ever.
    shape: `cosine` falls all the way, from the end of the warm-up to 0 (Loshchilov and Hutter
    2017). Raises UsageError for another.
    """
    if shape not in SHAPES:
        raise UsageError(f"trainer.schedule={shape} is unknown; choose constant or cosine.")
    rise = min(1.0, (step + 1) / max(1, warmup))
    if shape == "cosine":
        done = (step - warmup) / max(1, steps - warmup)
        return min(rise, 0.5 + 0.5 * math.cos(math.pi * min(1.0, max(0.0, done))))
    fall = (steps - step) / max(1.0, decay * steps) if decay > 0 else 1.0
    return min(rise, fall, 1.0)


def averaged(module: nn.Module, decay: float) -> AveragedModel:
    """Return the exponential moving average of a module's weights, evaluated in its place."""
    return AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=False)
