"""A flow joins data and noise, and its conversions are each other's inverse."""

import math

import pytest
import torch

from unigen.errors import UsageError
from unigen.flow import PREDICTIONS, VP, RectifiedFlow

FLOWS = (RectifiedFlow, VP)


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, 5, 4, generator=generator, dtype=torch.float64) for _ in range(2)]


@pytest.fixture
def clock():
    return torch.linspace(0.02, 0.98, 15, dtype=torch.float64).reshape(3, 5)


@pytest.mark.parametrize("flow", FLOWS)
def test_zero_is_data(flow, pair):
    x, eps = pair
    assert torch.equal(flow().interpolate(x, eps, torch.zeros(3, 5)), x)


def test_one_is_noise(pair):
    x, eps = pair
    assert torch.equal(RectifiedFlow().interpolate(x, eps, torch.ones(3, 5)), eps)
    left = VP().alpha(torch.ones(()))  # latent diffusion leaves 7 % of the data
    assert 0.06 < left < 0.07
    assert 0.99 < VP().sigma(torch.ones(())) < 1


def test_every_token_has_its_own_clock(pair, clock):
    x, eps = pair
    for flow in (RectifiedFlow(), VP()):
        whole = flow.interpolate(x, eps, clock)
        for i in range(5):
            alone = flow.interpolate(x[:, i : i + 1], eps[:, i : i + 1], clock[:, i : i + 1])
            assert torch.equal(whole[:, i : i + 1], alone)


def test_vp_keeps_the_variance(clock):
    flow = VP()
    assert torch.allclose(flow.alpha(clock) ** 2 + flow.sigma(clock) ** 2, torch.ones_like(clock))


@pytest.mark.parametrize("flow", FLOWS)
def test_noise_grows(flow):
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    assert (flow().alpha(t).diff() < 0).all()
    assert (flow().sigma(t).diff() > 0).all()


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_conversions_invert(flow, prediction, pair, clock):
    flow = flow(prediction)
    x, eps = pair
    x_t = flow.interpolate(x, eps, clock)
    output = {"x": x, "eps": eps, "velocity": flow.velocity(x, eps, clock)}[prediction]
    assert torch.allclose(flow.to_x(output, x_t, clock), x, atol=1e-9)
    assert torch.allclose(flow.from_x(x, x_t, clock), output, atol=1e-9)
    assert torch.allclose(flow.to_eps(x, x_t, clock), eps, atol=1e-9)
    anything = torch.randn_like(x)
    assert torch.allclose(flow.from_x(flow.to_x(anything, x_t, clock), x_t, clock), anything)


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("t", [0.0, 1.0])
def test_the_ends_of_time_are_finite(flow, prediction, t, pair):
    flow = flow(prediction)
    x, eps = (z.float() for z in pair)
    clock = torch.full((3, 5), t)
    x_t = flow.interpolate(x, eps, clock)
    for value in (flow.to_x(eps, x_t, clock), flow.from_x(x, x_t, clock), flow.loss_weight(clock)):
        assert torch.isfinite(value).all()
    if t == 0:
        assert torch.allclose(flow.to_x(x, x_t, clock), x)


@pytest.mark.parametrize("flow", FLOWS)
def test_velocity_is_the_derivative(flow, pair, clock):
    x, eps = pair
    flow = flow()
    _, by_autograd = torch.autograd.functional.jvp(
        lambda t: flow.interpolate(x, eps, t), clock, torch.ones_like(clock)
    )
    assert torch.allclose(flow.velocity(x, eps, clock), by_autograd, atol=1e-9)
    h = 1e-5
    ahead, behind = (flow.interpolate(x, eps, clock + s * h) for s in (1, -1))
    assert torch.allclose((ahead - behind) / (2 * h), by_autograd, atol=1e-6)


def test_the_loss_is_the_error_of_the_velocity(pair, clock):
    x, eps = pair
    flow, clock = RectifiedFlow("velocity"), clock.clamp_min(0.06)
    x_t = flow.interpolate(x, eps, clock)
    wrong = x + 0.1 * torch.randn_like(x)
    weighted = flow.loss_weight(clock)[..., None] * (wrong - x) ** 2
    velocity = (flow.from_x(wrong, x_t, clock) - flow.velocity(x, eps, clock)) ** 2
    assert torch.allclose(weighted, velocity)


def test_the_loss_of_vp_is_the_error_of_the_noise(pair, clock):
    x, eps = pair
    flow, clock = VP("eps"), clock.clamp_min(0.06)
    x_t = flow.interpolate(x, eps, clock)
    wrong = x + 0.1 * torch.randn_like(x)
    weighted = flow.loss_weight(clock)[..., None] * (wrong - x) ** 2
    assert torch.allclose(weighted, (flow.from_x(wrong, x_t, clock) - eps) ** 2)


@pytest.mark.parametrize("flow", FLOWS)
def test_the_loss_weight_is_constant_below_its_floor(flow):
    flow = flow(t_min=0.2)
    low, high = flow.loss_weight(torch.tensor([[1e-6], [0.2]]))
    assert torch.isfinite(low)
    most = high * flow.alpha(torch.tensor(1e-6)) ** 2 / flow.alpha(torch.tensor(0.2)) ** 2
    assert low <= most * (1 + 1e-6)  # for VP they are equal, but for rounding


def test_noise_levels_are_stratified_logit_normal():
    flow, b = RectifiedFlow(uniform=0.0, std=0.8), 256
    t = flow.sample_t(b, 0.5, torch.Generator().manual_seed(0)).double()
    z = (torch.logit(t) - 0.5) / 0.8
    quantile = 0.5 * (1 + torch.erf(z / math.sqrt(2)))
    assert torch.equal((quantile.sort().values * b).floor(), torch.arange(b).double())


def test_a_share_of_the_noise_levels_is_uniform():
    t = RectifiedFlow(uniform=1.0).sample_t(4096, 5.0, torch.Generator().manual_seed(0))
    assert torch.allclose(t.sort().values, torch.linspace(0, 1, 4096), atol=0.03)


def test_noise_levels_come_from_the_generator():
    flow = RectifiedFlow()
    a, b = (flow.sample_t(8, 0.0, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(a, b)
    assert not torch.equal(a, flow.sample_t(8, 0.0, torch.Generator().manual_seed(8)))
    assert ((a > 0) & (a < 1)).all()


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_times_run_from_noise_to_data(steps):
    times = RectifiedFlow(t_min=0.05).times(steps)
    assert len(times) == steps + 1
    assert (times[0], times[-1]) == (1, 0)
    assert (times.diff() < 0).all()
    if steps > 1:
        assert times[-2] == pytest.approx(0.05)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_shifted_times_keep_their_ends_and_the_ratio_of_the_odds(shift):
    plain, moved = RectifiedFlow(), RectifiedFlow(shift=shift)
    u, t = plain.times(9), moved.times(9)
    assert t[0] == 1 and t[-1] == 0 and torch.isclose(t[-2], u[-2])
    assert (t[:-1] >= u[:-1] - 1e-6).all()
    even = (t / (1 - t) / shift)[1:-1]
    even = even / (1 + even)
    assert torch.allclose(even.diff(), even.diff()[0].expand(len(even) - 1), atol=1e-5)


def test_an_unknown_prediction_names_the_known_ones():
    with pytest.raises(UsageError, match=r"flow\.prediction=noise.*x, eps, velocity"):
        RectifiedFlow("noise")
