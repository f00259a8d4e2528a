"""Schedulers of diffusers as samplers, for the VP process that they are made for."""

import copy
from collections.abc import Iterator
from typing import Any

import torch

from unigen.errors import UsageError
from unigen.flow import VP, RectifiedFlow
from unigen.sampler import Denoise, Fresh, Times
from unigen.tokens import Tokens

PREFIX = "diffusers."
#: Those without noise of their own and with one evaluation a step. Noise would have to be drawn a
#: sample, so that none depends on its batch.
KNOWN = ("DDIMScheduler", "DEISMultistepScheduler", "DPMSolverMultistepScheduler",
         "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler")  # fmt: skip
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def scheduler_of(name: str) -> Any:
    """Return the scheduler that a name such as `diffusers.DDIMScheduler` stands for.

    A colon and a number after it are its order, as in `diffusers.DPMSolverMultistepScheduler:3`.
    Raises UsageError for one that is not among `KNOWN`.
    """
    short, _, order = name.removeprefix(PREFIX).partition(":")
    if short not in KNOWN or (order and (order not in "123" or short == KNOWN[0])):
        raise UsageError(f"sampler={name} is unknown; of diffusers there are {', '.join(KNOWN)}.")
    import diffusers  # seconds of import that nothing else needs

    options: dict[str, Any] = {"clip_sample": False} if short == KNOWN[0] else {}
    options |= {"solver_order": int(order)} if order else {}
    return getattr(diffusers, short)(**BETAS, **options, prediction_type="sample")


class Scheduled:
    """A sampler that steps as a scheduler of diffusers does, one copy of it a part."""

    def __init__(self, scheduler: Any):
        """`scheduler`: with the betas of latent diffusion and prediction_type "sample"."""
        if scheduler.config.prediction_type != "sample":
            raise UsageError(
                f"the scheduler wants {scheduler.config.prediction_type!r}; a sampler is told the "
                'data: build it with prediction_type="sample".'
            )
        self.scheduler = scheduler

    def __call__(
        self, denoise: Denoise, x: Tokens, flow: RectifiedFlow, times: Times,
        fresh: Fresh | None = None,
    ) -> Iterator[Tokens]:  # fmt: skip
        """Walk in as many steps as `times` has, at the scheduler's own clocks.

        Raises UsageError for a process that is not the scheduler's.
        """
        self._check(flow)
        each = {part: copy.deepcopy(self.scheduler) for part in x}
        for scheduler in each.values():
            scheduler.set_timesteps(len(times) - 1, device=times.device)
        for step in next(iter(each.values())).timesteps:
            data = denoise(x, (step + 1 - flow.late) / len(self.scheduler.betas))
            x = {p: s.step(data[p], step, x[p]).prev_sample for p, s in each.items()}
            yield x

    def _check(self, flow: RectifiedFlow) -> None:
        bars = self.scheduler.alphas_cumprod
        t = (torch.arange(len(bars)) + 1 - flow.late) / len(bars)
        if not isinstance(flow, VP) or (flow.alpha(t) - bars.sqrt()).abs().max() > 5e-3:
            name = type(self.scheduler).__name__
            raise UsageError(
                f"sampler={PREFIX}{name} walks the VP process with the scheduler's betas; this "
                f"model's process is {type(flow).__name__}. Choose sampler=multistep."
            )
