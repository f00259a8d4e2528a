"""On a CUDA device: the same scenes and the same noise, and all that is done on a CPU."""

import dataclasses
import json
import math

import pytest
import torch
from tiny import NAMES, tiny_model

import unigen
from unigen.cli import main
from unigen.data.world import World
from unigen.data.world.scenes import SPLITS

DEVICE, SEEDS = "cuda", [3, 1]
LESSONS = {
    "denoise": ["data@validation=world", "validation.seed=1", "trainer.validate_every=1"],
    "denoise, nothing cached": ["trainer.cache=0"],
    "align": ["objective=align"],
    "codec of stills": ["experiment=world/image"],
    "codec of stills, drawn there": ["experiment=world/image", f"data.device={DEVICE}"],
    "codec of motion": ["experiment=world/video"],
    "codec of sound": ["experiment=world/audio"],
}
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


def trained(out, *words, steps=1):
    """Train the small model on the device; return the losses of every step."""
    small = ["model=small", "trainer.batch=8", "trainer.cache=16"]
    small += ["trainer.log_every=1", "trainer.preview_every=1", f"trainer.steps={steps}"]
    assert main(["train", *small, f"device={DEVICE}", f"out={out}", *words]) == 0
    return [json.loads(line) for line in (out / "losses.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    out = tmp_path_factory.mktemp("gpu") / "run"
    trained(out)
    return unigen.load(out / "model").to(DEVICE)


@pytest.mark.parametrize("split", SPLITS)
def test_a_scene_is_the_same_on_both_devices(split):
    index = torch.arange(1000)
    here, there = (World(seed=3, split=split, device=d).scenes(index) for d in ("cpu", DEVICE))
    for f in dataclasses.fields(here):
        assert torch.equal(getattr(here, f.name), getattr(there, f.name).cpu()), f.name


def test_media_are_the_same_on_both_devices():
    index = torch.arange(64)
    here, there = (World(seed=3, device=d).batch(index) for d in ("cpu", DEVICE))
    assert here.pop("text") == there.pop("text")
    for part, raw in here.items():
        assert there[part].device.type == DEVICE
        assert (raw - there[part].cpu()).abs().max() < 1e-3, part


def test_the_noise_of_a_part_is_the_same_on_both_devices():
    model = tiny_model()
    here = {part: model.prior(part, SEEDS) for part in model.denoiser.parts}
    model.to(DEVICE)
    for part, eps in here.items():
        there = model.prior(part, SEEDS)
        assert there.device.type == DEVICE
        assert torch.equal(there.cpu(), eps), part


@pytest.mark.parametrize("sampler", ["multistep", "stochastic"])
def test_a_sample_is_nearly_the_same_on_both_devices(sampler):
    model, want = tiny_model(), ["image", "audio"]
    *_, here = model.sample(want, {}, SEEDS, steps=3, sampler=sampler)
    *_, there = model.to(DEVICE).sample(want, {}, SEEDS, steps=3, sampler=sampler)
    for part, z in here.items():
        assert (z - there[part].cpu()).abs().max() < 1e-2, part


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_step_of_every_lesson_is_taken_there(lesson, tmp_path):
    torch.cuda.reset_peak_memory_stats()
    (losses,) = trained(tmp_path / "run", *LESSONS[lesson])
    assert torch.cuda.max_memory_allocated() > 0
    assert all(math.isfinite(v) for v in losses.values() if isinstance(v, float))
    assert losses["norm"] > 0


def test_a_run_goes_on_there(tmp_path):
    trained(tmp_path / "run")
    assert [line["step"] for line in trained(tmp_path / "run", steps=2)] == [1, 2]


def test_all_modalities_are_made_and_taken_there(model, tmp_path):
    (made,) = model.generate(NAMES, {}, seeds=[0], steps=3)
    assert made.save(tmp_path)
    raw = World(seed=3).batch(torch.arange(1), ["image"])
    given = {"text": "a red ring", "image": raw["image"], "video": made["video"]}
    (more,) = model.generate(["image", "audio"], given, seeds=[0], steps=3, guidance=2.0,
                             keep={"image": "0,0,0.5,1"})  # fmt: skip
    for result, parts in ((made, ("image", "video", "audio")), (more, ("image", "audio"))):
        for part in parts:
            assert result[part].device.type == "cpu"
            assert result[part].isfinite().all(), part
    assert isinstance(made.text, str)
