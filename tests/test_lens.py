"""What the denoiser sees of noisy latents and what its answers stand for."""

import pytest
import torch
from tiny import NAMES, tiny_model

from unigen import registry
from unigen.errors import CheckpointError, UsageError
from unigen.flow import PREDICTIONS, VP, RectifiedFlow
from unigen.lens import Lens, Points

FLOWS = [RectifiedFlow(), VP(), RectifiedFlow("velocity")]


@pytest.fixture
def points():
    codes = torch.nn.functional.normalize(torch.randn(12, 4), dim=-1) * 2
    return Points(codes, count=3)


def sentence(points, ids):
    """Latents of one token a row."""
    return points.points[ids].flatten(-2)


def test_plain_latents_are_seen_as_they_are():
    lens, x_t, t = Lens(8), torch.randn(2, 5, 8), torch.rand(2, 5)
    assert lens.see(x_t, t, RectifiedFlow()) is x_t
    assert lens.width == 8


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_error_of_plain_latents_is_the_flow_loss(prediction):
    flow = RectifiedFlow(prediction)
    x, eps, t = torch.randn(2, 5, 8), torch.randn(2, 5, 8), 0.2 + 0.6 * torch.rand(2, 5)
    t[0, 0] = 0  # given: nothing to learn, whatever the answer
    x_t = flow.interpolate(x, eps, t)
    right, lens = flow.from_x(x, x_t, t), Lens(8)
    assert lens.loss(right, x, x_t, t, flow) < 1e-6
    wrong = flow.from_x(x + 0.5, x_t, t)
    wanted = (0.25 / t[t > 0].square()).sum() / t.numel()
    assert torch.allclose(lens.loss(wrong, x, x_t, t, flow), wanted, rtol=1e-3)


@pytest.mark.parametrize("flow", FLOWS)
def test_what_is_seen_is_the_posterior_of_bayes(points, flow):
    t = torch.tensor([[0.3, 0.6, 0.9]])
    x_t = torch.randn(1, 3, 12)
    seen = points.see(x_t, t, flow).unflatten(-1, (3, 12)) / 12**0.5
    mean = flow.alpha(t)[..., None, None, None] * points.points
    gap = (x_t.unflatten(-1, (3, 4))[..., None, :] - mean).square().sum(-1)
    log = -gap / (2 * flow.sigma(t).square()[..., None, None])
    assert torch.allclose(seen, log.softmax(-1), atol=1e-5)
    assert seen.shape == (1, 3, 3, 12)


@pytest.mark.parametrize("flow", FLOWS)
def test_data_are_seen_as_themselves_and_noise_tells_nothing(points, flow):
    ids = torch.randint(12, (2, 5, 3))
    seen = points.see(sentence(points, ids), torch.zeros(2, 5), flow).unflatten(-1, (3, 12))
    assert torch.equal(seen.argmax(-1), ids)
    noise = torch.randn(2, 5, 12)
    almost = points.see(noise, torch.full((2, 5), 0.9999), RectifiedFlow())
    assert torch.allclose(almost, torch.full_like(almost, 12**-0.5), atol=0.01)


@pytest.mark.parametrize("flow", FLOWS)
def test_a_sure_answer_is_its_point_and_an_open_one_the_mean(points, flow):
    ids, t = torch.randint(12, (2, 5, 3)), torch.rand(2, 5)
    sure = 50 * torch.nn.functional.one_hot(ids, 12).float().flatten(-2)
    x_t, x = torch.randn(2, 5, 12), sentence(points, ids)
    assert torch.allclose(points.data(sure, x_t, t, flow), x, atol=1e-5)
    assert points.loss(sure, x, x_t, t, flow) < 1e-5
    open_ = torch.zeros_like(sure)
    mean = points.points.mean(0).repeat(3)
    assert torch.allclose(points.data(open_, x_t, t, flow), mean.expand(2, 5, -1), atol=1e-5)
    log_12 = torch.tensor(12.0).log()
    assert torch.allclose(points.loss(open_, x, x_t, t, flow), log_12, atol=1e-5)


