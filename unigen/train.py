"""Training: one loop for every objective, resumable at any step, bit for bit."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from unigen import checkpoint, runs
from unigen.configure import build
from unigen.data.latents import Latents
from unigen.errors import ResourceError, UsageError
from unigen.model import UniGen
from unigen.optim import averaged, optimizers, schedule
from unigen.preview import preview
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

    def train_step(self) -> dict[str, float]:
        """Take one step and return its losses; everything random is a function of (seed, step)."""
        rng = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
        parts = self.objective.parts(self.model, rng)
        batch = self.data.batch(self.data.order(self.seed, self.step, self.batch), parts)
        noise = torch.Generator(self.device).manual_seed(
            int(torch.randint(2**62, (), generator=rng))
        )
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


def export(trainer: Trainer, folder: Path) -> None:
    """Write the model with averaged weights, leaving the run as it was."""
    kept = {k: v.clone() for k, v in trainer.module.state_dict().items()}
    trainer.averaged_model().save_pretrained(folder)
    trainer.module.load_state_dict(kept)


def overlay(model: UniGen, folders: Sequence[str | Path]) -> None:
    """Load weights from model folders, one over the other; each may hold a part of the model.

    `name@folder` takes only the tensors whose name starts with `name`, as in
    `modalities.image@runs/image/model`.
    """
    own = model.state_dict()
    for entry in folders:
        prefix, _, folder = str(entry).rpartition("@")
        config, tensors = checkpoint.load_folder(folder)
        for name, spec in config["model"].get("modalities", {}).items():
            if (
                name in model.modalities
                and spec.get("words")
                and f"modalities.{name}".startswith(prefix)
            ):
                model.modalities[name].prepare([" ".join(spec["words"])])
        taken = {k: v for k, v in tensors.items() if k.startswith(prefix)}
        if wrong := [k for k, v in taken.items() if k not in own or own[k].shape != v.shape]:
            raise UsageError(
                f"init={entry} has {wrong[0]}, which does not fit this model; check model=."
            )
        own.update({k: v.to(own[k].dtype) for k, v in taken.items()})
    model.load_state_dict(own)


def run(cfg: dict) -> Path:
    """Train as configured (conf/train.yaml) and return the folder of the trained model."""
    torch.manual_seed(cfg["seed"])
    plugins = cfg.get("plugins") or ()
    out = Path(cfg["out"])
    device = cfg.get("device") or "cpu"
    model = build(cfg["model"], plugins)
    objective, data = build(cfg["objective"], plugins), build(cfg["data"], plugins)
    options = dict(cfg["trainer"])
    every = {k: options.pop(k) for k in ("save_every", "log_every", "preview_every")}
    cache, folder = options.pop("cache"), options.pop("cache_folder")
    with runs.lock(out):
        runs.sweep(out)
        latest = runs.latest_step(out)
        for note in latest.notes:
            print(note, file=sys.stderr)
        overlay(model, cfg.get("init") or ())
        for name, modality in model.modalities.items():
            if modality.lessons:
                modality.prepare(data.batch(torch.arange(modality.lessons), [name])[name])
        model.to(device)
        source = data
        if objective.cached:
            data = Latents(model, objective, source, cache, device, folder)
        trainer = Trainer(model, objective, data, seed=cfg["seed"], **options)
        if latest.folder is not None:
            trainer.load_state(*runs.load_step(latest.folder))
        _loop(trainer, out, **every)
        if objective.teaches_codec:
            _calibrate(trainer, source)
        export(trainer, out / "model")
    return out / "model"


def _loop(
    trainer: Trainer, out: Path, save_every: float, log_every: int, preview_every: int
) -> None:
    """Step until done: log, preview, save. `save_every` is in minutes."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(out / "tensorboard"))
    saved, sums = time.monotonic(), {}
    bar = tqdm(total=trainer.steps, initial=trainer.step, unit="step", file=sys.stderr,
               mininterval=1.0, dynamic_ncols=True)  # fmt: skip
    with bar, (out / "losses.jsonl").open("a") as log:
        while trainer.step < trainer.steps:
            losses = trainer.train_step()
            for k, x in losses.items():
                total, count = sums.get(k, (0.0, 0))
                sums[k] = (total + x, count + 1)
            bar.update()
            if trainer.step % log_every == 0:
                means = {k: total / count for k, (total, count) in sums.items()}
                log.write(json.dumps({"step": trainer.step, **means}) + "\n")
                log.flush()
                bar.set_postfix({k: f"{x:.3f}" for k, x in means.items() if ":" not in k})
                for k, x in means.items():
                    writer.add_scalar(k, x, trainer.step)
                sums = {}
            if preview_every and trainer.step % preview_every == 0:
                preview(trainer, writer, out / "samples" / f"step-{trainer.step:08d}")
            if time.monotonic() - saved > 60 * save_every or trainer.step == trainer.steps:
                runs.save_step(out, trainer.step, *trainer.state())
                export(trainer, out / "model")
                saved = time.monotonic()
    writer.close()


def _calibrate(trainer: Trainer, source: Any) -> None:
    """Measure the latents of the averaged codec on fresh data."""
    model = trainer.averaged_model().eval()
    for part in trainer.objective.parts(model, torch.Generator()):
        raw = source.batch(torch.arange(2**40, 2**40 + 1024), [part])[part]
        model.modality(part).calibrate(raw)
    trainer.ema.module.load_state_dict(trainer.module.state_dict())
