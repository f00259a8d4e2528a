"""The process of UniDiffuser: the table of diffusers at whole steps, log-linear between them."""

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler

from unigen.interop.unidiffuser.schedule import DiscreteVP
from unigen.sampler import SAMPLERS

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def clocks(*steps):
    return torch.tensor(steps) / 1000


def test_whole_steps_are_the_table_of_diffusers():
    bars = DPMSolverMultistepScheduler(**BETAS).alphas_cumprod
    flow, t = DiscreteVP(), torch.arange(1, 1001) / 1000
    assert torch.allclose(flow.alpha(t), bars.sqrt(), atol=1e-6)
    assert torch.allclose(flow.sigma(t), (1 - bars).sqrt(), atol=1e-5)
    assert flow.alpha(clocks(0)) == 1
    assert flow.sigma(clocks(0)) == 0


def test_between_two_steps_the_logarithm_is_linear():
    flow = DiscreteVP()
    low, middle, high = (flow.alpha(clocks(n)).log() for n in (980.0, 980.25, 981.0))
    assert torch.allclose(middle, 0.75 * low + 0.25 * high, atol=1e-6)


@pytest.mark.parametrize("prediction", ["x", "eps", "velocity"])
def test_conversions_invert(prediction):
    flow = DiscreteVP(prediction)
    x, eps = torch.randn(2, 7, 3, dtype=torch.float64), torch.randn(2, 7, 3, dtype=torch.float64)
    t = torch.tensor([0.02, 0.1, 0.3, 0.5, 0.7005, 0.9, 0.999], dtype=torch.float64).expand(2, -1)
    x_t = flow.interpolate(x, eps, t)
    assert torch.allclose(flow.to_x(flow.from_x(x, x_t, t), x_t, t), x, atol=1e-9)


def test_slopes_are_those_of_the_curves():
    flow, t = DiscreteVP(), torch.tensor([0.1505, 0.5005, 0.9005], dtype=torch.float64)
    step = 1e-5
    for curve, slope in zip((flow.alpha, flow.sigma), flow.slopes(t), strict=True):
        assert torch.allclose((curve(t + step) - curve(t - step)) / (2 * step), slope, rtol=1e-4)


def test_the_original_stops_a_thousandth_before_the_data_at_even_times():
    flow, told = DiscreteVP(end=0.001), []
    times = flow.times(50)
    assert torch.allclose(1000 * times[:4], torch.tensor([1000, 980.02, 960.04, 940.06]))
    assert times[-1] == pytest.approx(0.001)

    def denoise(x, t):
        told.append(t)
        return x

    x = {"image": torch.randn(1, 2, 3)}
    assert len(list(SAMPLERS["singlestep"](denoise, x, flow, times))) == 50
    assert torch.equal(torch.stack(told), times[:-1])  # every time of the grid is asked for once
