"""The scores: known readings give known numbers, and intervals that know their width."""

from dataclasses import replace

import pytest
import torch

from unigen import metrics
from unigen.data.world import World, captions
from unigen.data.world.oracles import TELLS, Reading, read, truth

N = 400


def scenes(n: int = N, two: float = 0.5, part: str = "truth") -> Reading:
    """The truth of some scenes, as a perfect medium of one kind would tell it."""
    known = truth(World(seed=5, two=two).scenes(torch.arange(n)))
    told = {name: torch.full_like(getattr(known, name), -1)
            for name in metrics.CODES if name not in TELLS[part]}  # fmt: skip
    silent = {} if "event" in TELLS[part] else {"event": torch.full_like(known.event, torch.nan)}
    return replace(known, part=part, **told, **silent)


def value(draws: metrics.Draws) -> float:
    return draws.estimate()["value"]


def test_a_ratio_is_the_mean_over_valid_entries():
    correct = torch.tensor([[True, False], [False, False], [True, True]])
    valid = torch.tensor([[True, False], [True, False], [True, True]])
    assert metrics.ratio(correct, valid).estimate()["value"] == 3 / 4
    assert metrics.ratio(correct[:, 0], valid[:, 1]).n == 1


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_an_interval_of_a_share_is_as_wide_as_theory_says(share):
    right = torch.arange(N) < share * N
    found = metrics.ratio(right, torch.ones(N)).estimate()
    half = 1.96 * (share * (1 - share) / N) ** 0.5
    assert found["value"] == pytest.approx(share)
    assert found["high"] - share == pytest.approx(half, rel=0.15)
    assert share - found["low"] == pytest.approx(half, rel=0.15)


