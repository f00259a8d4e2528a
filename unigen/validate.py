"""Validation during training: what the averaged weights miss of media that the run does not learn.

A denoiser is asked for every direction: what is given stands at clock 0, what is wanted is noisy,
the rest is absent. Samples, noise and clocks are always the same, so that the numbers of different
steps can be compared. A direction costs one forward pass of `COUNT` samples: all 50 of
four parts take the model that ships 24 s of one core.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unigen.configure import build
from unigen.data.feed import Feed, meet
from unigen.data.indexed import Indexed
from unigen.errors import UnigenError, UsageError
from unigen.flow import DECIDED
from unigen.model import UniGen
from unigen.precision import autocast
from unigen.presence import directions, settled
from unigen.team import Team
from unigen.tokens import Clocks, Tokens, modality_of, noise, role_of
from unigen.trainer import Trainer

COUNT = 64  # samples


class Validation:
    """Samples that a run does not learn, and the losses of its averaged weights on them."""

    def __init__(self, batches: list[dict[str, Any]], every: int, count: int = COUNT):
        """batches: what an objective learns from, by part; one a kind of sample, in process 0.

        every: steps. count: samples of a direction; fewer are shown with several noises.
        """
        self.batches, self.every, self.count = batches, every, count

    def due(self, step: int, last: int) -> bool:
        """Return whether to validate after a step: every so often, and after the last one."""
        return step % self.every == 0 or step == last

    @torch.no_grad()
    def losses(self, trainer: Trainer) -> dict[str, float]:
        """Return the losses by direction, of a codec its own, of towers by pair; and their mean.

        Process 0 computes them; the others wait, and return none. The weights and the random
        numbers of the run are left as they were.
        """
        model, engine, found = trainer.model, trainer.engine, {}
        average = engine.averaged(model, trainer.module, trainer.ema.module)
        with average as made, engine.team.together():
            if engine.team.rank == 0:
                learning = model.training
                made.to(trainer.device).eval()
                with autocast(trainer.device, trainer.bf16):
                    if trainer.module is model.denoiser:
                        found = self._denoised(made)
                    else:
                        found = self._learned(made, trainer.objective, trainer.device)
                model.train(learning)
        values = {name: loss.item() for name, loss in found.items()}
        return {**values, "mean": sum(values.values()) / len(values)} if values else {}

    def _denoised(self, model: UniGen) -> dict[str, Tensor]:
        """Return the loss of every direction that some samples show; of none, of parts alone."""
        parts = sorted({modality_of(part) for batch in self.batches for part in batch})
        ways = [(given, want) for given, want in directions(parts) if self._rows(given + want)]
        found = {}
        for given, want in ways or [((), (part,)) for part in parts]:
            some = self._rows(given + want)
            x = {p: z[torch.arange(max(self.count, len(z))) % len(z)] for p, z in some.items()}
            t = clocks_of(model, x, want)
            eps = {p: noise(p, range(len(z)), z.shape[1:]).to(z.device) for p, z in x.items()}
            losses = model.missed(x, eps, t)
            name = f"{'+'.join(given) or 'nothing'}->{'+'.join(want)}"
            found[name] = torch.stack([losses[part] for part in want]).mean()
        return found

    def _learned(self, model: UniGen, objective: Any, device: Any) -> dict[str, Tensor]:
        """Return the losses of an objective with one part, or with every two."""
        parts = sorted({part for batch in self.batches for part in batch if not role_of(part)})
        found = {}
        for some in combinations(parts, 1 if objective.teaches_codec else 2):
            if x := self._rows(some):
                found |= objective.loss(model, x, torch.Generator(device).manual_seed(0))
        return found

    def _rows(self, names: Collection[str]) -> dict[str, Any]:
        """Return some modalities of all samples that have them; nothing where none has all."""
        have = [batch for batch in self.batches if batch.keys() >= {*names}]
        parts = [part for part in have[0] if modality_of(part) in names] if have else []
        if len(have) == 1:
            return {part: have[0][part] for part in parts}
        return {part: torch.cat([batch[part] for batch in have]) for part in parts}


def clocks_of(model: UniGen, x: Tokens, want: Collection[str]) -> Clocks:
    """Return the clocks of samples of which some modalities are wanted and the others given.

    Wanted ones share a clock: one sample is in every b-th part of the density of training, whose
    center is the mean of theirs. Ordered tokens settle one after another as in training.
    """
    b, device = len(next(iter(x.values()))), next(iter(x.values())).device
    center = sum(model.modality(part).noise_mean for part in want) / len(want)
    order = torch.randperm(b, generator=torch.Generator().manual_seed(0))
    level = torch.special.ndtri((order + 0.5) / b)
    t = torch.sigmoid(center + model.flow.std * level).to(device)
    beside = not all(model.ordered(part) for part in want)
    turn = (t / DECIDED).clamp(max=1) if beside else t
    clocks = {}
    for part, z in x.items():
        if modality_of(part) not in want:
            clocks[part] = z.new_zeros(z.shape[:2])
        elif model.ordered(part):
            clocks[part] = (~settled(turn, z.shape[1])).float()
        else:
            clocks[part] = t[:, None].expand(z.shape[:2])
    return clocks


def validating(
    cfg: Mapping[str, Any], model: UniGen, objective: Any, out: Path, device: str, team: Team
) -> Validation | None:
    """Return the validation of a run as configured, or None; process 0 reads its samples.

    Raises UsageError for a source that cannot be made or shows nothing of use.
    """
    node, every = cfg.get("validation"), cfg["trainer"]["validate_every"]
    if node is not None and "_target_" not in node:
        raise UsageError(
            f"validation.{next(iter(node))} is of no source; type data@validation=folder, too."
        )
    if node is None or not every:
        return None
    batches: list[dict[str, Any]] = []
    with team.together():
        if team.rank == 0:
            with _named(UsageError):
                source = build(node, cfg.get("plugins") or ())
            with _named():
                source = meet(model, objective, source, out)
                batches = samples(model, objective, source, device)
    return Validation(batches, every)


def samples(
    model: UniGen, objective: Any, source: Any, device: str, count: int = COUNT
) -> list[dict[str, Any]]:
    """Return what the objective learns from about `count` samples of a source, kind by kind.

    They are spread over a source with an index; of any other they are those of its first step.
    """
    names = [objective.modality] if objective.teaches_codec else list(model.modalities)
    if isinstance(source, Indexed):
        source.restrict([part for part in source.parts if part in names], objective.usable)
        chosen = source.spread(count)
    else:
        chosen = [source.order(0, 0, count)]
    feed, batches = Feed(model, objective, source, device), []
    available = getattr(feed, "available", lambda index: names)  # data without it has all parts
    for index in chosen:
        parts = [part for part in names if part in available(index)]
        batches.append(feed.finish(feed.batch(index, parts)))
    return batches


@contextmanager
def _named(kind: type[UnigenError] | None = None) -> Iterator[None]:
    """Say of an error that it is about the source of validation; `kind`: and make it of a kind."""
    try:
        yield
    except UnigenError as error:
        raise (kind or type(error))(f"data@validation: {error}") from error
