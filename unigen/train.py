"""Training: one loop for every objective, resumable at any step, bit for bit."""

import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unigen import checkpoint, plan, runs
from unigen.configure import build
from unigen.data.feed import feed, lessons, meet, teach
from unigen.disk import named
from unigen.engine import engine_of
from unigen.errors import UsageError
from unigen.follow import Follower, following
from unigen.given import on
from unigen.model import EMBEDDED, UniGen
from unigen.owner import lock
from unigen.preview import preview
from unigen.record import record
from unigen.team import Team, team_of
from unigen.trainer import Trainer, counted
from unigen.validate import Validation, validating


def export(trainer: Trainer, folder: Path) -> None:
    """Write the model with averaged weights, from process 0, leaving the run as it was."""
    engine = trainer.engine
    with (
        engine.averaged(trainer.model, trainer.module, trainer.ema.module) as model,
        engine.team.together(),
    ):
        if engine.team.rank == 0:
            trainer.tune.plain(model).save_pretrained(folder)


def save(trainer: Trainer, out: Path, follower: Follower | None = None) -> None:
    """Write a checkpoint of the run, and the model that it has come to."""
    groups, meta = trainer.state()
    own, (_, size) = trainer.engine.split(groups), trainer.engine.place
    meta["unlogged"] = {} if follower is None else follower.state()
    runs.save_step(out, trainer.step, own, meta, team=trainer.engine.team, sharded=size > 1)
    export(trainer, out / "model")


def overlay(model: UniGen, folders: str | Sequence[str | Path]) -> list[nn.Parameter]:
    """Load weights from model folders, one over the other; each may hold a part of the model.

    Returns what was loaded. `embedded` is the model that ships; `name@folder` takes only the
    tensors whose name starts with `name`, as in `modalities.image@runs/image/model`, and
    `image:depth@folder` begins depth with a copy of image's weights, where they fit; that is still
    new, and does not count as loaded. Raises UsageError where nothing or something else fits.
    """
    own, names = model.state_dict(), set()
    for entry in [folders] if isinstance(folders, str) else folders:
        prefix, _, folder = str(entry).rpartition("@")
        config, tensors = checkpoint.load_folder(EMBEDDED if folder == "embedded" else folder)
        if ":" in prefix:
            own.update(_copies(model, tensors, str(entry), *prefix.split(":", 1)))
            continue
        for name in model.modalities:
            if f"modalities.{name}".startswith(prefix):
                model.modality(name).adopt(config["model"].get("modalities", {}).get(name, {}))
        taken = {k: v for k, v in tensors.items() if k.startswith(prefix)}
        wrong = [k for k, v in taken.items() if k not in own or own[k].shape != v.shape]
        if wrong or not taken:
            what = f"{wrong[0]}, which does not fit this model" if wrong else f"no {prefix}"
            raise UsageError(f"init={entry} has {what}; check model= and the name before @.")
        own.update({k: v.to(own[k].dtype) for k, v in taken.items()})
        names |= set(taken)
    model.load_state_dict(own)
    return [p for name, p in model.named_parameters() if name in names]


def _copies(
    model: UniGen, tensors: dict[str, Tensor], entry: str, old: str, new: str
) -> dict[str, Tensor]:
    """Return what the weights of one modality are for another: those with its name and a shape."""
    own = dict(model.named_parameters())
    named = {re.sub(rf"\.{re.escape(old)}(?=\.|__|$)", f".{new}", k): (k, v)
             for k, v in tensors.items()}  # fmt: skip
    made = {name: v.to(own[name].dtype) for name, (k, v) in named.items()
            if name != k and name in own and own[name].shape == v.shape}  # fmt: skip
    if not made:
        raise UsageError(f"init={entry} has no weights of {old} that fit {new}; check both names.")
    return made


def run(cfg: dict) -> Path | str | None:
    """Train as configured (conf/train.yaml) and return the folder of the trained model.

    With plan=true nothing is trained: what a step costs is returned instead. Under torchrun every
    process calls this; the folder is process 0's, and the others return None.
    """
    cfg = {**cfg, "trainer": counted(cfg["trainer"])}
    if cfg.get("plan"):
        return plan.report(cfg)
    with team_of(float(cfg["trainer"]["timeout"])) as team:
        folder = _run(cfg, team)
    if folder is None:
        raise SystemExit(143)
    return folder if team.rank == 0 else None