def test_an_interval_stays_within_0_and_1_and_holds_its_value():
    for right in (0, 1, N // 2, N - 1, N):
        found = metrics.ratio(torch.arange(N) < right, torch.ones(N)).estimate()
        assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1


def test_resamples_are_the_same_every_time():
    first = metrics.weights(7).clone()
    metrics.weights.cache_clear()
    assert torch.equal(first, metrics.weights(7))
    assert (first.sum(1) == 7).all()
    assert (first[0] == 1).all()


def test_parts_and_attributes_weigh_the_same():
    shares = [{"a": metrics.constant(1.0, 3), "b": metrics.constant(0.0, 3)},
              {"a": metrics.constant(0.5, 9)}]  # fmt: skip
    found = {name: value(draws) for name, draws in metrics.combine(shares).items()}
    assert found == {"a": 0.75, "b": 0.0, "mean": 0.375}


@pytest.mark.parametrize("part", ["image", "video", "audio", "text"])
def test_a_perfect_reading_scores_one_and_only_what_it_tells(part):
    found = metrics.score([metrics.compare(scenes(part=part), scenes())])
    assert set(found) == set(TELLS[part]) | {"mean", "all"}
    assert {value(draws) for draws in found.values()} == {1.0}


def test_one_wrong_attribute_costs_itself_and_all():
    read_, known = scenes(part="image"), scenes()
    color = torch.where(torch.arange(N)[:, None] % 4 == 0, (read_.color + 1) % 8, read_.color)
    wrong = replace(read_, color=torch.where(read_.color >= 0, color, -1))
    found = metrics.score([metrics.compare(read_, known), metrics.compare(wrong, known)])
    assert value(found["color"]) == pytest.approx((1 + 0.75) / 2, abs=0.02)
    assert value(found["all"]) == 0.75  # right in all parts
    assert value(found["shape"]) == 1
    assert value(found["mean"]) == pytest.approx((5 + value(found["color"])) / 6)


def test_a_caption_may_leave_out_but_a_copy_may_not():
    known = scenes(part="text")
    silent = replace(known, color=torch.full_like(known.color, -1))
    assert "color" not in metrics.score([metrics.compare(silent, known)])
    assert value(metrics.score([metrics.kept(silent, known)])["color"]) == 0
    assert value(metrics.score([metrics.kept(known, known)])["all"]) == 1


def test_agreement_is_symmetric_and_sees_a_missing_object():
    image, video = scenes(part="image"), scenes(part="video")
    lost = replace(image, count=image.count.clamp(max=1), **{
        name: torch.stack([getattr(image, name)[:, 0], torch.full((N,), -1)], 1)
        for name in ("shape", "color", "size", "position")
    })  # fmt: skip
    single = (image.count == 1).double().mean().item()
    objects = 1 / (2 - single)
    for a, b in ((lost, video), (video, lost)):
        found = metrics.score([metrics.agreement(a, b)])
        assert set(found) == {*TELLS["image"], "mean", "all"}
        assert value(found["count"]) == pytest.approx(single)
        assert value(found["shape"]) == pytest.approx(objects)
        assert value(found["all"]) == pytest.approx(single)
    assert value(metrics.score([metrics.agreement(image, video)])["all"]) == 1


def test_agreement_with_a_caption_leaves_out_what_it_leaves_out():
    image, text = scenes(part="image"), scenes(part="text")
    color = torch.where(torch.arange(N)[:, None] % 2 == 0, text.color, -1)
    for a, b in ((image, replace(text, color=color)), (replace(text, color=color), image)):
        found = metrics.score([metrics.agreement(a, b)])
        assert value(found["all"]) == 1
        assert found["color"].n == N // 2
        assert found["shape"].n == N


def test_events_coincide_within_an_eighth_of_a_second():
    video, audio = scenes(part="video"), scenes(part="audio")
    late = replace(audio, event=audio.event + torch.where(torch.arange(N) % 4 == 0, 0.13, 0.12))
    found = metrics.synchrony([video, late])
    assert value(found["event"]) == 0.75
    near = (video.event[:, None] - late.event).abs() <= 0.125
    brute = [near[i, j].item() for i in range(N) for j in range(N) if i != j]
    assert value(found["shuffled"]) == pytest.approx(sum(brute) / len(brute))
    assert metrics.synchrony([video, scenes(part="image")]) == {}
    none = replace(audio, event=torch.full_like(audio.event, torch.nan))
    assert value(metrics.synchrony([video, none])["event"]) == 0


def test_the_distance_of_data_to_itself_is_zero_and_of_a_constant_is_known():
    known = scenes()
    data = metrics.marginals(known)
    found, _ = metrics.distances(replace(known, part="image"), data)
    assert set(found) == {"count", "background", "shape", "color", "size", "position"}
    assert max(value(draws) for draws in found.values()) == pytest.approx(0, abs=1e-12)
    constant = replace(known, part="image", background=torch.zeros(N, dtype=torch.long))
    found, _ = metrics.distances(constant, data)
    assert value(found["background"]) == pytest.approx(1 - data["background"][0].item())


def test_a_medium_that_shows_nothing_is_far_from_the_data():
    image = scenes(part="image")
    empty = replace(image, count=torch.full_like(image.count, -1))
    found, _ = metrics.distances(empty, metrics.marginals(scenes()))
    assert value(found["count"]) == 1


def test_the_floor_is_the_mean_distance_of_draws_from_the_data():
    large = truth(World(seed=6, two=0.0).scenes(torch.arange(40 * 250)))
    data, distances, floors = metrics.marginals(large), [], []
    for i in range(250):
        some = replace(large[slice(40 * i, 40 * i + 40)], part="image")
        found, floor = metrics.distances(some, data, {"color": some.color >= 0})
        distances.append(value(found["color"]))
        floors.append(value(floor["color"]))
    assert sum(distances) / 250 == pytest.approx(sum(floors) / 250, rel=0.05)


def test_a_distance_looks_only_where_it_is_told_to():
    image = scenes(part="image")
    where = {"color": (torch.arange(N)[:, None] % 2 == 0) & (image.color >= 0)}
    odd = torch.where((torch.arange(N)[:, None] % 2 == 1) & (image.color >= 0), 0, image.color)
    data = metrics.marginals(image[::2])
    found, _ = metrics.distances(replace(image, color=odd), data, where)
    assert set(found) == {"color"}
    assert value(found["color"]) == pytest.approx(0, abs=1e-12)


def test_mention_rates_are_those_of_the_grammar():
    text = read("text", World(seed=5, two=0.4).batch(torch.arange(3000), ["text"])["text"])
    rates = metrics.mentions(text)
    for name, rate in captions.MENTION.items():
        assert value(rates[name]) == pytest.approx(rate, abs=0.03)
    assert value(rates["background"]) == pytest.approx(captions.MENTION_BACKGROUND, abs=0.04)
    assert value(metrics.gap(rates["size"], rates["size"])) == 0
    silent = replace(text, color=torch.full_like(text.color, -1))
    gap = metrics.gap(metrics.mentions(silent)["color"], rates["color"])
    assert value(gap) == pytest.approx(value(rates["color"]))
