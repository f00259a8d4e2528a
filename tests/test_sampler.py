"""The samplers have their theoretical order, and a Gaussian comes back as that Gaussian."""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from unigen.errors import UsageError
from unigen.flow import VP, RectifiedFlow
from unigen.interop import schedulers
from unigen.sampler import SAMPLERS, ancestral, named, orders, stochastic, upward

MU, SD = 0.7, 0.4
FLOWS = (RectifiedFlow, VP)
EXACT = [name for name in SAMPLERS if name not in ("ancestral", "stochastic")]
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def spread(flow, t):
    """Return the standard deviation of x_t for Gaussian data."""
    return (flow.alpha(t) ** 2 * SD**2 + flow.sigma(t) ** 2).sqrt()


def posterior(flow):
    """Return the denoiser E[x | x_t] of Gaussian data."""

    def denoise(x, t):
        a = flow.alpha(t)
        gain = a * SD**2 / spread(flow, t) ** 2
        return {k: MU + gain * (z - a * MU) for k, z in x.items()}

    return denoise


def normal(n):
    """Return n standard normal numbers: the quantiles, so that their moments are known."""
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return (math.sqrt(2) * torch.erfinv(2 * u - 1)).reshape(n, 1, 1)


def fresh(step, n=1001):
    """Return the noise of a step: the quantiles in random order."""
    generator = torch.Generator().manual_seed(step)
    return {"part": normal(n)[torch.randperm(n, generator=generator)]}


def last(steps):
    *_, x = steps
    return x["part"]


def error(name, flow, n):
    """Return the error after n steps between two clocks, where the exact path is known."""
    times = torch.linspace(0.9, 0.1, n + 1, dtype=torch.float64)
    z = normal(9)
    start, exact = (flow.alpha(t) * MU + spread(flow, t) * z for t in (times[0], times[-1]))
    made = last(SAMPLERS[name](posterior(flow), {"part": start}, flow, times))
    return float((made - exact).abs().max())


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize(
    ("name", "order"), [("euler", 1), ("heun", 2), ("multistep", 2), ("singlestep", 3)]
)
def test_order_of_convergence(flow, name, order):
    counts = (41, 80, 161)  # so that the last group of `singlestep` is not of first order
    for n, m in pairwise(counts):
        gain = error(name, flow(), n) / error(name, flow(), m)
        assert math.log(gain) / math.log(m / n) == pytest.approx(order, abs=0.3)


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("n", [10, 40])
def test_the_walk_to_noise_is_the_walk_from_it(flow, n):
    """However large its steps: Euler's own are undone, up to the noise that it starts with."""
    process, z = flow(), fresh(0, 9)["part"]
    data, denoise, times = {"part": MU + SD * normal(9)}, posterior(process), process.times(n)
    noise = last(upward(data, tries=40)(denoise, {"part": z}, process, times.double()))
    back = last(SAMPLERS["euler"](denoise, {"part": noise}, process, times.double()))
    least = process.sigma(times[-2])
    assert torch.allclose(back, data["part"], atol=3 * float(least))
    assert not torch.allclose(noise, z, atol=0.1)


def test_groups_of_the_single_step_solver():
    assert orders(50) == [3] * 16 + [2]  # as published, for 50 evaluations
    assert [orders(n) for n in range(8)] == [
        [], [1], [2], [2, 1], [3, 1], [3, 2], [3, 2, 1], [3, 3, 1]
    ]  # fmt: skip
    asked, flow = [], RectifiedFlow()

    def denoise(x, t):
        asked.append(t)
        return posterior(flow)(x, t)

    list(SAMPLERS["singlestep"](denoise, {"part": normal(9)}, flow, flow.times(10)))
    assert torch.equal(torch.stack(asked), flow.times(10)[:-1])  # one evaluation a clock


def test_second_order_is_better():
    for flow in FLOWS:
        assert max(error(n, flow(), 40) for n in ("heun", "multistep")) < error("euler", flow(), 40)


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("name", EXACT)
def test_a_gaussian_comes_back_as_that_gaussian(flow, name):
    flow = flow(t_min=0.002)  # the last step, from t_min to 0, takes a mean
    x = last(SAMPLERS[name](posterior(flow), {"part": normal(1001)}, flow, flow.times(200)))
    assert x.mean() == pytest.approx(MU, abs=0.02)
    assert x.std() == pytest.approx(SD, rel=0.02)
    assert (x.flatten().diff() > 0).all()  # the map is monotone: quantiles go to quantiles


