"""One loop for every objective: it learns, changes only what it says, and resumes exactly."""

import copy
from itertools import pairwise

import pytest
import torch
from tiny import NAMES, tiny_model, tiny_spec, tiny_world

from unigen import registry
from unigen.data.latents import Latents
from unigen.errors import CheckpointError, ResourceError, UsageError
from unigen.objectives import Align, Codec, Denoise
from unigen.optim import averaged, optimizers, schedule
from unigen.runs import latest_step, load_step, save_step
from unigen.train import Trainer, export, run
from unigen.trainer import LEAST, counted

OBJECTIVES = {
    "codec": lambda: Codec("image"),
    "video": lambda: Codec("video", cached=True),
    "align": lambda: Align("text"),
    "denoise": Denoise,
}
_LATENTS = {}


def fresh():
    torch.manual_seed(0)
    return registry.build(tiny_spec())


def data_for(objective, model):
    if not objective.cached:
        return tiny_world()
    kind = type(objective).__name__
    if kind not in _LATENTS:
        _LATENTS[kind] = Latents(tiny_model(), objective, tiny_world(), 24)
    return _LATENTS[kind]


def trainer_of(name, model=None, **options):
    model, objective = model or fresh(), OBJECTIVES[name]()
    options = {"steps": 6, "batch": 4, "warmup": 2, "lr": 1e-3, **options}
    return Trainer(model, objective, data_for(objective, model), **options)


