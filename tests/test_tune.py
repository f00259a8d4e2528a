"""Which weights learn: all, the new ones, or small updates that are saved as plain weights."""

import copy
import re

import pytest
import torch
from tiny import NAMES, tiny_model, tiny_spec, tiny_world

from unigen import registry
from unigen.cli import main
from unigen.data.latents import Latents
from unigen.data.world import World
from unigen.errors import UsageError
from unigen.model import UniGen, load
from unigen.objectives import Align, Codec, Denoise
from unigen.runs import latest_step, load_step, save_step
from unigen.tokens import modality_of
from unigen.train import export, overlay
from unigen.trainer import Trainer
from unigen.tune import All, Lora, New
from unigen.validate import Validation, samples

OLD = ("image", "text", "video")  # what the smaller of two models knows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of three modalities, saved in full precision."""
    spec = tiny_spec()
    del spec["modalities"]["audio"]
    spec["denoiser"]["parts"] = {
        p: c for p, c in spec["denoiser"]["parts"].items() if not p.startswith("audio")
    }
    torch.manual_seed(3)
    model = registry.build(spec)
    for p in model.denoiser.parameters():
        torch.nn.init.normal_(p, std=0.1)
    path = tmp_path_factory.mktemp("old") / "model"
    model.save_pretrained(path, torch.float32)
    return path


def trainer_of(tune, folder, objective=None, **options):
    """A run of the model of four modalities, from the weights of three."""
    model, objective = tiny_model(), objective or Denoise()
    loaded = overlay(model, str(folder))
    data = tiny_world()
    if objective.cached:
        data = Latents(model, objective, data, 16)
    options = {"steps": 6, "batch": 4, "warmup": 1, "bf16": False, **options}
    return Trainer(model, objective, data, tune=tune, loaded=loaded, **options)


