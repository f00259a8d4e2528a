"""The one network: any set of parts, a clock for each token, no sample sees its batch."""

import pytest
import torch
from tiny import NAMES, tiny_model

from unigen.errors import UsageError
from unigen.uvit import UViT


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def batch(model, b=3, seed=0, names=NAMES):
    generator = torch.Generator().manual_seed(seed)
    x = {}
    for name in names:
        shape = (b, model.modality(name).tokens, model.lens(name).width)
        x[name] = torch.randn(shape, generator=generator)
        x[f"{name}:global"] = torch.randn(b, 1, 8, generator=generator)
    t = {p: torch.rand(z.shape[:2], generator=generator) for p, z in x.items()}
    return x, t, model.positions(x)


@torch.no_grad()
def run(model, x, t, positions):
    return model.denoiser(x, t, positions)


def test_permuting_keys_changes_nothing(model):
    x, t, positions = batch(model)
    first = run(model, x, t, positions)
    order = list(x)[::-1]
    again = run(model, *({p: d[p] for p in order} for d in (x, t, positions)))
    assert all(torch.equal(first[p], again[p]) for p in order)
    assert {p: z.shape for p, z in first.items()} == {p: z.shape for p, z in x.items()}


def test_an_absent_part_is_a_part_never_heard_of(model):
    names = ("image", "text")
    heard = batch(model, names=names)
    torch.manual_seed(0)
    parts = {p: w for p, w in model.denoiser.parts.items() if p.partition(":")[0] in names}
    smaller = UViT(parts, width=32, depth=3, head=16)
    smaller.load_state_dict({k: v for k, v in model.denoiser.state_dict().items()
                             if k in smaller.state_dict()})  # fmt: skip
    with torch.no_grad():
        a, b = model.denoiser(*heard), smaller(*heard)
    assert all(torch.equal(a[p], b[p]) for p in a)


def test_a_present_part_is_heard(model):
    x, t, positions = batch(model)
    fewer = {p: z for p, z in x.items() if not p.startswith("audio")}
    a, b = run(model, x, t, positions), run(model, fewer, t, positions)
    assert all((a[p] - b[p]).abs().max() > 1e-4 for p in fewer)


def test_samples_do_not_see_each_other(model):
    x, t, positions = batch(model)
    whole = run(model, x, t, positions)
    for i in range(3):
        one = ({p: z[i : i + 1] for p, z in d.items()} for d in (x, t))
        alone = run(model, *one, positions)
        for p in x:
            assert torch.allclose(alone[p], whole[p][i : i + 1], atol=1e-5)
    other = {p: torch.cat([z[:1], 9 * torch.randn_like(z[1:])]) for p, z in x.items()}
    changed = run(model, other, t, positions)
    assert all(torch.equal(changed[p][:1], whole[p][:1]) for p in x)


def test_one_sample_gives_the_same_bits_again(model):
    x, t, positions = batch(model, b=1)
    assert all(torch.equal(a, b) for a, b in zip(run(model, x, t, positions).values(),
                                                 run(model, x, t, positions).values(),
                                                 strict=True))  # fmt: skip


def test_every_token_has_its_own_clock(model):
    x, t, positions = batch(model, b=1)
    t = {p: c.clamp(max=0.9) for p, c in t.items()}
    t["image"][0, 0] = 0.95  # the part's highest clock stays where it is
    before = run(model, x, t, positions)
    for token in (1, 3):
        moved = {**t, "image": t["image"].clone()}
        moved["image"][0, token] = 0.1 + 0.5 * moved["image"][0, token]
        after = run(model, x, moved, positions)
        change = (after["image"] - before["image"]).abs().amax(-1)[0]
        assert change.argmax() == token
        assert change[token] > 1e-3


def test_positions_matter(model):
    x, t, positions = batch(model, b=1)
    later = {**positions, "audio": positions["audio"] + torch.tensor([0.5, 0, 0])}
    a, b = run(model, x, t, positions), run(model, x, t, later)
    assert (a["audio"] - b["audio"]).abs().max() > 1e-4


def test_gradients_reach_clocks_and_every_used_weight(model):
    x, t, positions = batch(model)
    t = {p: c.requires_grad_() for p, c in t.items()}
    sum(y.square().sum() for y in model.denoiser(x, t, positions).values()).backward()
    assert all(c.grad.abs().min() > 0 for c in t.values())
    silent = [n for n, p in model.denoiser.named_parameters() if not p.grad.abs().max() > 0]
    model.denoiser.zero_grad()
    assert not silent


def test_a_new_network_predicts_zero():
    net = UViT({"image": 4}, width=16, depth=3, head=16)
    y = net({"image": torch.randn(1, 2, 4)}, {"image": torch.rand(1, 2)},
            {"image": torch.rand(2, 3)})  # fmt: skip
    assert (y["image"] == 0).all()


def test_a_network_can_be_made_half_precise():
    net = UViT({"image": 4}, width=16, depth=3, head=16).half()
    assert {p.dtype for p in net.parameters()} == {torch.float16}


def test_an_unknown_part_names_itself_and_the_known_ones(model):
    x, t, positions = batch(model, names=("image",))
    x, t, positions = ({**d, "depth": d["image"]} for d in (x, t, positions))
    with pytest.raises(UsageError, match=r"no part 'depth'; it knows audio, audio:global"):
        model.denoiser(x, t, positions)
