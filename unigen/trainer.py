"""The state of a training run: what learns, its average, its optimizers; one step of it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unigen import checkpoint
from unigen.data.ahead import Ahead
from unigen.engine import Engine, Lesson
from unigen.errors import CheckpointError, ResourceError, UsageError
from unigen.given import on
from unigen.model import UniGen
from unigen.optim import averaged, optimizers, schedule
from unigen.precision import autocast, native
from unigen.share import Draws, Share
from unigen.state import flatten_optimizer, unflatten_optimizer
from unigen.tune import All

#: The least of every count under `trainer`; 0 switches a cache, samples and validations off.
LEAST = {"steps": 0, "batch": 1, "accumulate": 1, "workers": 0, "patience": 1, "cache": 0,
         "log_every": 1, "preview_every": 0, "validate_every": 0}  # fmt: skip


def counted(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stands under `trainer`, its counts whole; UsageError for one too small."""
    counts = {}
    for key, least in LEAST.items():
        value = options[key]
        if not isinstance(value, int | float) or value % 1 or not value >= least:
            raise UsageError(
                f"trainer.{key}={value} is no whole number from {least} up; type "
                f"trainer.{key}={least} or more."
            )
        counts[key] = int(value)  # 1e3 is one, too
    return {**options, **counts}


class Work(NamedTuple):
    """What a step learns from: batches by share, read ahead."""

    samples: Tensor  # the numbers of all of them, whoever takes which
    parts: list[str]
    noise: int  # seed of everything that is random in the step
    batches: list[tuple[Share, dict[str, Any]]]


