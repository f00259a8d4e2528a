"""The state of a training run: what learns, its average, its optimizers; one step of it."""

from typing import Any

import torch
from torch import nn

from unigen import checkpoint
from unigen.data.ahead import Ahead
from unigen.errors import ResourceError
from unigen.model import UniGen
from unigen.optim import averaged, optimizers, schedule
from unigen.state import flatten_optimizer, unflatten_optimizer


class Trainer:
    """Everything that a run changes: the module that learns, its average, its optimizers."""

    def __init__(
        self,
        model: UniGen,
        objective: Any,  # which module learns what; see unigen.objectives
        data: Any,  # batch(index, parts) -> raw media or latents by part
        *,
        seed: int = 0,
        steps: int = 1000,
        batch: int = 64,
        lr: float = 1e-3,  # of AdamW
        muon_lr: float | None = 0.02,  # of Muon, for hidden matrices; null: AdamW for all
        weight_decay: float = 0.01,
        warmup: int = 100,  # steps
        decay: float = 0.0,  # share of the steps over which the learning rate falls to 0
        clip: float = 1.0,  # largest norm of the gradient
        ema: float = 0.999,  # decay of the averaged weights
        bf16: bool = True,  # autocast to bfloat16
        patience: int = 5,  # non-finite steps in a row before the run stops
        workers: int = 0,  # threads that read ahead of the step; 0: each batch when it is needed
    ):
        """Prepare a run; nothing is computed yet."""
        self.model, self.objective, self.data = model, objective, data
        self.seed, self.steps, self.batch, self.clip = seed, steps, batch, clip
        self.warmup, self.decay, self.bf16, self.patience = warmup, decay, bf16, patience
        self.module = objective.module(model)
        for p in model.parameters():
            p.requires_grad_(False)
        for p in self.module.parameters():
            p.requires_grad_(True)
        self.optimizers = optimizers(self.module, muon_lr, lr, weight_decay)
        self.ema = averaged(self.module, ema)
        self.step, self.bad = 0, 0
        self.device = next(self.module.parameters()).device
        self.finish = getattr(data, "finish", None)  # of raw batches that were read ahead
        self.read = Ahead(self._read, workers if self.finish else 0)

    def _read(self, step: int) -> tuple[dict[str, Any], int]:
        """Return the batch of a step and the seed of its noise, a function of (seed, step)."""
        rng = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        index = self.data.order(self.seed, step, self.batch)
        available = getattr(self.data, "available", None)  # data without it has all parts
        there = () if available is None else (available(index),)
        batch = self.data.batch(index, self.objective.parts(self.model, rng, *there))
        return batch, int(torch.randint(2**62, (), generator=rng))

    def train_step(self) -> dict[str, float]:
        """Take one step and return its losses; everything random is a function of (seed, step)."""
        batch, draw = self.read(self.step)
        batch = batch if self.finish is None else self.finish(batch)
        noise = torch.Generator(self.device).manual_seed(draw)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            losses = self.objective.loss(self.model, batch, noise)
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.clip)
        factor = schedule(self.step, self.steps, self.warmup, self.decay)
        if torch.isfinite(norm) and torch.isfinite(total):
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * factor
                optimizer.step()
            self.ema.update_parameters(self.module)
            self.bad = 0
        else:
            self.bad += 1
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.bad >= self.patience:
            raise ResourceError(
                f"the loss was not finite for {self.bad} steps in a row, up to step {self.step}; "
                "the last checkpoint is good. Try a lower trainer.lr and trainer.muon_lr."
            )
        return {**{k: v.item() for k, v in losses.items()}, "norm": norm.item(), "lr": factor}

    def state(self) -> tuple[dict[str, dict[str, torch.Tensor]], dict]:
        """Return all tensors by group and the rest as JSON."""
        groups = {"model": self.model.state_dict(), "module": self.module.state_dict(),
                  "ema": self.ema.state_dict()}  # fmt: skip
        meta: dict[str, Any] = {"step": self.step, "seed": self.seed, "bad": self.bad}
        for i, optimizer in enumerate(self.optimizers):
            groups[f"optimizer{i}"], meta[f"optimizer{i}"] = flatten_optimizer(
                optimizer.state_dict()
            )
        return groups, meta

    def load_state(self, groups: dict[str, dict[str, torch.Tensor]], meta: dict) -> None:
        """Go back to a saved state, exactly."""
        checkpoint.match(self.model, groups["model"], "the checkpoint's model")
        checkpoint.match(self.module, groups["module"], "the checkpoint's module")
        checkpoint.match(self.ema, groups["ema"], "the checkpoint's averaged weights")
        for i, optimizer in enumerate(self.optimizers):
            name = f"optimizer{i}"
            optimizer.load_state_dict(unflatten_optimizer(groups[name], meta[name]))
        self.step, self.bad = meta["step"], meta["bad"]

    def averaged_model(self) -> UniGen:
        """Put the averaged weights into the model and return it; training cannot go on after."""
        self.module.load_state_dict(self.ema.module.state_dict())
        return self.model