def weights(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


def step(trainer, count=3):
    for _ in range(count):
        trainer.train_step()
    return trainer


def outputs(model):
    x = model.encode(tiny_world().batch(torch.arange(3), list(NAMES)))
    t = {k: torch.full(z.shape[:2], 0.5) for k, z in x.items()}
    with torch.no_grad():
        return model.denoise(x, t)


def test_loaded_is_what_the_folder_brings(folder):
    model = tiny_model()
    loaded = {id(p) for p in overlay(model, str(folder))}
    new = [k for k, p in model.named_parameters() if id(p) not in loaded]
    assert new and all("audio" in name for name in new)
    assert not any("audio" in k for k, p in model.named_parameters() if id(p) in loaded)


@pytest.mark.parametrize("objective", [Denoise(must=["audio"]), Align()])
def test_new_moves_only_what_the_folder_did_not_bring(folder, objective):
    trainer = trainer_of(New(), folder, objective)
    before = weights(trainer.model)
    step(trainer)
    moved = {k for k, v in trainer.model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved and all("audio" in name for name in moved)


def test_new_says_when_there_is_nothing_new(folder):
    with pytest.raises(UsageError, match="tune=all or tune=lora"):
        trainer_of(New(), folder, Codec("image"))
    with pytest.raises(UsageError, match=r"objective.must=\[<modality>\]"):
        step(trainer_of(New(), folder), 30)


def test_a_new_modality_may_begin_as_a_copy_of_a_known_one(folder):
    plain, model = tiny_model(), tiny_model()
    known = {id(p) for p in overlay(model, [str(folder), f"image:audio@{folder}"])}
    overlay(plain, str(folder))
    fresh, own = dict(plain.named_parameters()), dict(model.named_parameters())
    copied = [k for k, p in own.items() if not torch.equal(p, fresh[k])]
    for name in copied:  # of audio only, each what image has there, and none of it counts as loaded
        twin = re.sub(r"\.audio", ".image", name)
        assert name != twin and torch.equal(own[name], own[twin])
    assert {k.split(".")[1] for k in copied} >= {"blocks", "embed", "level", "audio"}
    assert not any(id(own[name]) in known for name in copied)
    with pytest.raises(UsageError, match="no weights of smell that fit audio"):
        overlay(model, f"smell:audio@{folder}")


def test_every_batch_shows_what_it_must():
    model, generator = tiny_model(), torch.Generator().manual_seed(0)
    drawn = [Denoise(must=["audio"]).parts(model, generator) for _ in range(60)]
    assert all("audio" in names for names in drawn)
    assert {len(names) for names in drawn} == {1, 2, 3, 4}
    assert "audio" not in Denoise(must=["audio"]).parts(model, generator, ["text", "image"])


def test_lora_begins_as_the_loaded_model(folder):
    expected = outputs(trainer_of(All(), folder).model)
    got = outputs(trainer_of(Lora(4), folder).model)
    for part in expected:
        assert torch.allclose(got[part], expected[part], atol=1e-6)


@pytest.mark.parametrize("rank", [1, 3])
def test_lora_moves_matrices_by_its_rank_and_nothing_else_that_was_loaded(folder, rank):
    trainer = trainer_of(Lora(rank), folder, lr=1e-2)
    kept = {id(p): p.clone() for p in trainer.module.parameters() if not p.requires_grad}
    step(trainer)
    for p in trainer.module.parameters():
        if id(p) in kept:
            assert torch.equal(p, kept[id(p)])
    old, new = tiny_model(), trainer.tune.plain(trainer.model)
    overlay(old, str(folder))
    old, ranks = old.state_dict(), set()
    assert old.keys() == new.state_dict().keys()
    for name, value in new.state_dict().items():
        if "audio" in name or not name.startswith("denoiser."):
            continue
        change = (value - old[name]).double()
        if value.ndim == 2:
            ranks.add(int(torch.linalg.matrix_rank(change, atol=1e-6)))
        else:
            assert not change.any()
    assert max(ranks) == rank


def test_what_lora_saves_is_a_plain_model_of_the_same_outputs(folder, tmp_path):
    trainer = step(trainer_of(Lora(2), folder, ema=0.0))
    expected = outputs(trainer.model)
    trainer.tune.plain(trainer.model).save_pretrained(tmp_path / "a", torch.float32)
    got = outputs(UniGen.from_pretrained(tmp_path / "a"))
    for part in expected:
        assert torch.allclose(got[part], expected[part], atol=1e-5)
    before = weights(trainer.model)
    export(trainer, tmp_path / "b")  # leaves the run as it was
    assert all(torch.equal(v, before[k]) for k, v in trainer.model.state_dict().items())
    assert UniGen.from_pretrained(tmp_path / "b").config == trainer.model.config


def test_lora_learns_the_layers_that_are_named(folder):
    trainer = trainer_of(Lora(2, layers=r"blocks\..*"), folder)
    learning = [k for k, p in trainer.module.named_parameters() if p.requires_grad]
    assert any("lora_A" in k for k in learning)
    assert all(k.startswith("blocks.") for k in learning if "lora_" in k)


@pytest.mark.parametrize("tune", [New(), Lora(2)])
def test_a_tuned_run_goes_on_bit_for_bit(folder, tune, tmp_path):
    straight = step(trainer_of(copy.copy(tune), folder, Denoise(must=["audio"])), 4)
    half = step(trainer_of(copy.copy(tune), folder, Denoise(must=["audio"])), 2)
    save_step(tmp_path, half.step, *half.state())
    again = trainer_of(copy.copy(tune), folder, Denoise(must=["audio"]))
    again.load_state(*load_step(latest_step(tmp_path).folder))
    step(again, 2)
    (a, meta), (b, other) = straight.state(), again.state()
    assert meta == other
    for group in a:
        assert a[group].keys() == b[group].keys()
        assert all(torch.equal(v, b[group][k]) for k, v in a[group].items())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Lora(0), "tune.rank=0"),
        (lambda: Lora(layers="nothing").prepare(torch.nn.Linear(2, 2), []), "init="),
    ],
)
def test_what_lora_refuses(make, sentence):
    with pytest.raises(UsageError, match=sentence):
        make()