def _run(cfg: dict, team: Team) -> Path | None:
    """Train as one process of a team; return None where a SIGTERM ended it, after it was saved."""
    torch.manual_seed(cfg["seed"])
    plugins = cfg.get("plugins") or ()
    out = Path(team.tell(str(cfg["out"])))
    device = team.device(cfg.get("device") or "cpu")
    model = build(cfg["model"], plugins)
    objective, data, tune = (build(cfg[k], plugins) for k in ("objective", "data", "tune"))
    options = dict(cfg["trainer"])
    del options["timeout"], options["validate_every"]
    pace = {k: options.pop(k) for k in ("save_every", "log_every", "preview_every", "wandb")}
    cache, folder = options.pop("cache"), options.pop("cache_folder")
    engine = engine_of(
        options.pop("engine"),
        team,
        checkpointing=options.pop("checkpointing"),
        compile=options.pop("compile"),
    )
    with ExitStack() as stack:
        latest, facts = None, {}
        with team.together():
            if team.rank == 0:
                stack.enter_context(lock(out))
                runs.sweep(out)
                latest = runs.latest_step(out)
                for note in latest.notes:
                    sys.stderr.write(f"unigen: {note}\n")
        last = team.tell(latest and latest.folder)
        loaded = overlay(model, cfg.get("init") or ())
        source = meet(model, objective, data, out)
        with team.together():
            if latest is not None:
                record(out, cfg, team.size, latest.step, getattr(source, "spec", None))
        teach(model, source)
        model.to(device)
        validation = validating(cfg, model, objective, out, device, team)
        data = feed(model, objective, source, cache, device, folder)
        team.meet()
        trainer = Trainer(model, objective, data, engine=engine, seed=cfg["seed"],
                          tune=tune, loaded=loaded, **options)  # fmt: skip
        if last is not None:
            groups, facts = runs.load_step(last, *engine.place)
            trainer.load_state(groups, facts)
            if team.rank == 0 and facts["seed"] != trainer.seed:
                sys.stderr.write(
                    f"unigen: {named(out)} was begun with seed={facts['seed']}; from here on its "
                    f"draws are those of seed={trainer.seed}\n"
                )
        team.meet()
        unlogged = facts.get("unlogged")
        if not _loop(trainer, out, cfg, validation, unlogged, **pace):
            return None
        if objective.moves_latents:
            _calibrate(trainer, source)
        export(trainer, out / "model")
    return out / "model"


def _loop(
    trainer: Trainer,
    out: Path,
    config: dict,
    validation: Validation | None,
    unlogged: dict | None,
    save_every: float,
    log_every: int,
    preview_every: int,
    wandb: str | None,
) -> bool:
    """Step until done: log, preview, validate, save; return whether no SIGTERM came before.

    unlogged: losses of steps before the first that no line tells. save_every: minutes.
    """
    team, saved = trainer.engine.team, time.monotonic()
    with ExitStack() as stack:
        asked, follower = stack.enter_context(_termination()), None
        with team.together():
            if team.rank == 0:
                facts = (out, trainer.step, trainer.steps, trainer.batch, wandb, config, unlogged)
                follower = stack.enter_context(following(*facts))
        while trainer.step < trainer.steps:
            losses = trainer.train_step()
            if follower is not None:
                follower.add(losses)
                if trainer.step % log_every == 0 or trainer.step == trainer.steps:
                    follower.tell(trainer.step)
            if preview_every and trainer.step % preview_every == 0:
                folder = out / "samples" / f"step-{trainer.step:08d}"
                preview(trainer, follower, folder)
            if validation is not None and validation.due(trainer.step, trainer.steps):
                losses = validation.losses(trainer)
                if follower is not None:
                    follower.validated(trainer.step, losses)
            due = team.rank == 0 and time.monotonic() - saved > 60 * save_every
            stop, due = team.any(asked(), due)
            if stop or due or trainer.step == trainer.steps:
                save(trainer, out, follower)
                saved = time.monotonic()
            if stop:
                return False
    return True


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
        raw = lessons(source, part, 1024, 2**40)
        model.modality(part).calibrate(on(raw, trainer.device))
    trainer.ema.module.load_state_dict(trainer.module.state_dict())
