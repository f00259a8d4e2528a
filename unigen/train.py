"""Training: one loop for every objective, resumable at any step, bit for bit."""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from unigen import checkpoint, runs
from unigen.configure import build
from unigen.data.feed import feed, lessons, meet, teach
from unigen.errors import UsageError
from unigen.model import UniGen
from unigen.preview import preview
from unigen.trainer import Trainer


def export(trainer: Trainer, folder: Path) -> None:
    """Write the model with averaged weights, leaving the run as it was."""
    kept = {k: v.clone() for k, v in trainer.module.state_dict().items()}
    trainer.averaged_model().save_pretrained(folder)
    trainer.module.load_state_dict(kept)


def overlay(model: UniGen, folders: Sequence[str | Path]) -> None:
    """Load weights from model folders, one over the other; each may hold a part of the model.

    `name@folder` takes only the tensors whose name starts with `name`, as in
    `modalities.image@runs/image/model`. Raises UsageError where nothing or something else fits.
    """
    own = model.state_dict()
    for entry in folders:
        prefix, _, folder = str(entry).rpartition("@")
        config, tensors = checkpoint.load_folder(folder)
        for name in model.modalities:
            if f"modalities.{name}".startswith(prefix):
                model.modality(name).adopt(config["model"].get("modalities", {}).get(name, {}))
        taken = {k: v for k, v in tensors.items() if k.startswith(prefix)}
        wrong = [k for k, v in taken.items() if k not in own or own[k].shape != v.shape]
        if wrong or not taken:
            what = f"{wrong[0]}, which does not fit this model" if wrong else f"no {prefix}"
            raise UsageError(f"init={entry} has {what}; check model= and the name before @.")
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
            sys.stderr.write(f"unigen: {note}\n")
        overlay(model, cfg.get("init") or ())
        source = meet(model, objective, data, out)
        teach(model, source)
        model.to(device)
        data = feed(model, objective, source, cache, device, folder)
        trainer = Trainer(model, objective, data, seed=cfg["seed"], **options)
        if latest.folder is not None:
            trainer.load_state(*runs.load_step(latest.folder))
        _loop(trainer, out, **every)
        if objective.moves_latents:
            _calibrate(trainer, source)
        export(trainer, out / "model")
    return out / "model"


def _loop(
    trainer: Trainer, out: Path, save_every: float, log_every: int, preview_every: int
) -> None:
    """Step until done: log, preview, save. `save_every` is in minutes."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(out / "tensorboard"), purge_step=trainer.step + 1)
    saved, sums = time.monotonic(), {}
    bar = tqdm(total=trainer.steps, initial=trainer.step, unit="step", file=sys.stderr,
               mininterval=1.0, dynamic_ncols=True)  # fmt: skip
    with bar, runs.journal(out / "losses.jsonl", trainer.step) as log, _termination() as asked:
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
            last = asked() or trainer.step == trainer.steps
            if last or time.monotonic() - saved > 60 * save_every:
                runs.save_step(out, trainer.step, *trainer.state())
                export(trainer, out / "model")
                saved = time.monotonic()
            if asked():
                raise SystemExit(143)
    writer.close()


@contextmanager
def _termination() -> Iterator[Callable[[], bool]]:
    """Remember a SIGTERM until the step is done, so that the run is saved before it ends."""
    asked: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGTERM, before)


def _calibrate(trainer: Trainer, source: Any) -> None:
    """Measure the latents of the averaged codec on fresh data."""
    model = trainer.averaged_model().eval()
    for part in trainer.objective.parts(model, torch.Generator()):
        model.modality(part).calibrate(lessons(source, part, 1024, 2**40))
    trainer.ema.module.load_state_dict(trainer.module.state_dict())