class Trainer:
    """Everything that a run changes: the module that learns, its average, its optimizers."""

    def __init__(
        self,
        model: UniGen,
        objective: Any,  # which module learns what; see unigen.objectives
        data: Any,  # batch(index, parts) -> raw media or latents by part
        *,
        engine: Engine | None = None,  # how many processes take a step; none: this one alone
        seed: int = 0,
        steps: int = 1000,
        batch: int = 64,  # of all processes together
        accumulate: int = 1,  # passes in which every process takes its share of a batch
        lr: float = 1e-3,  # of AdamW
        muon_lr: float | None = 0.02,  # of Muon, for hidden matrices; null: AdamW for all
        betas: Sequence[float] = (0.9, 0.95),  # of AdamW
        weight_decay: float = 0.01,
        warmup: int = 100,  # steps
        schedule: str = "constant",  # of the learning rate: constant | cosine
        decay: float = 0.0,  # share of the steps over which a constant rate falls to 0
        clip: float = 1.0,  # largest norm of the gradient
        ema: float = 0.999,  # decay of the averaged weights
        bf16: bool | None = None,  # autocast to bfloat16; none: where the device is native
        patience: int = 5,  # non-finite steps in a row before the run stops
        workers: int = 0,  # threads that read ahead of the step; 0: each batch when it is needed
        tune: All | None = None,  # which weights of the module learn; none: all
        loaded: Collection[nn.Parameter] = (),  # weights that the run starts from
    ):
        """Prepare a run; nothing is computed yet."""
        self.engine = engine or Engine()
        if accumulate < 1 or batch % (accumulate * self.engine.team.size):
            raise UsageError(
                f"trainer.batch={batch} does not split evenly over {self.engine.team.size} "
                f"processes x trainer.accumulate={accumulate}; choose a multiple of both."
            )
        self.model, self.objective, self.data = model, objective, data
        self.seed, self.steps, self.batch, self.clip = seed, steps, batch, clip
        self.accumulate, self.schedule = accumulate, (warmup, decay, schedule)
        self.patience = patience
        self.module, self.tune = objective.module(model), tune or All()
        model.requires_grad_(False)
        self.tune.prepare(self.module.requires_grad_(False), loaded)
        self.ema = averaged(self.module, ema)
        self.lesson = self.engine.wrap(Lesson(self.module, model, objective), self.ema)
        self.optimizers = optimizers(self.module, muon_lr, lr, weight_decay, betas)
        self.step, self.bad, self.skipped = 0, 0, 0
        self.device = next(self.module.parameters()).device
        self.bf16 = self.engine.team.tell(native(self.device) if bf16 is None else bf16)
        self.finish = getattr(data, "finish", None)  # of raw batches that were read ahead
        self.read = Ahead(self._read, workers if self.finish else 0)

    def _read(self, step: int) -> Work:
        """Return the work of a step, a function of (seed, step)."""
        rng = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        index = self.data.order(self.seed, step, self.batch)
        available = getattr(self.data, "available", None)  # data without it has all parts
        there = () if available is None else (available(index),)
        parts = self.objective.parts(self.model, rng, *there)
        noise, team = torch.randint(2**62, (), generator=rng), self.engine.team
        batches = [(share, self.data.batch(share.rows(index), parts))
                   for share in team.shares(self.accumulate)]  # fmt: skip
        return Work(index, parts, int(noise), batches)

    def train_step(self) -> dict[str, float]:
        """Take one step and return its losses; everything random is a function of (seed, step)."""
        work = self.read(self.step)
        losses = self._learn(work)
        norm = self.engine.clip(self.module, self.clip)
        factor = schedule(self.step, self.steps, *self.schedule)
        good = bool(torch.isfinite(norm) and torch.isfinite(sum(losses.values(), norm * 0)))
        for optimizer in self.optimizers if good else ():
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            optimizer.step()
        if good:
            self.ema.update_parameters(self.module)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.bad, self.skipped = (0 if good else self.bad + 1), self.skipped + (not good)
        if self.bad >= self.patience:
            raise ResourceError(self._diverged(work))
        skipped = {"skipped": float(self.skipped)} if self.skipped else {}
        return {**{k: v.item() for k, v in losses.items()}, "norm": norm.item(), "lr": factor,
                **skipped}  # fmt: skip

    def _learn(self, work: Work) -> dict[str, Tensor]:
        """Add up the gradient of a batch, share by share; return its losses."""
        passes, losses = [], {}
        for share, raw in work.batches:
            made = raw if self.finish is None else self.finish(raw)
            batch = {part: on(value, self.device) for part, value in made.items()}
            generator = Draws(share, self.device)
            generator.manual_seed(work.noise)
            with self.engine.passing(self.lesson, last=len(passes) == self.accumulate - 1):
                with autocast(self.device, self.bf16):
                    losses = self.lesson(batch, generator)
                total = torch.stack(list(losses.values())).sum()
                if not total.requires_grad:
                    raise UsageError(
                        f"a batch of {', '.join(work.parts)} teaches nothing that tune= lets "
                        "learn; name what is new in objective.must=[<modality>]."
                    )
                (total / self.accumulate).backward()
            passes.append(torch.stack([x.detach().float() for x in losses.values()]))
        means = self.engine.team.mean(torch.stack(passes).mean(0))
        return dict(zip(losses, means, strict=True))

    def _diverged(self, work: Work) -> str:
        """Say that the run has diverged, and at which samples."""
        index, batch = work.samples, self.data.batch(work.samples, work.parts)
        bad = {
            int(i)
            for value in batch.values()
            if isinstance(value, Tensor) and value.is_floating_point()
            for i in index[~value.flatten(1).isfinite().all(1).cpu()]
        }
        describe = getattr(self.data, "describe", str)
        samples = [describe(i) for i in sorted(bad) or index.tolist()]
        more = f" and {len(samples) - 12} more" if len(samples) > 12 else ""
        return (
            f"the loss was not finite for {self.bad} steps in a row, up to step {self.step}, whose "
            f"samples are {', '.join(samples[:12])}{more}"
            f"{' (their data is not finite)' if bad else ''}; the last checkpoint is good. Try a "
            "lower trainer.lr and trainer.muon_lr."
        )

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict]:
        """Return all tensors by group and the rest as JSON."""
        groups = {"model": self.model.state_dict(), "module": self.module.state_dict(),
                  "ema": self.ema.state_dict()}  # fmt: skip
        meta: dict[str, Any] = {"step": self.step, "seed": self.seed, "bad": self.bad,
                                "skipped": self.skipped}  # fmt: skip
        for i, optimizer in enumerate(self.optimizers):
            groups[f"optimizer{i}"], meta[f"optimizer{i}"] = flatten_optimizer(
                optimizer.state_dict()
            )
        return groups, meta

    def load_state(self, groups: dict[str, dict[str, Tensor]], meta: dict) -> None:
        """Go back to a saved state, exactly."""
        self._match(self.model, groups["model"], "the checkpoint's model")
        self._match(self.module, groups["module"], "the checkpoint's module")
        self._match(self.ema, groups["ema"], "the checkpoint's averaged weights")
        names = sorted(name for name in meta if name.startswith("optimizer"))
        states = [unflatten_optimizer(groups.get(name, {}), meta[name]) for name in names]
        came, wanted = _sizes(states), _sizes([o.state_dict() for o in self.optimizers])
        if came != wanted:
            raise CheckpointError(
                f"the checkpoint's optimizers have {came} weights and this run's {wanted}; go on "
                "with the trainer.muon_lr, objective and tune of the run that made it, or begin "
                "another one from its weights, with init=<folder>/model and a new out=."
            )
        for optimizer, state in zip(self.optimizers, states, strict=True):
            weights = [p for group in optimizer.param_groups for p in group["params"]]
            for number, own in state["state"].items():
                own.update({k: self.engine.adopt(weights[number], v) for k, v in own.items()})
            optimizer.load_state_dict(state)
        self.step, self.bad = meta["step"], meta["bad"]
        self.skipped = meta.get("skipped", 0)

    def _match(self, module: nn.Module, tensors: dict[str, Tensor], what: str) -> None:
        """Load saved tensors, of which this process may hold the rows."""
        own = module.state_dict()
        adopted = {k: self.engine.adopt(own[k], v) if k in own else v for k, v in tensors.items()}
        checkpoint.match(module, adopted, what)

    def averaged_model(self) -> UniGen:
        """Put the averaged weights into the model and return it; training cannot go on after."""
        self.module.load_state_dict(self.ema.module.state_dict())
        return self.model


def _sizes(states: list[dict[str, Any]]) -> list[int]:
    """Return how many weights each optimizer moves."""
    return [sum(len(group["params"]) for group in state["param_groups"]) for state in states]
