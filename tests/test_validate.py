"""Validation: the same numbers at every call, and a run that notices nothing."""

import json

import pytest
import torch
from media_folder import mixed, png, txt
from test_engine import alone, together
from tiny import DIRECTIONS, NAMES, tiny_model, tiny_spec, tiny_world

from unigen import cli, follow, registry
from unigen.data.folder import Folder
from unigen.data.indexed import Indexed
from unigen.data.latents import Latents
from unigen.objectives import Align, Codec, Denoise
from unigen.presence import directions
from unigen.tokens import modality_of, noise
from unigen.trainer import Trainer
from unigen.validate import Validation, clocks_of, samples


def trainer_of(objective=None, count=24, **options):
    torch.manual_seed(0)
    model, objective = registry.build(tiny_spec()), objective or Denoise()
    data = tiny_world()
    if objective.cached:
        data = Latents(model, objective, data, count)
    options = {"steps": 6, "batch": 8, "warmup": 2, "bf16": False, **options}
    return Trainer(model, objective, data, **options)


def validation_of(trainer, source=None, count=6):
    source = source or tiny_world(seed=1)
    return Validation(samples(trainer.model, trainer.objective, source, "cpu", count), 2, count)


def name_of(given, want):
    return f"{'+'.join(given)}->{'+'.join(want)}"


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_direction_is_validated_and_two_calls_are_equal():
    trainer = trainer_of()
    validation = validation_of(trainer)
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    for _ in range(2):
        trainer.train_step()
    state = torch.get_rng_state()
    first, second = validation.losses(trainer), validation.losses(trainer)
    assert torch.equal(torch.get_rng_state(), state)
    assert first == second == validation_of(trainer).losses(trainer)
    expected = {name_of(given, want) for given, want in DIRECTIONS if given}
    assert len(expected) == 50 and first.keys() == expected | {"mean"}
    assert first["mean"] == pytest.approx(sum(first[k] for k in expected) / 50)
    trainer.ema.module.load_state_dict(
        {k.removeprefix("denoiser."): v for k, v in before.items() if k.startswith("denoiser.")}
    )
    assert validation.losses(trainer) != first  # it is the average that is validated


@pytest.mark.parametrize("objective", [Denoise, lambda: Align("text"), lambda: Codec("audio")])
def test_a_validated_run_is_the_run(objective):
    plain, validated = trainer_of(objective()), trainer_of(objective())
    validation = validation_of(validated)
    learning = [m.training for m in validated.model.modules()]
    for _ in range(4):
        assert plain.train_step() == validated.train_step()
        validation.losses(validated)
    assert [m.training for m in validated.model.modules()] == learning
    (a, meta_a), (b, meta_b) = plain.state(), validated.state()
    assert meta_a == meta_b
    for group in a:
        assert all(torch.equal(a[group][k], v) for k, v in b[group].items())


def test_a_direction_is_the_loss_of_what_is_wanted_with_the_given_clean():
    trainer = trainer_of(steps=1)
    trainer.train_step()
    losses = validation_of(trainer, count=5).losses(trainer)
    with trainer.engine.averaged(trainer.model, trainer.module, trainer.ema.module) as model:
        x = model.encode(tiny_world(seed=1).batch(torch.arange(5), ["audio", "text"]))
        x = {k: z.bfloat16().float() for k, z in x.items()}
        clocks = clocks_of(model, x, ["audio"])
        eps = noise("audio", range(5), x["audio"].shape[1:])
        points = noise("audio:global", range(5), x["audio:global"].shape[1:])
        seen = {
            **x,
            "audio": model.flow.interpolate(x["audio"], eps, clocks["audio"]),
            "audio:global": model.flow.interpolate(
                x["audio:global"], points, clocks["audio:global"]
            ),
        }
        with torch.no_grad():
            answer = model.denoise(seen, clocks)["audio"]
        t = clocks["audio"]
        expected = ((answer - x["audio"]).square().mean(-1) * model.flow.loss_weight(t)).mean()
    assert losses["text->audio"] == pytest.approx(expected.item(), rel=0.02)  # codecs in bfloat16


def test_clocks_are_stratified_and_given_parts_are_clean():
    model = tiny_model()
    x = model.encode(tiny_world().batch(torch.arange(40)))
    for given, want in directions(NAMES):
        names = {*given, *want}
        clocks = clocks_of(model, {p: z for p, z in x.items() if modality_of(p) in names}, want)
        assert {modality_of(p) for p in clocks} == names
        assert all(not t.any() for p, t in clocks.items() if modality_of(p) in given)
        (shared, *others) = [
            t[:, 0] for p, t in clocks.items() if modality_of(p) in want and not model.ordered(p)
        ]
        assert all(torch.equal(shared, other) for other in others)
        center = sum(model.modality(p).noise_mean for p in want) / len(want)
        level = (shared.logit() - center) / model.flow.std
        strata = (torch.special.ndtr(level) * 40).floor().sort().values
        assert torch.equal(strata, torch.arange(40.0))
        if "text" in want:  # words are settled from the start of the sentence on
            assert not (clocks["text"].diff(dim=1) < 0).any()
            assert clocks["text"].unique().tolist() == [0, 1]


