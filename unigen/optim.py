"""Optimizers, learning-rate schedule and averaged weights of the training loop."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from unigen.errors import UsageError
from unigen.precision import fastest

SHAPES = ("constant", "cosine")

#: Names of matrices that are tables, not maps between hidden features: AdamW takes them.
_EDGES = ("embed", "place", "level", "clock", "squeeze", "expand", "paint", "tower.out",
          "head_out", "similarity", "lora_")  # fmt: skip


class Muon(torch.optim.Muon):
    """Momentum whose step is made orthogonal (Jordan et al. 2024), in what the device is fast at.

    torch's own always makes it in bfloat16, which processors without it emulate.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Take a step of every weight that has a gradient."""
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            for p in (p for p in group["params"] if p.grad is not None):
                state = self.state[p]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(p.grad)
                mean = state["momentum_buffer"].lerp_(p.grad, 1 - momentum)
                step = orthogonal(p.grad.lerp(mean, momentum), group["ns_coefficients"])
                p.mul_(1 - lr * group["weight_decay"])
                p.add_(step, alpha=-lr * math.sqrt(max(1.0, p.shape[0] / p.shape[1])))


def orthogonal(
    x: Float[Tensor, "a b"], coefficients: tuple[float, float, float], steps: int = 5
) -> Float[Tensor, "a b"]:
    """Return about U V^T of x = U S V^T: a quintic iteration that brings all of S to about 1."""
    a, b, c = coefficients
    wide = x if x.shape[0] <= x.shape[1] else x.T
    y = (wide / wide.norm().clamp(min=1e-7)).to(fastest(x.device))
    for _ in range(steps):
        gram = y @ y.T
        y = torch.addmm(y, torch.addmm(gram, gram, gram, beta=b, alpha=c), y, beta=a)
    return y if x.shape[0] <= x.shape[1] else y.T


def optimizers(
    module: nn.Module,
    muon_lr: float | None,
    lr: float,
    weight_decay: float,
    betas: Sequence[float] = (0.9, 0.95),
) -> list[torch.optim.Optimizer]:
    """Return Muon for hidden matrices and AdamW for the rest (Jordan et al. 2024), or AdamW alone.

    Weights that do not learn are in neither. muon_lr: None puts everything under AdamW, whose
    memory of the gradient and of its square are `betas`; UsageError where they are not below 1.
    """
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise UsageError(f"trainer.betas={list(betas)} are not two numbers from 0 to below 1.")
    hidden, rest = [], []
    for name, p in module.named_parameters():
        if not p.requires_grad:
            continue
        edge = any(word in name for word in _EDGES) or p.ndim != 2
        (rest if edge or muon_lr is None else hidden).append(p)
    result: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, lr=lr, betas=(betas[0], betas[1]), weight_decay=0.0, fused=True)
    ]
    if muon_lr is None:
        result[0].param_groups[0]["weight_decay"] = weight_decay
    elif hidden:
        result.append(Muon(hidden, lr=muon_lr, momentum=0.95, weight_decay=weight_decay))
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
