"""The clocks of training: every direction of generation is among them."""

from functools import cache

import torch
from tiny import NAMES, tiny_model

from unigen.flow import DECIDED
from unigen.presence import (
    CONDITIONAL,
    INDEPENDENT,
    OFTEN,
    PARTLY_KEPT,
    POINT_KEPT,
    TOGETHER,
    draw_clocks,
    settled,
)
from unigen.tokens import GLOBAL, modality_of, role_of


@cache
def cached_model():
    return tiny_model()


def draw(names=NAMES, b=512, seed=0, ordered=(), **often):
    model = cached_model()
    parts = [p for n in names for p in (n, f"{n}:{GLOBAL}")]
    x = {p: torch.zeros(b, 1 if role_of(p) else model.modality(p).tokens, 8) for p in parts}
    means = {p: 0.0 for p in parts}
    generator = torch.Generator().manual_seed(seed)
    return draw_clocks(model.flow, x, model.positions(x), means, ordered, generator, **often)


def level(clocks, name):
    """Return the clock of a modality whose tokens are not ordered, whatever of it is kept."""
    return torch.cat([clocks[name], clocks[f"{name}:{GLOBAL}"]], 1).amax(1)


def test_every_token_has_a_clock_between_data_and_noise():
    clocks = draw()
    assert set(clocks) == {p for n in NAMES for p in (n, f"{n}:{GLOBAL}")}
    for t in clocks.values():
        assert ((t >= 0) & (t < 1)).all()


def test_clocks_come_from_the_generator():
    a, b, c = draw(seed=1), draw(seed=1), draw(seed=2)
    assert all(torch.equal(a[p], b[p]) for p in a)
    assert not any(torch.equal(a[p], c[p]) for p in a)


def test_something_is_always_learned():
    for names in (NAMES, ("image", "text"), ("audio",)):
        clocks = draw(names)
        assert (torch.cat(list(clocks.values()), 1).amax(1) > 0).all()
        for t in clocks.values():  # a region never takes all the tokens
            assert ((t > 0).any(1) | (t == 0).all(1)).all()


def test_one_modality_alone_is_never_given():
    assert (draw(("video",))["video"].amax(1) > 0).all()


def test_a_part_has_one_clock_but_for_what_is_kept():
    clocks = draw()
    for part, t in clocks.items():
        top = level(clocks, modality_of(part))[:, None]
        assert ((t == top) | (t == 0)).all()


def test_some_parts_keep_a_region():
    partly = {p: ((t > 0).any(1) & (t == 0).any(1)).float().mean() for p, t in draw().items()}
    for part, share in partly.items():
        assert (share == 0) if role_of(part) == GLOBAL else (0.01 < share < PARTLY_KEPT), part
    words = draw(ordered=["text"])["text"]
    assert (words[:, 1:] >= words[:, :-1]).all()  # of words only a beginning is settled


def test_a_modality_alone_is_conditional_by_a_region_of_its_own():
    t = draw(("video",), b=4096)["video"]
    partly = ((t > 0).any(1) & (t == 0).any(1)).float().mean()
    assert abs(partly - CONDITIONAL) < 0.04


def test_some_keep_their_point_of_the_shared_space():
    clocks = draw(("video",), b=4096)
    kept = (clocks[f"video:{GLOBAL}"][:, 0] == 0) & (clocks["video"].amax(1) > 0)
    assert abs(kept.float().mean() - POINT_KEPT) < 0.02


def test_ordered_tokens_are_settled_from_the_first_on():
    together, t = draw(b=4096)["text"], draw(b=4096, ordered=["text"])["text"]
    apart = ((t == 0) | (t == 1)).all(1) & (t > 0).any(1)
    open_ = (together > 0).any(1)
    assert abs(apart.float().sum() / open_.sum() - (1 - TOGETHER)) < 0.05
    assert set((t[apart] == 0).sum(1).tolist()) == set(range(t.shape[1]))