def test_other_objectives_show_their_own_loss():
    trainer = trainer_of(Align("text"))
    pairs = {"-".join(sorted((name, "text"))) for name in NAMES if name != "text"}
    assert validation_of(trainer).losses(trainer).keys() == pairs | {"mean"}
    for name in ("image", "video", "audio"):
        trainer = trainer_of(Codec(name))
        losses = validation_of(trainer).losses(trainer)
        assert losses.keys() == {name, "mean"} and losses[name] == losses["mean"] > 0


@pytest.mark.slow
def test_a_model_that_learns_by_heart_is_seen():
    trainer = trainer_of(count=8, steps=120, lr=3e-3, ema=0.9)
    learned, held_out = validation_of(trainer, tiny_world(), 8), validation_of(trainer, count=8)
    before = learned.losses(trainer)["mean"], held_out.losses(trainer)["mean"]
    for _ in range(120):
        trainer.train_step()
    after = learned.losses(trainer)["mean"], held_out.losses(trainer)["mean"]
    assert before[0] == pytest.approx(before[1], rel=0.1)
    assert after[1] > 1.2 * after[0]
    assert after[0] < 0.5 * before[0]


def test_only_directions_that_an_item_shows(tmp_path):
    mixed(tmp_path / "media", 10, clips=0)
    trainer = trainer_of()
    source = Folder(str(tmp_path / "media"))
    source.attach({name: trainer.model.modality(name) for name in NAMES})
    shown = {frozenset(item) for item in source.listing.items}
    expected = {name_of(given, want) for given, want in directions(NAMES)
                if any({*given, *want} <= some for some in shown)}  # fmt: skip
    assert 0 < len(expected) < 50
    losses = validation_of(trainer, source).losses(trainer)
    assert losses.keys() == expected | {"mean"}


def test_one_part_alone_is_made_from_nothing(tmp_path):
    for i in range(3):
        png(tmp_path / f"{i}.png", i)
    trainer = trainer_of()
    source = Folder(str(tmp_path))
    source.attach({name: trainer.model.modality(name) for name in NAMES})
    assert validation_of(trainer, source).losses(trainer).keys() == {"nothing->image", "mean"}


class Numbers(Indexed):
    """Items of two kinds."""

    def __init__(self, both, one):
        has = torch.tensor([[True, True]] * both + [[True, False]] * one)
        super().__init__([*map(str, range(both + one))], ["a", "b"], has)

    @property
    def spec(self):
        return "numbers"

    def read(self, item, part, draw):
        return torch.tensor([item])

    def join(self, part, raws):
        return torch.cat(raws)


@pytest.mark.parametrize(("both", "one"), [(90, 10), (1000, 1), (3, 2), (16, 16)])
def test_items_are_spread_over_their_kinds(both, one):
    source = Numbers(both, one)
    chosen = source.spread(32)
    kinds = [{*kind.tolist()} for kind in source.kinds]
    assert all({*index.tolist()} <= kind for index, kind in zip(chosen, kinds, strict=True))
    assert abs(sum(map(len, chosen)) - min(32, both + one)) <= 1
    for index, kind in zip(chosen, source.kinds, strict=True):
        assert (
            len(index.unique())
            == len(index)
            == max(1, round(min(1, 32 / (both + one)) * len(kind)))
        )
        place = torch.searchsorted(kind, index)
        gaps = torch.cat([place, torch.tensor([len(kind)])]).diff()
        assert place[0] == 0 and gaps.max() - gaps.min() <= 1


def test_a_tracker_and_the_file_get_what_the_curves_get(tmp_path, monkeypatch):
    class Tracker:
        def __init__(self):
            self.logged = []

        def log(self, values, step):
            self.logged.append((step, values))

        def finish(self):
            self.logged.append("end")

    tracker = Tracker()
    monkeypatch.setattr(follow, "Tracker", lambda *_: tracker)
    with follow.following(tmp_path, 0, 9, 8, "project", {}) as follower:
        follower.validated(5, {"text->image": 0.5, "mean": 0.5})
    curves = {"validation/text->image": 0.5, "validation/mean": 0.5}
    assert tracker.logged == [(5, curves), "end"]
    line = '{"step": 5, "text->image": 0.5, "mean": 0.5}\n'
    assert (tmp_path / "validation.jsonl").read_text() == line


