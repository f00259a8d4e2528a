"""Samplers: generator functions that walk tokens from noise to data and yield every step.

Each takes the same arguments: a `denoise(x, t)` that returns the predicted data, the tokens at the
first clock, the flow, the clocks from 1 to 0 and, if it is stochastic, `fresh(step)`, the noise of
a step. The last token dict yielded is the result.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate, pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from unigen.errors import UsageError
from unigen.flow import DECIDED, RectifiedFlow
from unigen.tokens import Tokens

Denoise = Callable[[Tokens, Float[Tensor, ""]], Tokens]
Times = Float[Tensor, " steps"]
Fresh = Callable[[int], Tokens]

#: Of `stochastic`, above and below `DECIDED`: 0 keeps all noise, 1 is the posterior of the process.
CHURN = (0.0, 4.0)


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
    before = None
    for t, s in pairwise(times):
        x0, h = denoise(x, t), _lambda(flow, s) - _lambda(flow, t)
        x = _move(x, _ahead(x0, h, before), flow, t, s)
        before = x0, h
        yield x


def singlestep(
    denoise: Denoise, x: Tokens, flow: RectifiedFlow, times: Times, fresh: Fresh | None = None
) -> Iterator[Tokens]:
    """Third order without a memory: DPM-Solver++ over three clocks at a time (Lu et al. 2022).

    Every clock costs one evaluation. All points of a group are reached from its first one; what
    was predicted at the last of them tells how the data change over lambda. Groups are those of
    the authors' "fast" solver: see `orders`.
    """
    for t, *stops in _groups(flow, times):
        x0, h_last, change = denoise(x, t), None, x
        for s in stops:
            h, guess = _lambda(flow, s) - _lambda(flow, t), _move(x, x0, flow, t, s)
            if h_last is not None:
                bend = torch.expm1(-h) / h + 1 if len(stops) == 3 else -torch.expm1(-h) / 2
                slope = flow.alpha(s) * bend * h / h_last
                guess = {k: guess[k] + slope * change[k] for k in x}
            yield guess
            if s == stops[-1]:
                x = guess
            else:
                seen, h_last = denoise(guess, s), h
                change = {k: seen[k] - x0[k] for k in x}


def orders(steps: int) -> list[int]:
    """Return the orders of the groups of `singlestep`: threes, and at the end 2, or 2 and 1, or 1.

    Their sum is `steps`, the number of evaluations.
    """
    end = ([2, 1], [1], [2])[steps % 3] if steps > 0 else []
    return [3] * ((steps - sum(end)) // 3) + end


def stochastic(
    denoise: Denoise,
    x: Tokens,
    flow: RectifiedFlow,
    times: Times,
    fresh: Fresh,
    order: int = 2,
    churn: tuple[float, float] = CHURN,
) -> Iterator[Tokens]:
    """Second order, and some of the noise of every step is new once it is `DECIDED` what is shown.

    x_s = alpha_s x0 + sigma_s (k eps + sqrt(1 - k^2) z) with k = exp(-churn (lambda_s - lambda_t)),
    new z, and predicted data x0 that are extrapolated as in `multistep`; with a churn of 1 it is
    SDE-DPM-Solver++(2M) (Lu et al. 2022). For small steps the marginals are right for any churn
    (Song et al. 2021, eq. 12; Karras et al. 2022, eq. 8). New noise lets later steps mend what
    earlier ones decided against each other. In large steps, and of first order, it draws samples
    to what is common (LOG.md): so there is none of it before.
    """
    before, (early, late) = None, churn
    for step, (t, s) in enumerate(pairwise(times)):
        found, h = denoise(x, t), _lambda(flow, s) - _lambda(flow, t)
        x0 = _ahead(found, h, before if order == 2 else None)
        kept = (-(late if t < DECIDED else early) * h).exp() if s > 0 and t < 1 else 1.0
        new, z = (1 - kept**2) ** 0.5, fresh(step) if kept < 1 else x
        eps = {p: (x[p] - flow.alpha(t) * x0[p]) / flow.sigma(t) for p in x}
        x = {p: flow.alpha(s) * x0[p] + flow.sigma(s) * (kept * eps[p] + new * z[p]) for p in x}
        before = found, h
        yield x


#: First order, every step a draw from the posterior of the process (Ho et al. 2020, eq. 6).
ancestral = partial(stochastic, order=1, churn=(1.0, 1.0))


def upward(data: Tokens, tries: int = 4) -> Callable[..., Iterator[Tokens]]:
    """Return the walk from data to the noise from which `euler` leads to them.

    Every step asks for the tokens from which a step of Euler leads to the ones that are there: a
    fixed point, found in so many tries (Song et al. 2021, section 4.3, is one try at the wrong
    clock). A try goes a part of the way: what is predicted follows what is seen by 0 to 1, so that
    2 / (2 + k) is the best one. It starts at the last clock before the data, with as much noise as
    belongs there.
    """

    def walk(
        denoise: Denoise, x: Tokens, flow: RectifiedFlow, times: Times, fresh: Fresh | None = None
    ) -> Iterator[Tokens]:
        stops = times[times > 0].flip(0)
        x = {k: flow.alpha(stops[0]) * data[k] + flow.sigma(stops[0]) * x[k] for k in x}
        for s, t in pairwise(stops):
            k = flow.alpha(s) * flow.sigma(t) / flow.sigma(s) - flow.alpha(t)
            there = x
            for _ in range(tries):
                found = _move(x, denoise(there, t), flow, s, t)
                there = {p: z + 2 / (2 + k) * (found[p] - z) for p, z in there.items()}
            x = there
            yield x

    return walk


SAMPLERS = {
    "ancestral": ancestral, "euler": euler, "heun": heun, "multistep": multistep,
    "singlestep": singlestep, "stochastic": stochastic,
}  # fmt: skip


def named(name: str) -> Callable[..., Iterator[Tokens]]:
    """Return the sampler of that name."""
    if name not in SAMPLERS:
        raise UsageError(f"sampler={name} is unknown; choose one of {', '.join(SAMPLERS)}.")
    return SAMPLERS[name]


def _groups(flow: RectifiedFlow, times: Tensor) -> list[Tensor]:
    """Cut the clocks into groups, each from the last clock of the one before.

    Clocks of pure noise and of pure data, where lambda is infinite, are in a group of first order.
    """
    ends = [[] if _lambda(flow, t).isfinite() else [1] for t in (times[0], times[-1])]
    inner = orders(len(times) - 1 - sum(map(len, ends)))
    bounds = accumulate([*ends[0], *inner, *ends[1]], initial=0)
    return [times[a : b + 1] for a, b in pairwise(bounds)]


def _ahead(x0: Tokens, h: Tensor, before: tuple[Tokens, Tensor] | None) -> Tokens:
    """Return the data that a step of length h goes to: extrapolated over lambda, to half-way.

    before: the data last predicted, and the length of that step. From pure noise and to pure data
    the length is infinite: no extrapolation.
    """
    if before is None or not (h.isfinite() and before[1].isfinite()):
        return x0
    last, h_last = before
    return {k: x0[k] + h / (2 * h_last) * (x0[k] - last[k]) for k in x0}


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
