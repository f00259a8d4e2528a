"""Samplers: generator functions that walk tokens from noise to data and yield every step.

Each takes the same arguments: a `denoise(x, t)` that returns the predicted data, the tokens at the
first clock, the flow, the clocks from 1 to 0 and, if it is stochastic, `fresh(step)`, the noise of
a step. The last token dict yielded is the result.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from unigen.errors import UsageError
from unigen.flow import DECIDED, RectifiedFlow
from unigen.tokens import Tokens

Denoise = Callable[[Tokens, Float[Tensor, ""]], Tokens]
Times = Float[Tensor, " steps"]
Fresh = Callable[[int], Tokens]

CHURN = 8.0  # of `ancestral` below `DECIDED`: 0 is the walk of Euler, 1 the posterior


def euler(
    denoise: Denoise, x: Tokens, flow: RectifiedFlow, times: Times, fresh: Fresh | None = None
) -> Iterator[Tokens]:
    """First order: go to where the predicted data and noise meet at the next clock (DDIM)."""
    for t, s in pairwise(times):
        x = _move(x, denoise(x, t), flow, t, s)
        yield x


def heun(
    denoise: Denoise, x: Tokens, flow: RectifiedFlow, times: Times, fresh: Fresh | None = None
) -> Iterator[Tokens]:
    """Second order, two evaluations a step (Karras et al. 2022, algorithm 1)."""
    for t, s in pairwise(times):
        first = _velocity(x, denoise(x, t), flow, t)
        guess = {k: x[k] + (s - t) * first[k] for k in x}
        if s == 0:  # the velocity is not defined at the data: end with a first-order step
            x = _move(x, denoise(x, t), flow, t, s)
        else:
            second = _velocity(guess, denoise(guess, s), flow, s)
            x = {k: x[k] + (s - t) / 2 * (first[k] + second[k]) for k in x}
        yield x


def multistep(
    denoise: Denoise, x: Tokens, flow: RectifiedFlow, times: Times, fresh: Fresh | None = None
) -> Iterator[Tokens]:
    """Second order, one evaluation a step: DPM-Solver++(2M) (Lu et al. 2022, algorithm 2).

    lambda = log(alpha / sigma); the predicted data are extrapolated over lambda.
    """
    before: tuple[Tokens, Tensor] | None = None  # the data last predicted, and its step
    for t, s in pairwise(times):
        x0 = denoise(x, t)
        h = _lambda(flow, s) - _lambda(flow, t)
        if before is None or s == 0 or not torch.isfinite(before[1]):
            x = _move(x, x0, flow, t, s)
        else:
            last, h_last = before
            r = h / (2 * h_last)
            ahead = {k: x0[k] + r * (x0[k] - last[k]) for k in x}
            x = _move(x, ahead, flow, t, s)
        before = x0, h
        yield x


def ancestral(
    denoise: Denoise, x: Tokens, flow: RectifiedFlow, times: Times, fresh: Fresh
) -> Iterator[Tokens]:
    """First order and stochastic: some of the noise of every step is new.

    x_s = alpha_s x0 + sigma_s (k eps + sqrt(1 - k^2) z) with k = exp(-churn (lambda_s - lambda_t))
    and new z; the first step keeps its noise. For small steps the marginals are right for any churn
    (Song et al. 2021, eq. 12; Karras et al. 2022, eq. 8). New noise lets later steps mend what
    earlier ones decided against each other. Much of it in large steps draws samples to what is
    common: above clock `DECIDED` churn is 1, the posterior of the process.
    """
    for step, (t, s) in enumerate(pairwise(times)):
        x0 = denoise(x, t)
        churn = CHURN if t < DECIDED else min(CHURN, 1.0)
        kept = (-churn * (_lambda(flow, s) - _lambda(flow, t))).exp() if s > 0 and t < 1 else 1.0
        new, z = (1 - kept**2) ** 0.5, fresh(step) if kept < 1 else x
        eps = {p: (x[p] - flow.alpha(t) * x0[p]) / flow.sigma(t) for p in x}
        x = {p: flow.alpha(s) * x0[p] + flow.sigma(s) * (kept * eps[p] + new * z[p]) for p in x}
        yield x


SAMPLERS = {"ancestral": ancestral, "euler": euler, "heun": heun, "multistep": multistep}


def named(name: str) -> Callable[..., Iterator[Tokens]]:
    """Return the sampler of that name."""
    if name not in SAMPLERS:
        raise UsageError(f"sampler={name} is unknown; choose one of {', '.join(SAMPLERS)}.")
    return SAMPLERS[name]


def _move(x: Tokens, x0: Tokens, flow: RectifiedFlow, t: Tensor, s: Tensor) -> Tokens:
    """Return alpha_s x0 + sigma_s eps, with the eps that joins x0 to x at clock t."""
    ratio = flow.sigma(s) / flow.sigma(t)
    return {k: flow.alpha(s) * x0[k] + ratio * (x[k] - flow.alpha(t) * x0[k]) for k in x}


def _velocity(x: Tokens, x0: Tokens, flow: RectifiedFlow, t: Tensor) -> Tokens:
    clocks = {k: t.expand(x[k].shape[:2]) for k in x}
    eps = {k: (x[k] - flow.alpha(t) * x0[k]) / flow.sigma(t) for k in x}
    return {k: flow.velocity(x0[k], eps[k], clocks[k]) for k in x}


def _lambda(flow: RectifiedFlow, t: Tensor) -> Tensor:
    return flow.alpha(t).log() - flow.sigma(t).log()
