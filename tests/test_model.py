"""The laws of the model: any subset from any subset, coupled, keeping what is given."""

import json

import pytest
import torch
from tiny import DIRECTIONS, NAMES, raw_batch, tiny_model, tiny_spec

from unigen import registry
from unigen.errors import UsageError
from unigen.model import UniGen
from unigen.sampler import SAMPLERS
from unigen.tokens import noise

SEEDS = [3, 1]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def latents(model):
    with torch.no_grad():
        return model.encode(raw_batch(2))


def given_of(latents, names):
    return {p: z for p, z in latents.items() if p.partition(":")[0] in names}


def sample(model, want, given, seeds=SEEDS, **options):
    *_, x = model.sample(want, given, seeds, **{"steps": 3, **options})
    return x


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[p], b[p]) for p in a)


def test_there_are_50_conditional_and_15_joint_directions():
    assert sum(bool(given) for given, _ in DIRECTIONS) == 50
    assert sum(not given for given, _ in DIRECTIONS) == 15


@pytest.mark.parametrize(("given", "want"), DIRECTIONS)
def test_any_subset_from_any_subset(model, latents, given, want):
    given = given_of(latents, given)
    before = {p: z.clone() for p, z in given.items()}
    states = list(model.sample(want, given, SEEDS, steps=2))
    assert len(states) == 2
    for x in states:
        assert set(x) == {p for n in want for p in (n, f"{n}:global")}
        for part, z in x.items():
            assert z.shape == latents[part].shape
            assert z.isfinite().all()
    assert equal(given, before)


@pytest.mark.parametrize("flow", ["RectifiedFlow", "VP"])
@pytest.mark.parametrize("prediction", ["x", "eps", "velocity"])
def test_every_flow_and_prediction_works(flow, prediction):
    model = tiny_model(flow=flow, prediction=prediction)
    x = sample(model, ["image", "audio"], {}, sampler="heun")
    assert all(z.isfinite().all() for z in x.values())


def test_what_is_given_matters(model, latents):
    text = given_of(latents, ["text"])
    a, b = sample(model, ["image"], text), sample(model, ["image"], {})
    assert (a["image"] - b["image"]).abs().max() > 1e-3
    swapped = {p: z.flip(0) for p, z in text.items()}
    c = sample(model, ["image"], swapped)
    assert (a["image"] - c["image"]).abs().max() > 1e-3


@pytest.mark.parametrize("moved", NAMES)
def test_parts_made_together_are_coupled(model, moved):
    other = {moved: noise(moved, [8, 9], model.shape(moved))}
    a, b = sample(model, NAMES, {}), sample(model, NAMES, {}, noises=other)
    assert all((a[n] - b[n]).abs().max() > 1e-4 for n in NAMES)
    a = sample(model, NAMES, {}, joint=False)
    b = sample(model, NAMES, {}, noises=other, joint=False)
    assert (a[moved] - b[moved]).abs().max() > 1e-4
    assert all(torch.equal(a[p], b[p]) for p in a if p.partition(":")[0] != moved)


def test_apart_is_each_alone(model, latents):
    text = given_of(latents, ["text"])
    apart = sample(model, ["image", "audio"], text, joint=False)
    alone = sample(model, ["image"], text) | sample(model, ["audio"], text)
    assert equal(apart, alone)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_kept_tokens_come_back_bit_for_bit(model, latents, sampler, guidance):
    given = given_of(latents, ["image", "text"])
    kept = torch.tensor([1.0, 0, 1, 0])
    x = sample(model, ["image", "audio"], given, keep={"image": kept}, sampler=sampler,
               guidance=guidance)  # fmt: skip
    assert torch.equal(x["image"][:, kept > 0], latents["image"][:, kept > 0])
    assert (x["image"] - latents["image"])[:, kept == 0].abs().amax(-1).min() > 1e-4


def test_kept_tokens_guide_the_rest_and_the_unkept_say_nothing(model, latents):
    given = given_of(latents, ["image"])
    kept = torch.tensor([1.0, 0, 1, 0])
    x = sample(model, ["image", "audio"], given, keep={"image": kept})
    hidden = {
        **given,
        "image": given["image"] + torch.randn_like(given["image"]) * (1 - kept)[:, None],
    }
    assert equal(sample(model, ["image", "audio"], hidden, keep={"image": kept}), x)
    seen = {**given, "image": given["image"] + kept[:, None]}
    y = sample(model, ["image", "audio"], seen, keep={"image": kept})
    assert (x["image"] - y["image"])[:, kept == 0].abs().max() > 1e-4
    assert (x["audio"] - y["audio"]).abs().max() > 1e-4


def test_parts_made_apart_keep_their_own_regions(model, latents):
    given = given_of(latents, ["image", "audio"])
    keep = {"image": torch.tensor([1.0, 0, 1, 0]), "audio": torch.tensor([1.0, 1, 0, 0])}
    x = sample(model, ["image", "audio"], given, keep=keep, joint=False)
    for part, kept in keep.items():
        assert torch.equal(x[part][:, kept > 0], latents[part][:, kept > 0])
        alone = sample(model, [part], given_of(latents, [part]), keep={part: kept})
        assert torch.equal(alone[part], x[part])


def test_permuting_keys_changes_nothing(model, latents):
    given = given_of(latents, ["text", "video"])
    turned = dict(reversed(given.items()))
    assert equal(sample(model, ["image", "audio"], given), {
        p: sample(model, ["audio", "image"], turned)[p] for p in
        ("image", "image:global", "audio", "audio:global")
    })  # fmt: skip


