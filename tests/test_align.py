"""The shared space: pairs attract, strangers repel, an anchor stands still."""

import pytest
import torch
from tiny import NAMES, tiny_model

from unigen.align import Similarity, contrastive, recall
from unigen.errors import UsageError
from unigen.objectives import Align


def points(n=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(n, 8, generator=generator) for name in NAMES}


def test_the_loss_of_one_pair_is_the_sigmoid_loss():
    a, b, same = torch.tensor([[3.0, 4]]), torch.tensor([[4.0, 3]]), torch.eye(1)
    expected = torch.log1p(torch.exp(torch.tensor(-(10 * 0.96 - 10))))
    assert torch.allclose(Similarity()(a, b, same), expected)
    assert torch.allclose(Similarity()(a, b, 1 - same), torch.log1p(torch.exp(torch.tensor(-0.4))))


def test_the_lengths_of_points_do_not_matter():
    e = points()
    longer = {n: z * 7 for n, z in e.items()}
    a, b = contrastive(e, Similarity()), contrastive(longer, Similarity())
    assert all(torch.allclose(a[k], b[k]) for k in a)


def test_pairs_attract_and_strangers_repel():
    e = points()["image"].double()
    same, shuffled = ({"image": e, "text": z} for z in (e, e.flip(0)))
    assert (
        contrastive(same, Similarity())["image-text"]
        < contrastive(shuffled, Similarity())["image-text"]
    )
    a, b = e[:2].clone().requires_grad_(), e[2:4]
    contrastive({"a": a, "b": b}, Similarity())["a-b"].backward()
    moved = torch.nn.functional.normalize(a - 0.01 * a.grad, dim=-1).detach()
    before = torch.nn.functional.normalize(a, dim=-1).detach()
    target = torch.nn.functional.normalize(b, dim=-1)
    assert ((moved - before) * target).sum(1).min() > 0


def test_every_pair_or_the_pairs_with_the_anchor():
    assert len(contrastive(points(), Similarity())) == 6
    assert set(contrastive(points(), Similarity(), "text")) == {
        "audio-text", "image-text", "text-video",
    }  # fmt: skip


def test_order_of_names_does_not_matter():
    e = points()
    a, b = contrastive(e, Similarity()), contrastive(dict(reversed(e.items())), Similarity())
    assert a == b


def test_recall_counts_what_finds_its_own():
    e = torch.eye(4)
    assert recall(e, 5 * e) == 1
    assert recall(e, e.flip(0)) == 0
    assert recall(e, e[[0, 1, 3, 2]]) == 0.5


def test_an_anchor_does_not_learn():
    model = tiny_model()
    assert set(dict(Align("text").module(model).named_children())) == {*NAMES, "similarity"} - {
        "text"
    }
    assert set(dict(Align().module(model).named_children())) == {*NAMES, "similarity"}


def test_an_unknown_anchor_is_an_error():
    with pytest.raises(UsageError, match="'txt'"):
        Align("txt").module(tiny_model())
