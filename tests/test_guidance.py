"""Guidance: 1 is off, nothing given is off, one weight is the weight of all."""

import pytest
import torch

from unigen.errors import UsageError
from unigen.guidance import guided

GIVEN = {"text": torch.ones(2, 1, 3), "text:global": torch.ones(2, 1, 3),
         "audio": torch.full((2, 1, 3), 2.0)}  # fmt: skip
X = {"image": torch.zeros(2, 4, 3)}
T = torch.tensor(0.5)


def denoise(t, asked):
    """Predict the sum of the conditions, times 10 for audio."""
    totals = [sum((10 if p == "audio" else 1) * float(z.mean()) for p, z in fixed.items())
              for _, fixed in asked]  # fmt: skip
    return [{k: torch.full_like(z, 1 + total) for k, z in x.items()}
            for (x, _), total in zip(asked, totals, strict=True)]  # fmt: skip


def level(guidance, given=GIVEN, t=T, interval=(0.0, 1.0)):
    return guided(denoise, given, guidance, {"image"}, interval)(X, t)["image"].unique().item()


def test_one_is_off():
    assert level(1.0) == level({}) == level({"text": 1.0, "audio": 1}) == 23


def test_nothing_given_is_off():
    assert level(5.0, given={}) == 1


def test_one_weight_moves_from_unconditional_through_conditional():
    assert level(3.0) == 1 + 3 * 22
    assert level(0.0) == 1


def test_weights_by_part_leave_out_the_part_and_its_global():
    assert level({"text": 3.0}) == 23 + 2 * 2
    assert level({"audio": 3.0}) == 23 + 2 * 20
    assert level({"text": 2.0, "audio": 3.0}) == 23 + 2 + 40


def test_one_given_part_by_name_is_one_weight():
    given = {"audio": GIVEN["audio"]}
    assert level({"audio": 2.5}, given) == level(2.5, given)


def test_what_is_negative_stands_in_the_place_of_what_is_left_out():
    away = {"text": torch.full((2, 1, 3), 7.0)}

    def level(guidance, given=GIVEN, negative=away):
        answers = guided(denoise, given, guidance, {"image"}, negative=negative)
        return answers(X, T)["image"].unique().item()

    assert level(3.0) == 23 + 2 * (23 - 8)  # alone it says 1 + 7
    assert level({"audio": 3.0}) == 23 + 2 * 20  # text is not left out, so nothing stands there
    assert level({"text": 3.0}) == 23 + 2 * (23 - 28)  # sound and the other words: 1 + 20 + 7
    assert level(3.0, given={}) == 1 + 2 * (1 - 8)
    assert level({"text": 3.0}, given={}) == level(3.0, given={})
    assert level(3.0, negative=GIVEN) == level(1.0) == 23  # away from itself: nowhere


def test_guidance_acts_in_its_interval_only():
    levels = [level(3.0, t=torch.tensor(t), interval=(0.3, 0.9)) for t in (0.29, 0.31, 0.89, 0.91)]
    assert levels == [23, 67, 67, 23]


def test_off_costs_one_pass():
    calls = []

    def counted(t, asked):
        calls.extend(set(fixed) for _, fixed in asked)
        return denoise(t, asked)

    guided(counted, GIVEN, 1.0, {"image"})(X, T)
    assert calls == [set(GIVEN)]
    guided(counted, GIVEN, {"text": 2.0}, {"image"})(X, T)
    assert calls[1:] == [set(GIVEN), {"audio"}]


def test_it_leaves_other_parts_alone():
    both = {**X, "text:answer": torch.zeros(2, 1, 3)}
    made = guided(denoise, GIVEN, 3.0, {"image"})(both, T)
    assert (made["image"] == 67).all() and (made["text:answer"] == 23).all()
    assert (guided(denoise, GIVEN, 3.0, set())(X, T)["image"] == 23).all()


def test_a_weight_for_what_is_not_given_is_an_error():
    with pytest.raises(UsageError, match=r"guidance\.video .*audio, text"):
        level({"video": 2.0})