def test_the_next_word_counts_most_and_settled_words_nothing(points):
    ids, flow = torch.randint(12, (1, 5, 3)), RectifiedFlow()
    x, t = sentence(points, ids), torch.tensor([[0.0, 0.0, 1.0, 1.0, 1.0]])
    sure = 50 * torch.nn.functional.one_hot(ids, 12).float().flatten(-2)
    losses = []
    for wrong in range(5):
        output = sure.clone()
        output[:, wrong] = 0
        losses.append(points.loss(output, x, torch.randn_like(x), t, flow))
    weights = torch.tensor([0, 0, 1, 1 / 32, 1 / 32])
    wanted = weights / weights.sum() * torch.tensor(12.0).log()
    assert torch.allclose(torch.stack(losses), wanted, atol=1e-4)


def test_draws_follow_the_answered_probabilities(points):
    output, x_t, t = torch.randn(1, 1, 36), torch.randn(4000, 1, 12), torch.ones(4000, 1)
    drawn = points.draw(output.expand(4000, -1, -1), x_t, t, RectifiedFlow(), x_t)
    ids = points.fit(drawn).argmax(-1)
    assert torch.equal(drawn, sentence(points, ids))
    share = torch.nn.functional.one_hot(ids[:, 0], 12).float().mean(0)
    likely = output[0, 0].unflatten(0, (3, 12)).softmax(-1)
    assert (share - likely).abs().max() < 4 * 0.5 / 4000**0.5
    again = points.draw(output.expand(4000, -1, -1), x_t, t, RectifiedFlow(), x_t)
    assert torch.equal(drawn, again)


def test_numbers_are_not_drawn():
    lens, (y, x_t, eps) = Lens(8), torch.randn(3, 2, 5, 8)
    t = torch.rand(2, 5)
    for flow in FLOWS:
        assert torch.equal(lens.draw(y, x_t, t, flow, eps), lens.data(y, x_t, t, flow))


def test_unlikely_points_are_not_drawn(points):
    output, x_t, t = torch.randn(2, 5, 36), torch.randn(2, 5, 12), torch.rand(2, 5)
    likely = output.unflatten(-1, (3, 12)).softmax(-1)
    some = Points(points.points, count=3, min_p=0.3)
    for _ in range(20):
        drawn = some.draw(output, x_t, t, RectifiedFlow(), torch.randn(2, 5, 12))
        ids = points.fit(drawn).argmax(-1, keepdim=True)
        assert (likely.gather(-1, ids)[..., 0] >= 0.3 * likely.amax(-1)).all()
    best = Points(points.points, count=3, min_p=1.0).data(output, x_t, t, RectifiedFlow())
    assert torch.allclose(best, sentence(points, likely.argmax(-1)))
    x = sentence(points, torch.randint(12, (2, 5, 3)))
    loss = points.loss(output, x, x_t, t, RectifiedFlow())
    assert torch.equal(some.loss(output, x, x_t, t, RectifiedFlow()), loss)
    for wrong in (-0.1, 1.5):
        with pytest.raises(UsageError, match=f"min_p={wrong}"):
            Points(points.points, count=3, min_p=wrong)


def test_the_model_meets_every_part_through_its_lens():
    model = tiny_model()
    for name in NAMES:
        assert model.lens(name) is model.modality(name).lens
        assert model.lens(f"{name}:global") is model.modality(name).shared
        assert model.lens(f"{name}:global").width == 8
    assert isinstance(model.lens("text"), Points)
    assert isinstance(model.lens("text:question"), Points)


def test_a_width_that_does_not_fit_names_the_right_one():
    spec = tiny_model().config
    spec["denoiser"] = {**spec["denoiser"], "parts": {**spec["denoiser"]["parts"], "text": 32}}
    with pytest.raises(CheckpointError, match=r"parts.text=32.*208 numbers a token"):
        registry.build(spec)