def test_a_sample_does_not_see_its_batch(model, latents):
    text = given_of(latents, ["text"])
    both = sample(model, ["image", "audio"], text)
    for i, seed in enumerate(SEEDS):
        alone = sample(
            model, ["image", "audio"], {p: z[i : i + 1] for p, z in text.items()}, [seed]
        )
        assert all(torch.allclose(alone[p], both[p][i : i + 1], atol=1e-4) for p in both)


def test_guidance_of_one_and_guidance_of_nothing_are_off(model, latents):
    text = given_of(latents, ["text"])
    plain = sample(model, ["image"], text)
    assert equal(sample(model, ["image"], text, guidance=1.0), plain)
    assert equal(sample(model, ["image"], text, guidance={"text": 1.0}), plain)
    assert equal(sample(model, ["image"], {}, guidance=4.0), sample(model, ["image"], {}))


def test_one_given_part_is_guided_alike_by_name_and_by_number(model, latents):
    text = given_of(latents, ["text"])
    by_number = sample(model, ["image"], text, guidance=3.0)
    assert equal(sample(model, ["image"], text, guidance={"text": 3.0}), by_number)
    plain = sample(model, ["image"], text)
    assert (by_number["image"] - plain["image"]).abs().max() > 1e-3


def test_no_noise_leads_to_words(model):
    with pytest.raises(UsageError, match="drawn word by word"):
        model.invert({"text": ["a red ring"]})


def test_more_steps_converge(model):
    times = [sample(model, ["image"], {}, steps=n)["image"] for n in (4, 24, 48)]
    assert (times[2] - times[1]).abs().mean() < (times[2] - times[0]).abs().mean()


def test_the_loss_comes_from_its_generator_and_reaches_the_denoiser(model, latents):
    losses = [model.loss(latents, torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]
    assert set(losses[0]) == set(latents)
    sum(losses[0].values()).backward()
    grads = {n for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    assert grads
    assert all(n.startswith("denoiser.") for n in grads)


def test_a_perfect_prediction_has_no_loss(model, latents, monkeypatch):
    right = model.lens("text").fit(latents["text"])
    sure = 100 * (right == right.amax(-1, keepdim=True)).float().flatten(-2)
    perfect = {**latents, "text": sure}
    monkeypatch.setattr(model.denoiser, "forward", lambda x_t, t, positions: perfect)
    assert all(v == 0 for v in model.loss(latents, torch.Generator().manual_seed(0)).values())


def test_the_global_tokens_are_the_points_of_the_shared_space(model):
    raw = raw_batch(2)
    with torch.no_grad():
        latents, points = model.encode(raw), model.embed(raw)
    for name in NAMES:
        assert torch.equal(latents[f"{name}:global"][:, 0], points[name])
        assert model.positions(latents)[f"{name}:global"].shape == (1, 3)
    assert set(model.decode(latents)) == set(NAMES)


def test_saved_and_loaded_is_the_same_model(model, tmp_path):
    model.save_pretrained(tmp_path / "exact", torch.float32)
    exact = UniGen.from_pretrained(tmp_path / "exact")
    assert not exact.training
    assert exact.config == model.config
    assert json.loads(json.dumps(exact.config)) == exact.config
    assert exact.state_dict().keys() == model.state_dict().keys()
    assert equal(exact.state_dict(), model.state_dict())
    made = sample(model, NAMES, {})
    assert equal(sample(exact, NAMES, {}), made)
    model.save_pretrained(tmp_path / "half")
    half = UniGen.from_pretrained(tmp_path / "half")
    t = {p: torch.full(z.shape[:2], 0.5) for p, z in made.items()}
    there, again = model.denoise(made, t), half.denoise(made, t)
    assert all((again[p] - there[p]).abs().mean() < 0.05 * there[p].std() for p in made)
    assert exact.hash != half.hash != "unsaved"


def test_a_model_without_a_spec_says_so(tmp_path):
    from unigen.flow import RectifiedFlow
    from unigen.modalities.text import Text
    from unigen.uvit import UViT

    by_hand = UniGen({"text": Text(["a"])}, UViT({"text": 128}, 32, 3, 16), RectifiedFlow())
    with pytest.raises(UsageError, match="no spec"):
        by_hand.save_pretrained(tmp_path / "model")


def test_a_vocabulary_that_was_learned_is_saved(tmp_path):
    spec = tiny_spec()
    spec["modalities"]["text"]["words"] = []
    model = registry.build(spec)
    model.modality("text").prepare(["a red circle"])
    model.save_pretrained(tmp_path / "model")
    assert UniGen.from_pretrained(tmp_path / "model").modality("text").words == [
        "a",
        "circle",
        "red",
    ]


def test_an_unknown_modality_names_the_known_ones(model):
    with pytest.raises(UsageError, match=r"'depth'; this model has image, video, audio, text"):
        model.encode({"depth": torch.zeros(1)})


def test_options_are_the_models_own_unless_asked(model):
    usual = {"steps": 3, "guidance": 1.0, "sampler": "multistep", "order": []}
    assert model.options() == usual
    assert model.options(steps=5, guidance={"text": 2})["guidance"] == {"text": 2}
    assert model.options(steps=5)["steps"] == 5
