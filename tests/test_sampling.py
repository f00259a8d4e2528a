"""Words settle in their order, each knowing all before it."""

from itertools import pairwise

import pytest
import torch
from test_model import SEEDS, equal
from tiny import raw_batch, tiny_model

from unigen.tokens import noise


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def watched(model, monkeypatch, **options):
    """Sample text and a picture; return the result and what the network was shown every step."""
    shown, ask = [], model.denoise

    def denoise(x, t):
        shown.append((x["text"].clone(), t["text"].clone()))
        return ask(x, t)

    monkeypatch.setattr(model, "denoise", denoise)
    *_, x = model.sample(["image", "text"], {}, SEEDS, **options)
    return x, shown


@pytest.mark.parametrize("sampler", ["ancestral", "euler", "heun", "multistep", "stochastic"])
def test_a_settled_word_stays_and_the_rest_is_noise(model, monkeypatch, sampler):
    x, shown = watched(model, monkeypatch, steps=24, sampler=sampler)
    start, counts = noise("text", SEEDS, model.shape("text")), []
    for tokens, t in shown:
        done = t[0] == 0
        counts.append(int(done.sum()))
        assert torch.equal(t, (~done).float().expand(2, -1))
        assert done[: counts[-1]].all()
        assert torch.equal(tokens[:, done], x["text"][:, done])
        assert torch.equal(tokens[:, ~done], start[:, ~done])
    assert counts[0] == 0
    steps = [b - a for a, b in pairwise(counts)]
    assert min(steps) >= 0
    assert max(steps) == 1  # 24 steps for 16 words: never two at once


def test_fewer_steps_than_words_settle_some_side_by_side(model, monkeypatch):
    _, shown = watched(model, monkeypatch, steps=4)
    counts = [int((t[0] == 0).sum()) for _, t in shown]
    assert counts == sorted(counts)
    assert max(b - a for a, b in pairwise(counts)) > 1


@pytest.mark.parametrize(("want", "even"), [(["image", "text"], True), (["image", "audio"], False)])
def test_a_shift_leaves_the_clocks_of_words_even(model, monkeypatch, want, even):
    seen, ask = [], model.denoise

    def denoise(x, t):
        seen.append(t["image"].max())
        return ask(x, t)

    monkeypatch.setattr(model, "denoise", denoise)
    monkeypatch.setattr(model.flow, "shift", 3.0)
    for _ in model.sample(want, {}, SEEDS, steps=6, sampler="euler"):
        pass
    times = model.flow.times(6, even=even)[:-1]
    assert torch.equal(torch.stack(seen), times)
    assert not torch.allclose(times, model.flow.times(6, even=not even)[:-1])


def test_every_word_of_a_sample_is_a_point(model, monkeypatch):
    x, _ = watched(model, monkeypatch, steps=3)
    lens = model.modality("text").lens
    assert torch.equal(x["text"], lens.points[lens.fit(x["text"]).argmax(-1)].flatten(-2))


def test_later_words_listen_to_earlier_ones(model):
    """Keep the first word: another first word changes what follows."""
    kept = torch.zeros(model.shape("text")[0])
    kept[0] = 1
    points, made = model.modality("text").lens.points, []
    for first in (3, 4):
        given = {"text": points[torch.full((2, len(kept), 2), first)].flatten(-2)}
        *_, x = model.sample(["text"], given, SEEDS, steps=24, keep={"text": kept})
        assert torch.equal(x["text"][:, 0], given["text"][:, 0])
        made.append(x["text"][:, 1:])
    assert not torch.equal(*made)


def test_words_are_a_function_of_the_seed(model):
    def words(seeds):
        *_, x = model.sample(["text"], given(seeds), seeds, steps=3)
        return x

    raw = raw_batch(1)
    with torch.no_grad():
        one = {"image": model.encode({"image": raw["image"]})["image"]}

    def given(seeds):
        return {"image": one["image"].expand(len(seeds), -1, -1)}

    together, alone = words([5, 6, 7]), words([6])
    assert torch.equal(together["text"][1:2], alone["text"])
    assert equal(words([5, 6]), words([5, 6]))


@pytest.mark.parametrize(("kept", "waiting"), [(False, {"text"}), (True, {"text", "image"})])
def test_points_wait_where_tokens_decide_what_is_shown(model, monkeypatch, kept, waiting):
    want, shown, ask = ["image", "text", "audio"], [], model.denoise
    given = model.encode({"image": raw_batch(2)["image"]}) if kept else {}
    keep = {"image": torch.tensor([1.0, 1.0, 0.0, 0.0])} if kept else {}

    def denoise(x, t):
        shown.append((x, t))
        return ask(x, t)

    monkeypatch.setattr(model, "denoise", denoise)
    *_, x = model.sample(want, given, SEEDS, steps=5, keep=keep, sampler="multistep")
    clocks = {name: [t[f"{name}:global"].amax().item() for _, t in shown] for name in want}
    for name in want:
        assert clocks[name] == ([1.0] * 5 if name in waiting else sorted(clocks["audio"])[::-1])
        start = noise(f"{name}:global", SEEDS, model.shape(f"{name}:global"))
        same = [torch.equal(tokens[f"{name}:global"], start) for tokens, _ in shown]
        assert all(same) == (name in waiting)
        assert not torch.equal(x[f"{name}:global"], start)  # what it is of, it is in the end
    assert min(clocks["audio"]) < 1
