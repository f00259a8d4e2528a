"""Samples during training: what TensorBoard and the folder get, from the seeds alone."""

import logging

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import raw_batch, tiny_model

from unigen import cli

TINY = ["train", "model=small", "modality=[image,audio]", "trainer.steps=2", "trainer.batch=4",
        "trainer.cache=8", "trainer.warmup=1", "trainer.log_every=1",
        "model.sampling.steps=2"]  # fmt: skip
SEEDS = range(4)


@pytest.fixture
def train(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level

    def run(out, preview):
        assert cli.main([*TINY, f"out={out}", f"trainer.preview_every={preview}"]) == 0
        return tmp_path / out

    yield run
    for handler in set(root.handlers) - set(handlers):  # those that Hydra added
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)


def curves(folder):
    return EventAccumulator(str(folder / "tensorboard"), size_guidance={}).Reload()


@pytest.mark.slow
def test_a_run_shows_samples_of_every_part_that_depend_on_seeds_only(train):
    first, second, without = train("first", 1), train("second", 1), train("without", 0)
    got, again = curves(first), curves(second)
    tags = got.Tags()
    assert set(tags["images"]) == {f"image/{i}" for i in SEEDS} | {f"audio/{i}/mel" for i in SEEDS}
    assert set(tags["audio"]) == {f"audio/{i}" for i in SEEDS}
    for tag in tags["images"]:
        pictures = [[x.encoded_image_string for x in each.Images(tag)] for each in (got, again)]
        assert pictures[0] == pictures[1]
        assert [x.step for x in got.Images(tag)] == [1, 2]
    for tag in tags["audio"]:
        sounds = [[x.encoded_audio_string for x in each.Audio(tag)] for each in (got, again)]
        assert sounds[0] == sounds[1]
    names = {name.format(i) for i in SEEDS for name in ("image_{}.png", "audio_{}.wav")}
    for step in (1, 2):
        made = {p.name: p for p in (first / f"samples/step-{step:08d}").iterdir()}
        assert names <= made.keys()
        for name in names:
            twin = second / f"samples/step-{step:08d}/{name}"
            assert made[name].read_bytes() == twin.read_bytes()
    assert not (without / "samples").exists()
    assert not curves(without).Tags()["images"]
    logs = [(out / "losses.jsonl").read_text() for out in (first, without)]
    assert logs[0] == logs[1]  # samples take nothing from the run


def test_the_picture_of_a_sound_shows_how_high_and_how_loud_it_is():
    audio = tiny_model().modality("audio")
    second = torch.arange(audio.samples) / audio.rate
    rows = []
    for pitch in (200.0, 800.0, 3200.0):
        gray = audio.picture(0.5 * torch.sin(2 * torch.pi * pitch * second)[None])
        assert gray.max() == 1 and gray.min() == 0
        rows.append(int(gray[0].mean(1).argmax()))
    assert rows[0] > rows[1] > rows[2]  # row 0 is the top
    assert not audio.picture(torch.zeros(1, audio.samples)).any()
    late = raw_batch(1)["audio"][:1] * (second > 1)  # silent in the first half
    middle = audio.picture(late).shape[2] // 2
    assert not audio.picture(late)[..., : middle - 3].any()
    assert audio.picture(late)[..., middle + 3 :].any()