@pytest.mark.parametrize("flow", FLOWS)
def test_with_new_noise_a_gaussian_comes_back_the_better_the_smaller_the_steps(flow):
    flow, n, off = flow(t_min=0.002), 20_001, []
    walk = partial(ancestral, churn=(1.0, 4.0))
    for steps in (50, 200, 800):
        x = {"part": normal(n)}
        x = last(walk(posterior(flow), x, flow, flow.times(steps), lambda i: fresh(i, n)))
        assert x.mean() == pytest.approx(MU, abs=0.02)
        off.append(abs(x.std() / SD - 1).item())
    assert off[0] > 1.5 * off[1] > 2.25 * off[2]
    assert off[2] < 0.1


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_step_is_yielded_and_the_last_is_the_data(name):
    flow, calls = RectifiedFlow(), []

    def denoise(x, t):
        calls.append(float(t))
        return {k: torch.full_like(z, 3.0) for k, z in x.items()}

    x = {"part": torch.randn(2, 3, 4), "other": torch.randn(2, 1, 5)}
    kept = {k: z.clone() for k, z in x.items()}

    def noise(step):
        return {k: torch.full_like(z, step) for k, z in x.items()}

    steps = SAMPLERS[name](denoise, x, flow, flow.times(5), noise)
    assert calls == []  # nothing is computed before it is asked for
    states = list(steps)
    assert len(states) == 5
    for state in states:
        assert {k: z.shape for k, z in state.items()} == {k: z.shape for k, z in x.items()}
    assert all((z == 3).all() for z in states[-1].values())
    assert all(torch.equal(x[k], kept[k]) for k in x)  # the noise is left as it was
    assert not torch.equal(states[0]["part"], states[1]["part"])
    assert 0 not in calls


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_step_is_one_prediction(name):
    flow = RectifiedFlow()
    (state,) = SAMPLERS[name](lambda x, t: {"part": 2 * x["part"]}, {"part": torch.ones(1, 1, 1)},
                              flow, flow.times(1), fresh)  # fmt: skip
    assert state["part"].item() == 2


@pytest.mark.parametrize("name", ["euler", "multistep"])
def test_one_call_a_step(name):
    flow, calls = RectifiedFlow(), []
    list(SAMPLERS[name](lambda x, t: calls.append(t) or x, {"p": torch.ones(1, 1, 1)}, flow,
                        flow.times(6)))  # fmt: skip
    assert len(calls) == 6


def test_an_unknown_sampler_names_the_known_ones():
    assert named("heun") is SAMPLERS["heun"]
    with pytest.raises(UsageError, match="sampler=ddpm.*ancestral, euler, heun, multistep"):
        named("ddpm")


def test_vp_is_the_schedule_of_latent_diffusion():
    bars = DDIMScheduler(**BETAS).alphas_cumprod.double()
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    assert torch.allclose(VP().alpha(t), bars.sqrt(), atol=2e-3)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of diffusers under numpy 2
@pytest.mark.parametrize(
    ("name", "scheduler"),
    [
        ("euler", DDIMScheduler(**BETAS, prediction_type="sample", clip_sample=False)),
        (
            "multistep",
            DPMSolverMultistepScheduler(
                **BETAS, prediction_type="sample", final_sigmas_type="zero", solver_order=2
            ),
        ),
    ],
)
def test_the_schedulers_of_diffusers_walk_the_same_path(name, scheduler):
    flow, x = VP(), normal(9).float()
    scheduler.set_timesteps(25)
    theirs, path = x, []
    for step in scheduler.timesteps:
        x0 = posterior(flow)({"part": theirs}, (step + 1) / 1000)["part"]
        theirs = scheduler.step(x0, step, theirs).prev_sample
        path.append(theirs)
    times = torch.cat([(scheduler.timesteps + 1) / 1000, torch.zeros(1)])
    ours = SAMPLERS[name](posterior(flow), {"part": x}, flow, times)
    for a, b in zip(ours, path, strict=True):  # the discrete schedule differs by 1 / 1000
        assert torch.allclose(a["part"], b, atol=5e-3)


@pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # of diffusers under numpy 2
@pytest.mark.parametrize("name", schedulers.KNOWN)
def test_a_scheduler_of_diffusers_is_a_sampler(name):
    """Its path is that of its own loop, for every part, and ends at the Gaussian's own sample."""
    flow, x = VP(), {"part": normal(9).float(), "other": 2 * normal(9).float()}
    scheduler = schedulers.scheduler_of(f"diffusers.{name}")
    steps = list(schedulers.Scheduled(scheduler)(posterior(flow), x, flow, flow.times(24)))
    assert len(steps) == 24
    for part, start in x.items():
        scheduler.set_timesteps(24)
        theirs = start
        for step in scheduler.timesteps:
            x0 = posterior(flow)({"part": theirs}, (step + 1) / 1000)["part"]
            theirs = scheduler.step(x0, step, theirs).prev_sample
        assert torch.equal(steps[-1][part], theirs)
    one = torch.ones(())
    exact = MU + SD * (x["part"] - flow.alpha(one) * MU) / spread(flow, one)
    assert torch.allclose(steps[-1]["part"], exact, atol=0.1)  # DDIM is of first order


