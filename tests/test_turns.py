"""Parts that are wanted together may take turns: each is made knowing those before it."""

import json

import pytest
import torch
from test_model import SEEDS, equal
from tiny import NAMES, raw_batch, tiny_model

from unigen.cli import main
from unigen.errors import UsageError
from unigen.sampling import passed_on
from unigen.tokens import modality_of
from unigen.turns import Turn, turns

ORDER = ["image", "audio", "video", "text"]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def last(states):
    *_, x = states
    return x


def test_without_an_order_all_walk_together():
    assert turns(["video", "text"], 7) == [Turn(["video", "text"], 7)]


def test_a_turn_of_several_has_half_of_the_steps_and_words_have_all():
    assert turns(NAMES, 40, ORDER, ordered={"text"}) == [
        Turn(["image"], 20), Turn(["audio"], 20), Turn(["video"], 20), Turn(["text"], 40)
    ]  # fmt: skip
    assert turns(["text"], 40, ORDER, ordered={"text"}) == [Turn(["text"], 40)]
    assert turns(["video", "image"], 9, ORDER) == [Turn(["image"], 5), Turn(["video"], 5)]
    assert [t.steps for t in turns(["video", "image", "audio"], 1, ORDER)] == [1, 1, 1]


def test_what_the_order_leaves_out_comes_last_and_together():
    made = turns(["depth", "video", "image", "text"], 8, ["image"], ordered={"text"})
    assert made == [Turn(["image"], 4), Turn(["depth", "video", "text"], 4)]


def test_what_is_kept_in_part_comes_first():
    made = turns(["image", "audio", "video"], 8, ORDER, kept={"video"})
    assert [t.parts for t in made] == [["video"], ["image"], ["audio"]]
    made = turns(["image", "audio", "video"], 8, ORDER, kept={"video", "audio"})
    assert [t.parts for t in made] == [["audio", "video"], ["image"]]


def test_each_turn_is_a_walk_that_is_given_what_was_made(model):
    given = model.encode({"text": raw_batch(2)["text"]})
    together = last(model.sample(["audio", "image"], given, SEEDS, steps=7, order=ORDER))
    image = last(model.sample(["image"], given, SEEDS, steps=4))
    as_given = {**given, **passed_on(model, image)}
    audio = last(model.sample(["audio"], as_given, SEEDS, steps=4))
    assert equal(together, {**image, **audio})
    alone = last(model.sample(["audio"], given, SEEDS, steps=4))
    assert not torch.equal(together["audio"], alone["audio"])


def test_what_was_made_is_passed_on_with_the_point_of_its_latents(model, monkeypatch):
    raw = raw_batch(2)
    right = model.encode({p: raw[p] for p in ("image", "audio")})
    drifted = {p: z + (":" in p) for p, z in right.items()}
    assert equal(passed_on(model, drifted), right)
    kept = passed_on(model, drifted, keep=["image:global"])
    assert equal(kept, {**right, "image:global": drifted["image:global"]})
    monkeypatch.setattr(type(model.modality("audio")), "point", lambda self, raw, z: raw)
    own = passed_on(model, drifted)
    assert equal(own, {**right, "audio:global": drifted["audio:global"]})
    assert equal(passed_on(model, {"image": right["image"]}), {"image": right["image"]})


def test_who_waits_is_noise_and_who_is_done_stays(model):
    states = list(model.sample(ORDER, {}, SEEDS, steps=4, order=ORDER))
    assert len(states) == 2 + 2 + 2 + 4
    for step, x in enumerate(states):
        assert {modality_of(p) for p in x} == set(NAMES)
        for part, (first, end) in zip(ORDER, [(0, 2), (2, 4), (4, 6), (6, 10)], strict=True):
            assert torch.equal(x[part], model.prior(part, SEEDS)) == (step < first)
            assert torch.equal(x[part], states[-1][part]) == (step >= end - 1)


def test_parts_that_guide_or_ignore_each_other_take_no_turns(model):
    for options in ({"mutual_guidance": 2.0}, {"joint": False}):
        plain, turned = (
            last(model.sample(["image", "audio"], {}, SEEDS, steps=3, order=order, **options))
            for order in ((), ORDER)
        )
        assert equal(plain, turned)


def test_a_kept_stretch_stays_and_the_sound_goes_with_it(model):
    raw = {"video": raw_batch(1)["video"]}
    (made,) = model.generate(["video", "audio"], raw, keep={"video": "0:1"}, order=ORDER, steps=4)
    (alone,) = model.generate(["video"], raw, keep={"video": "0:1"}, steps=2)
    assert torch.equal(made["video"], alone["video"])
    assert made.recipe["order"] == ORDER


def test_an_order_of_unknown_parts_is_refused(model):
    with pytest.raises(UsageError, match="unknown modality 'smell'"):
        model.generate(["image", "audio"], {}, order=["smell"])


@pytest.mark.parametrize("verb", ["generate", "evaluate"])
def test_an_order_that_is_no_list_is_refused(verb, tmp_path, capsys):
    assert main([verb, "order=image", f"out={tmp_path}"]) == 2
    assert "order=image is no list" in capsys.readouterr().err


def test_the_model_says_the_order_and_a_call_another(model, monkeypatch, tmp_path):
    monkeypatch.setitem(model.sampling, "order", ORDER)
    want, text = ["image", "audio"], {"text": "a red ring"}
    (own,), (together,) = (model.generate(want, text, order=order) for order in (None, []))
    assert (own.recipe["order"], together.recipe["order"]) == (ORDER, [])
    assert not torch.equal(own["audio"], together["audio"])
    (free,), (asked,) = (model.generate(want, {}, order=order) for order in (None, ORDER))
    assert (free.recipe["order"], asked.recipe["order"]) == ([], ORDER)  # nothing given: together
    model.save_pretrained(tmp_path / "tiny")
    where = [f"model={tmp_path / 'tiny'}", f"out={tmp_path / 'out'}"]
    assert main(["generate", "a red ring", "want=[image,audio]", "order=[audio]", *where]) == 0
    recipe = json.loads((tmp_path / "out" / "audio_0.wav.json").read_text())
    assert recipe["order"] == ["audio"]