def weights(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


@pytest.mark.parametrize(("made", "wanted"), [(None, 0.02), (0.02, None)])
def test_a_checkpoint_of_other_optimizers_is_refused(made, wanted):
    saved = trainer_of("denoise", muon_lr=made)
    saved.train_step()
    with pytest.raises(CheckpointError, match=r"optimizers have .* go on with"):
        trainer_of("denoise", muon_lr=wanted).load_state(*saved.state())


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def hexes(losses):
    return {k: v.hex() for k, v in losses.items()}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_saved_and_resumed_is_never_stopped(name, tmp_path):
    straight = trainer_of(name)
    expected = [hexes(straight.train_step()) for _ in range(6)]
    first = trainer_of(name)
    got = [hexes(first.train_step()) for _ in range(3)]
    save_step(tmp_path, first.step, *first.state())
    second = trainer_of(name, tiny_model(seed=9))  # other weights, to be replaced
    second.load_state(*load_step(latest_step(tmp_path).folder))
    assert second.step == 3
    torch.manual_seed(12345)  # nothing depends on the global generator
    got += [hexes(second.train_step()) for _ in range(3)]
    assert got == expected
    (a, meta_a), (b, meta_b) = straight.state(), second.state()
    assert meta_a == meta_b
    assert a.keys() == b.keys()
    for group in a:
        assert equal(a[group], b[group]), group


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_changes_what_learns_and_nothing_else(name):
    trainer = trainer_of(name)
    before = weights(trainer.model)
    for _ in range(2):
        trainer.train_step()
    changed = {k for k, v in trainer.model.state_dict().items() if not torch.equal(v, before[k])}
    prefixes = {
        "codec": ("modalities.image.",),
        "video": ("modalities.video.",),
        "align": tuple(f"modalities.{n}.tower." for n in NAMES if n != "text"),
        "denoise": ("denoiser.",),
    }[name]
    assert changed
    assert all(k.startswith(prefixes) for k in changed)
    if name != "align":
        assert not any(".tower." in k for k in changed)
    for prefix in prefixes:
        assert any(k.startswith(prefix) for k in changed)


def test_a_dynamic_alignment_moves_every_tower():
    trainer = Trainer(fresh(), Align(), data_for(Align(), None), steps=2, batch=4, warmup=1)
    before = weights(trainer.model)
    trainer.train_step()
    changed = {k for k, v in trainer.model.state_dict().items() if not torch.equal(v, before[k])}
    assert all(any(k.startswith(f"modalities.{n}.tower.") for k in changed) for n in NAMES)


def test_presence_sets_are_a_function_of_seed_and_step():
    model, denoise = tiny_model(), Denoise()

    def sets(seed):
        return [tuple(denoise.parts(model, torch.Generator().manual_seed(seed + step)))
                for step in range(300)]  # fmt: skip

    assert sets(0) == sets(0)
    assert sets(0)[100:200] == sets(100)[:100]
    drawn = sets(0)
    assert len(set(drawn)) == 15
    for size, share in enumerate(denoise.shares, 1):
        assert sum(len(s) == size for s in drawn) / 300 == pytest.approx(share, abs=0.08)


def test_shares_are_numbers_of_which_some_set_has_one():
    model, rng = tiny_model(), torch.Generator().manual_seed(0)
    assert {len(Denoise(shares=[0, 1]).parts(model, rng)) for _ in range(20)} == {2}
    for wrong in ([0, 0], [], [-1, 2], [float("nan")]):
        with pytest.raises(UsageError, match=r"^objective\.shares=.* type numbers"):
            Denoise(shares=wrong)
    pairs = Denoise(shares=[0, 1])
    with pytest.raises(UsageError, match=r"shows no set of up to 1 modalities, .* above 0\.$"):
        pairs.parts(model, rng, ["image"])
    assert pairs.usable(["image", "text"])
    assert not pairs.usable(["image"])  # an item of it alone is left out from the start


def test_what_is_to_be_given_is_known_and_its_share_is_one():
    with pytest.raises(UsageError, match="unknown modality 'sound'"):
        Denoise(given=["sound"]).module(tiny_model())
    for wrong in (1, -0.1, float("nan")):
        with pytest.raises(UsageError, match=r"^objective\.conditional=.* type objective"):
            Denoise(conditional=wrong)


def test_a_run_may_ask_for_directions():
    model, rng = tiny_model(), torch.Generator().manual_seed(0)
    denoise = Denoise(ways=["text > image: .5", "> image text: 0.2", "text audio>video:0.3"])
    assert denoise.module(model) is model.denoiser
    drawn = [tuple(denoise.parts(model, rng)) for _ in range(400)]
    assert set(drawn) == {("image", "text"), ("audio", "text", "video")}
    assert drawn.count(("image", "text")) / 400 == pytest.approx(0.7, abs=0.08)
    batch = ["image", "image:global", "text", "text:global"]
    assert denoise.told(batch)["ways"] == [({"text"}, 0.5), (set(), 0.2)]
    assert not denoise.told(["image"])["ways"]
    short = {tuple(denoise.parts(model, rng, ["audio", "video"])) for _ in range(200)}
    assert short == {("audio",), ("video",), ("audio", "video")}  # no way: as without any
    with pytest.raises(UsageError, match="unknown modality 'sound'"):
        Denoise(ways=["text > sound: 0.5"]).module(model)


@pytest.mark.parametrize("ways", [
    ["text: 0.1"], ["text >: 0.1"], ["text > text: 0.1"], ["> text: -1"], ["> text"],
    ["> text: 1.2.3"], ["> text: 0.6", "> image: 0.6"],
])  # fmt: skip
def test_a_way_is_a_direction_with_a_share(ways):
    with pytest.raises(UsageError, match=r"objective\.ways"):
        Denoise(ways=ways)


@pytest.mark.parametrize("key", LEAST)
def test_a_count_that_is_too_small_is_named(key):
    good = {**LEAST, key: 1000.0, "lr": 0.1}  # 1e3, as YAML reads it
    assert counted(good) == {**good, key: 1000} and type(counted(good)[key]) is int
    for wrong in (LEAST[key] - 1, LEAST[key] + 0.5, float("nan"), None):
        with pytest.raises(UsageError, match=rf"^trainer\.{key}={wrong} .* type trainer\.{key}="):
            counted({**good, key: wrong})
        with pytest.raises(UsageError, match=rf"^trainer\.{key}="):
            run({"trainer": {**good, key: wrong}})  # before anything else


def test_the_batches_of_a_step_do_not_depend_on_the_past():
    a, b = trainer_of("denoise", batch=8), trainer_of("denoise", batch=8)
    b.step = 1
    a.train_step()
    for trainer in (a, b):
        trainer.model.load_state_dict(fresh().state_dict())
    assert hexes(a.train_step()) == hexes(b.train_step())


def test_latents_are_those_of_the_codecs_in_a_new_order_each_epoch():
    latents, model = data_for(Denoise(), None), tiny_model()
    index = torch.tensor([5, 23, 0])
    batch = latents.batch(index, ["image", "text"])
    assert set(batch) == {"image", "image:global", "text", "text:global"}
    with torch.no_grad():
        z = model.modality("image").encode(tiny_world().batch(index, ["image"])["image"])
        e = model.modality("image").embed(z)
    assert torch.allclose(batch["image"], z, atol=0.1)  # bfloat16
    assert torch.allclose(batch["image:global"][:, 0], e, atol=0.2)
    epochs = [torch.cat([latents.order(0, e * 6 + s, 4) for s in range(6)]) for e in (0, 1)]
    for order in epochs:
        assert torch.equal(order.sort().values, torch.arange(24))
    assert not torch.equal(*epochs)
    assert torch.equal(latents.order(0, 3, 4), latents.order(0, 3, 4))
    assert not torch.equal(latents.order(0, 3, 4), latents.order(1, 3, 4))


def test_latents_are_kept_for_the_next_run(tmp_path):
    first = Latents(tiny_model(), Denoise(), tiny_world(), 8, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    again = Latents(tiny_model(), Denoise(), tiny_world(), 8, folder=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert equal(first.store, again.store)
    Latents(tiny_model(seed=5), Denoise(), tiny_world(), 8, folder=tmp_path)  # other codecs
    Latents(tiny_model(), Denoise(), tiny_world(seed=5), 8, folder=tmp_path)  # other scenes
    assert len(list(tmp_path.iterdir())) == 3


class OneBatch:
    """Data that is always the same four scenes."""

    def order(self, seed, step, batch):
        return torch.arange(batch)

    def batch(self, index, parts):
        return tiny_world().batch(index, parts)


@pytest.mark.slow
def test_one_batch_is_learned_by_heart():
    trainer = Trainer(fresh(), Codec("image"), OneBatch(), steps=80, batch=4, lr=3e-3, warmup=5)
    losses = [trainer.train_step()["image"] for _ in range(80)]
    assert sum(losses[-5:]) < 0.35 * sum(losses[:5])


@pytest.mark.parametrize("muon_lr", [None, 0.02])
def test_the_denoiser_learns(muon_lr):
    trainer = trainer_of("denoise", steps=60, batch=24, muon_lr=muon_lr, lr=3e-3)
    trainer.objective.parts = lambda model, rng, available: ["image"]
    losses = [trainer.train_step()["image"] for _ in range(60)]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_every_weight_has_one_optimizer():
    model = fresh()
    for module in (model.denoiser, *model.modalities.values()):
        for muon_lr in (None, 0.02):
            groups = [g for o in optimizers(module, muon_lr, 1e-3, 0.1) for g in o.param_groups]
            owned = [id(p) for g in groups for p in g["params"]]
            assert sorted(owned) == sorted(id(p) for p in module.parameters())
            assert all(g["peak"] == g["lr"] for g in groups)


def test_adamw_remembers_as_long_as_it_is_told():
    module = torch.nn.Linear(2, 2)
    for muon_lr in (None, 0.02):
        adamw = optimizers(module, muon_lr, 1e-3, 0.1, [0.8, 0.999])[0]
        assert adamw.param_groups[0]["betas"] == (0.8, 0.999)
    for betas in ([0.9], [0.9, 1.0], [-0.1, 0.9]):
        with pytest.raises(UsageError, match=r"trainer.betas=\["):
            optimizers(module, None, 1e-3, 0.1, betas)


def test_the_schedule_rises_stays_and_falls():
    rates = [schedule(s, 100, 10, 0.2) for s in range(100)]
    assert rates[:10] == pytest.approx([(s + 1) / 10 for s in range(10)])
    assert set(rates[9:80]) == {1.0}
    assert all(b < a for a, b in pairwise(rates[80:]))
    assert 0 < rates[-1] < 0.1
    assert {schedule(s, 100, 10, 0.0) for s in range(10, 500)} == {1.0}
    assert schedule(0, 100, 0, 0.0) == 1.0


def test_the_average_follows():
    module = torch.nn.Linear(1, 1, bias=False)
    ema = averaged(module, 0.9)
    for value in (1.0, 2.0, 2.0):
        torch.nn.init.constant_(module.weight, value)
        ema.update_parameters(module)
    assert ema.module.weight.item() == pytest.approx(0.9 * (0.9 * 1 + 0.1 * 2) + 0.1 * 2)


def test_export_writes_the_average_and_leaves_the_run(tmp_path):
    trainer = trainer_of("codec", ema=0.5)
    for _ in range(3):
        trainer.train_step()
    before = weights(trainer.model)
    average = weights(trainer.ema.module)
    export(trainer, tmp_path / "model")
    assert equal(weights(trainer.model), before)
    from unigen.model import UniGen

    saved = weights(UniGen.from_pretrained(tmp_path / "model").modality("image"))
    assert all(torch.equal(saved[k], v.bfloat16().float()) for k, v in average.items())
    assert not equal(average, weights(trainer.module))


def test_a_bad_step_changes_nothing_and_many_stop_the_run():
    trainer = trainer_of("codec", patience=3, steps=20)
    trainer.train_step()
    before = copy.deepcopy(trainer.state())
    good, trainer.objective.loss = trainer.objective.loss, lambda *a: {
        "image": good(*a)["image"] * float("nan")
    }  # fmt: skip
    for _ in range(2):
        trainer.train_step()
    trainer.objective.loss, bad = good, trainer.objective.loss
    after = trainer.state()
    assert all(equal(before[0][g], after[0][g]) for g in before[0])
    trainer.train_step()
    assert trainer.bad == 0
    trainer.objective.loss = bad
    with pytest.raises(ResourceError, match=r"not finite for 3 steps.*trainer\.lr") as caught:
        for _ in range(10):
            trainer.train_step()
    assert caught.value.exit_code == 5
    assert trainer.bad == 3
    assert all(p.isfinite().all() for p in trainer.module.parameters())


def test_gradients_are_clipped():
    trainer = trainer_of("codec", clip=1e-3)
    norms = []
    step = trainer.optimizers[0].step

    def spy():
        grads = [p.grad for p in trainer.module.parameters() if p.grad is not None]
        norms.append(torch.stack([g.norm() for g in grads]).norm().item())
        step()

    trainer.optimizers[0].step = spy
    assert trainer.train_step()["norm"] > 1e-3
    assert norms[0] <= 1.001e-3


@pytest.mark.parametrize("name", ["image", "audio", "video"])
def test_with_encoder_false_only_the_way_back_learns(name):
    model, world = fresh(), tiny_world()
    raw = world.batch(torch.arange(3), [name])[name]
    modality = model.modality(name)
    with torch.no_grad():
        z = modality.encode(raw)
        made = modality.decode(z)
    trainer = Trainer(model, Codec(name, encoder=False), world, steps=3, batch=4, warmup=1)
    for _ in range(3):
        trainer.train_step()
    with torch.no_grad():
        assert torch.equal(modality.encode(raw), z)
        assert not torch.allclose(modality.decode(z), made)
    moved = {n for n, p in model.named_parameters() if p.requires_grad}
    assert all(n.startswith(f"modalities.{name}.codec.") for n in moved)