def test_a_scheduler_walks_its_own_process_alone():
    sampler = schedulers.Scheduled(schedulers.scheduler_of("diffusers.DDIMScheduler"))
    x = {"part": normal(2).float()}
    for flow in (RectifiedFlow(), VP(beta_max=20.0)):
        with pytest.raises(UsageError, match="DDIMScheduler walks the VP process"):
            next(sampler(posterior(flow), x, flow, flow.times(4)))
    with pytest.raises(UsageError, match="diffusers.LMSDiscreteScheduler is unknown.*DDIM"):
        schedulers.scheduler_of("diffusers.LMSDiscreteScheduler")
    with pytest.raises(UsageError, match='prediction_type="sample"'):
        schedulers.Scheduled(DDIMScheduler(**BETAS))


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of diffusers under numpy 2
@pytest.mark.parametrize(
    ("walk", "scheduler", "options"),
    [
        (
            ancestral,
            DDIMScheduler(**BETAS, prediction_type="sample", clip_sample=False),
            {"eta": 1.0},
        ),
        (
            partial(stochastic, churn=(1.0, 1.0)),
            DPMSolverMultistepScheduler(
                **BETAS,
                prediction_type="sample",
                final_sigmas_type="zero",
                algorithm_type="sde-dpmsolver++",
            ),
            {},
        ),
    ],
)
def test_new_noise_of_the_posterior_is_that_of_diffusers(walk, scheduler, options):
    """First order: DDIM with eta = 1. Second order: SDE-DPM-Solver++(2M)."""
    scheduler.set_timesteps(25)
    flow, x = VP(), normal(9).float()
    noise = [torch.randn(9, 1, 1, generator=torch.Generator().manual_seed(i)) for i in range(25)]
    times = torch.cat([(scheduler.timesteps + 1) / 1000, torch.zeros(1)])
    times = times - (times == 1) * 1e-6  # from pure noise, the first step would keep its noise
    ours = walk(posterior(flow), {"part": x}, flow, times, lambda i: {"part": noise[i]})
    theirs = x
    for step, mine, z in zip(scheduler.timesteps, ours, noise, strict=True):
        x0 = posterior(flow)({"part": theirs}, (step + 1) / 1000)["part"]
        theirs = scheduler.step(x0, step, theirs, variance_noise=z, **options).prev_sample
        if step != scheduler.timesteps[-1]:
            assert torch.allclose(mine["part"], theirs, atol=1e-2)


@pytest.mark.parametrize(("order", "name"), [(1, "euler"), (2, "multistep")])
def test_without_new_noise_the_walk_is(order, name):
    flow, x = RectifiedFlow(), {"part": normal(9)}
    walk = partial(stochastic, order=order, churn=(0.0, 0.0))
    a = last(walk(posterior(flow), x, flow, flow.times(12), fresh))
    b = last(SAMPLERS[name](posterior(flow), x, flow, flow.times(12)))
    assert torch.allclose(a, b, atol=1e-6)


def test_new_noise_in_large_steps_draws_samples_to_what_is_common():
    """So does first order; clocks that are shifted to the noise mend some of it."""
    n, far, rare, steps = 20_000, 16.0, 0.3, 20

    def noise(step):
        generator = torch.Generator().manual_seed(step)
        return {"part": torch.randn(n, 1, 1, generator=generator)}

    def share(shift, order, early):
        flow = RectifiedFlow(t_min=0.1, shift=shift)

        def denoise(x, t):  # the data are +far in 30 % and -far in the rest
            slope, odds = flow.alpha(t) * far / flow.sigma(t) ** 2, math.log(rare / (1 - rare))
            return {k: far * torch.tanh(slope * z + odds / 2) for k, z in x.items()}

        walk = partial(stochastic, order=order, churn=(early, 4.0))
        x = last(walk(denoise, noise(1000), flow, flow.times(steps), noise))
        return (x > 0).float().mean().item()

    even, shifted = (
        [share(shift, *how) for how in ((2, 0.0), (2, 1.0), (1, 1.0), (1, 4.0))]
        for shift in (1.0, 3.0)
    )
    assert shifted[0] == pytest.approx(rare, abs=0.015)
    assert even == sorted(even, reverse=True)
    assert shifted == sorted(shifted, reverse=True)
    assert all(b > a + 0.02 for a, b in zip(even, shifted, strict=True))