@pytest.mark.slow
def test_finetune_from_the_command_line(tmp_path, capsys):
    media = tmp_path / "media"
    (media / "image").mkdir(parents=True)
    (media / "text").mkdir()
    world = tiny_world(size=64)
    raw = world.batch(torch.arange(8), ["image", "text"])
    from unigen.modalities.image import Image

    for i, sentence in enumerate(raw["text"]):
        Image().write(raw["image"][i : i + 1], media / "image" / f"{i}.png", {})
        (media / "text" / f"{i}.txt").write_text(sentence.replace("a ", "a lovely "))
    small = ["model=small", "modality=[text,image]", "trainer.batch=4", "trainer.steps=2",
             "trainer.preview_every=0"]  # fmt: skip
    assert main(["train", *small, "trainer.cache=16", f"out={tmp_path / 'a'}"]) == 0
    for tune in ("all", "lora"):
        done = main(["train", "experiment=finetune", *small, f"tune={tune}",
                     f"init={tmp_path / 'a' / 'model'}", f"data.root={media}",
                     f"out={tmp_path / tune}"])  # fmt: skip
        assert done == 0, capsys.readouterr().err
        old = UniGen.from_pretrained(tmp_path / "a" / "model").modality("text").words
        new = UniGen.from_pretrained(tmp_path / tune / "model").modality("text").words
        assert new[: len(old)] == old and "lovely" in new[len(old) :]


def test_weights_of_another_shape_are_refused_and_stay(tmp_path, capsys):
    small = ["train", "model=small", "modality=[text,image]", "trainer.batch=4", "trainer.steps=1",
             "trainer.preview_every=0", "trainer.cache=16"]  # fmt: skip
    wide, run = "model.denoiser.width=96", tmp_path / "run"
    assert main([*small, f"out={run}"]) == 0
    saved = {path: path.read_bytes() for path in run.rglob("*.safetensors")}
    assert main([*small, "trainer.steps=2", wide, f"out={run}"]) == 4
    assert main([*small, wide, f"init={run / 'model'}", f"out={tmp_path / 'other'}"]) == 2
    said = capsys.readouterr().err
    assert "does not fit the model it names: it misfits in denoiser.embed.text.weight" in said
    assert "which does not fit this model" in said and "Traceback" not in said
    assert {path: path.read_bytes() for path in run.rglob("*.safetensors")} == saved


def missed(model, world):
    """Return what a model misses of pictures and captions that no run has learned."""
    (batch,) = samples(model, Denoise(), world, "cpu", count=32)
    some = {part: z for part, z in batch.items() if modality_of(part) in ("image", "text")}
    idle = Trainer(model, Denoise(), world, steps=1, batch=1, bf16=False)
    return Validation([some], every=1, count=32).losses(idle)


@pytest.mark.slow
@pytest.mark.parametrize("two", [0.0, 1.0])
def test_the_embedded_model_learns_of_a_changed_world(two, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    done = main(["train", "experiment=world", "data.novel=1.0", f"data.two={two}", "init=embedded",
                 "trainer.steps=30", "trainer.batch=16", "trainer.cache=64", "trainer.warmup=2",
                 "trainer.lr=7e-4", "trainer.muon_lr=0.005", "trainer.ema=0.0", "out=run",
                 "trainer.preview_every=0"])  # fmt: skip
    assert done == 0, capsys.readouterr().err
    old, new = load(), UniGen.from_pretrained(tmp_path / "run/model")
    known, words = old.modality("text").words, new.modality("text").words
    assert words[: len(known)] == known
    assert {"pink", "sways", "swaying"} <= {*words[len(known) :]}
    old.modality("text").adopt(new.config["modalities"]["text"])  # the same captions
    held_out = World(seed=7, two=two, novel=1.0)
    before, after = missed(old, held_out), missed(new, held_out)
    assert before.keys() == after.keys() == {"text->image", "image->text", "mean"}
    assert all(after[way] < 0.95 * before[way] for way in before)