@pytest.mark.slow
def test_processes_validate_what_one_does(tmp_path):
    case = {"steps": 3, "options": {}, "validate": True}
    (one,) = alone(tmp_path, {"one": case}).values()
    two = together(tmp_path, {name: {**case, "engine": name} for name in ("ddp", "fsdp")})
    assert len(one["validated"]) == 51
    for name in ("ddp", "fsdp"):
        assert two[name]["validated"] == pytest.approx(one["validated"], rel=1e-4)
        assert two[name]["losses"][-1] == pytest.approx(one["losses"][-1], rel=1e-4, abs=1e-5)


# ---- as a user types it --------------------------------------------------------------------------

TINY = ["train", "modality=[text,image]", "model.denoiser.width=64", "model.denoiser.depth=3",
        "trainer.batch=8", "trainer.preview_every=0", "trainer.log_every=1", "trainer.cache=16",
        "trainer.validate_every=2"]  # fmt: skip


@pytest.fixture
def unigen(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UNIGEN_TRACEBACK", raising=False)

    def call(*argv):
        code = cli.main([*TINY, *argv])
        return code, capfd.readouterr().err

    return call


@pytest.mark.slow
def test_a_run_with_validation_resumes_and_has_the_losses_of_one_without(unigen, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    held_out = ["data@validation=world", "validation.split=held_out", "validation.seed=1"]
    assert unigen("out=plain", "trainer.steps=5")[0] == 0
    assert unigen("out=whole", "trainer.steps=5", *held_out)[0] == 0
    assert not (tmp_path / "plain/validation.jsonl").exists()
    assert (tmp_path / "plain/losses.jsonl").read_bytes() == (
        tmp_path / "whole/losses.jsonl"
    ).read_bytes()
    whole = lines_of(tmp_path / "whole/validation.jsonl")
    assert [line["step"] for line in whole] == [2, 4, 5]
    assert all(line.keys() == {"step", "text->image", "image->text", "mean"} for line in whole)
    curves = EventAccumulator(str(tmp_path / "whole/tensorboard")).Reload()
    assert [x.step for x in curves.Scalars("validation/text->image")] == [2, 4, 5]
    assert unigen("out=parts", "trainer.steps=2", *held_out)[0] == 0
    with (tmp_path / "parts/validation.jsonl").open("a") as log:  # as killed after its last save
        log.write('{"step": 4, "mean": 1.0}\n{"step": 5, "me')
    assert unigen("out=parts", "trainer.steps=5", *held_out)[0] == 0
    assert lines_of(tmp_path / "parts/validation.jsonl") == whole
    code, said = unigen("out=parts", "trainer.steps=6", "seed=9")
    assert code == 0 and "begun with seed=0; from here on its draws are those of seed=9" in said


def test_a_folder_is_held_out(unigen, tmp_path):
    for i in range(9):
        root = tmp_path / ("media" if i < 6 else "held out, [b]")
        png(root / f"image/{i}.png", i)
        txt(root / f"text/{i}.txt", "a small red circle", "a blue star")
    told = ["data=folder", "data.root=media", "data@validation=folder", "trainer.steps=2"]
    assert unigen(*told, "validation.root=held out, [b]", "out=run")[0] == 0
    (line,) = lines_of(tmp_path / "run/validation.jsonl")
    assert line.keys() == {"step", "text->image", "image->text", "mean"}
    config = json.loads((tmp_path / "run/run.json").read_text())["config"]
    assert config["validation"]["root"] == "held out, [b]"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["data@validation=folder", "validation.root=empty"], "empty holds no items"),
        (["data@validation=folder", "validation.root=sounds"], "none that can be learned from"),
        (["data@validation=folder", "validation.root=nowhere"], "nowhere is no folder"),
        (["data@validation=folder"], "validation.root is not set"),
        (["data@validation=world", "validation.split=seen"], "data.split=seen is unknown"),
        (["data@validation=word"], "did you mean 'world'?"),
        (["data@validaton=world"], "did you mean 'data@validation'?"),
        (["data@validation=folder", "validation.rot=x"], "did you mean 'validation.root'?"),
        (["validation.split=held_out"], "validation.split is of no source; type data@validation="),
        (["validation.root=empty"], "validation.root is of no source; type data@validation="),
    ],
)
def test_a_wrong_validation_is_one_sentence(unigen, tmp_path, argv, words):
    (tmp_path / "empty").mkdir()
    mixed(tmp_path / "sounds", 3, clips=0)
    for folder in ("image", "text"):
        for path in (tmp_path / "sounds" / folder).iterdir():
            path.unlink()
    code, err = unigen("trainer.steps=2", "out=run", *argv)
    assert code == 2
    (said,) = [line for line in err.splitlines() if line.startswith("unigen:")]
    assert words in said