def test_words_wait_for_what_is_made_beside_them():
    clocks = draw(b=4096, ordered=["text"])
    words, own = clocks["text"], clocks[f"text:{GLOBAL}"][:, 0]
    others = torch.stack([level(clocks, n) for n in NAMES if n != "text"], 1)
    beside = (others == own[:, None]).any(1)
    early = ((words == 0) | (words == 1)).all(1) & (own > DECIDED) & (own < 0.85)
    begun = (words == 0).any(1)
    assert not begun[early & beside].any()
    assert begun[early & ~beside].all()


def test_the_settled_share_is_what_the_clock_has_run():
    assert settled(torch.tensor(1.0), 8).sum() == 0
    assert settled(torch.tensor(0.0), 8).all()
    for n in range(9):
        mask = settled(torch.tensor(1 - n / 8), 8)
        assert mask.sum() == n and mask[:n].all()
    assert settled(torch.tensor([0.0, 0.5]), 8).sum(1).tolist() == [8, 4]


def test_every_set_of_given_modalities_appears():
    clocks = draw(b=4096)
    given = torch.stack([clocks[n].amax(1) == 0 for n in NAMES], 1)
    assert len({tuple(row) for row in given.tolist()}) == 2 ** len(NAMES) - 1


def test_shares_of_joint_and_independent_clocks():
    levels = torch.stack([level(draw(b=4096), n) for n in NAMES], 1)
    joint = (levels == levels[:, :1]).all(1).float().mean()
    distinct = torch.tensor([len(set(row)) == 4 and 0 not in row for row in levels.tolist()])
    assert abs(joint - (1 - CONDITIONAL - INDEPENDENT)) < 0.04
    assert abs(distinct.float().mean() - INDEPENDENT) < 0.04


def test_what_a_run_asks_to_be_given_is_given_most_of_the_time():
    often = {"conditional": 0.9, "given": ["text"]}
    for seed in range(3):
        usual, asked = draw(b=4096, seed=seed), draw(b=4096, seed=seed, **often)
        before, after = ({n: float((level(c, n) < 0.3).float().mean()) for n in NAMES}
                         for c in (usual, asked))  # fmt: skip
        assert max(before.values()) - min(before.values()) < 0.05
        assert after["text"] > 0.75 > before["text"] + 0.3
        assert all(after[n] < before[n] - 0.1 for n in NAMES if n != "text")
        rest = torch.stack([level(asked, n) for n in NAMES if n != "text"], 1)
        alone = (level(asked, "text") < 0.3) & (rest == rest[:, :1]).all(1)
        assert alone.float().mean() > 0.5


def test_directions_that_are_asked_for_are_taken_most_of_the_time():
    ways = [(["text", "image"], 0.3), ([], 0.1)]
    levels = torch.stack([level(draw(b=4096, ways=ways), n) for n in NAMES], 1)
    told = torch.tensor([n in ("text", "image") for n in NAMES])
    rest = levels[:, ~told]
    given = (levels[:, told] < 0.3).all(1) & (rest == rest[:, :1]).all(1) & (rest > 0).all(1)
    joint = (levels == levels[:, :1]).all(1)
    assert abs(given.float().mean() - OFTEN * 0.75) < 0.06
    assert abs(joint.float().mean() - OFTEN * 0.25) < 0.06
    kept = draw(b=4096, ways=ways)["image"]
    assert (kept[given] == 0).all(1).float().mean() > 0.8  # the others are a little noisy


def test_no_directions_draw_what_was_drawn_without_them():
    plain, none = draw(seed=3), draw(seed=3, ways=[])
    assert all(torch.equal(plain[p], none[p]) for p in plain)


def test_the_share_of_conditional_samples_leaves_the_others_in_proportion():
    levels = torch.stack([level(draw(b=4096, conditional=0.1), n) for n in NAMES], 1)
    joint = (levels == levels[:, :1]).all(1).float().mean()
    kinds = 0.9 * (1 - CONDITIONAL - INDEPENDENT) / (1 - CONDITIONAL)
    assert abs(joint - kinds) < 0.04
