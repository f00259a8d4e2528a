"""The digits: pictures become drawings, and every stage of the example runs."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from unigen.cli import main
from unigen.model import load

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TINY = (
    "model=small", "trainer.steps=3", "trainer.batch=8", "trainer.warmup=1", "trainer.workers=0",
    "trainer.preview_every=0", "model.sampling.steps=2",
)  # fmt: skip


@pytest.fixture
def media(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return pytest.importorskip("digit_media")


def ring() -> np.ndarray:
    """A zero of 8 x 8, as a hand may write it."""
    row, column = np.mgrid[:8, :8] - 3.5
    return (1 - np.abs(np.hypot(row / 1.2, column) - 2.3)).clip(0, 1)


def test_a_drawing_only_gains_ink_and_ends_at_the_picture(media):
    frames, whole = media.drawing(ring()), media.picture(ring())
    assert frames.shape == (media.FRAMES, media.SIZE, media.SIZE)
    assert (np.diff(frames, axis=0) >= 0).all()
    assert np.array_equal(frames[-1], whole)
    assert np.array_equal(frames[media.DRAWN], whole)
    assert 0 < frames[0].sum() < 0.2 * whole.sum()


def test_a_pen_follows_the_ink_around_a_gap(media):
    ink = np.zeros((8, 8))
    ink[:, 1] = ink[7, 1:7] = ink[:, 6] = 1.0  # a U: the ends are near, and far along the ink
    when = media.order(ink)
    assert when[0, 1] == 0 and when[0, 6] == 1
    assert (np.diff(when[:, 1]) > 0).all() and (np.diff(when[:, 6]) < 0).all()
    assert when[7, 1] < when[7, 6]


def test_the_cast_of_a_picture_is_fixed_and_no_voice_is_on_both_sides(media):
    assert not set(media.VOICES["train"]) & set(media.VOICES["held_out"])
    for number in range(20):
        cast = media.cast(number, "train", 3)
        assert cast == media.cast(number, "train", 3)
        assert len({voice for voice, *_ in cast}) == 3
    heard = {v for n in range(200) for v, *_ in media.cast(n, "train", 3)}
    assert heard == set(media.VOICES["train"])
    assert {media.split_of(n) for n in range(media.HELD_OUT)} == {"train", "held_out"}


def test_a_word_is_read_alike_however_loud_and_however_much_silence_is_around_it(media):
    from digit_readers import cepstra

    time = torch.arange(4800) / media.RATE
    sweep = torch.sin(2 * torch.pi * (300 + 1500 * time) * time) * torch.hann_window(4800)
    early, late = torch.zeros(2, 32_000)
    early[:4800], late[9600:14_400] = 0.5 * sweep, 0.1 * sweep
    one, other = cepstra(torch.stack([early, late]))
    noise = cepstra(torch.randn(1, 32_000, generator=torch.Generator().manual_seed(0)))[0]
    assert np.linalg.norm(one - other) < 0.1 * np.linalg.norm(one - noise)


@pytest.mark.slow
def test_every_stage_runs_from_recordings_to_scores(media, tmp_path):
    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng is not here: apt-get install espeak-ng brings it")
    if importlib.util.find_spec("sklearn") is None:
        pytest.skip("scikit-learn is not here: pip install 'unigen[digits]' brings it")
    import digits

    media.make(tmp_path / "media", range(30), takes=2)
    split = {name: tmp_path / "media" / name for name in ("train", "held_out")}
    assert len(list((split["train"] / "audio").iterdir())) == 48
    assert len(list((split["train"] / "video").iterdir())) == 24
    assert len(list((split["held_out"] / "image").iterdir())) == 6
    for folder in split.values():
        assert main(["data", "check", f"data.root={folder}", f"out={tmp_path / 'report'}"]) == 0
    for command in digits.stages(tmp_path, *TINY).values():
        small = ["init=modalities@embedded" if w == "init=embedded" else w for w in command]
        assert main(small) == 0
    model = load(tmp_path / digits.MODEL)
    said = {path.read_text().strip() for path in (split["train"] / "text").iterdir()}
    assert said <= set(media.WORDS) and said <= set(model.modality("text").words)
    report = digits.evaluate(model, tmp_path / "media")
    assert json.loads(json.dumps(report)) == report
    assert report["image -> audio"]["n"] == report["audio -> image"]["n"] == 6
    assert all(0 <= report[part]["audio"]["right"] <= 1 for part in ("real", "codec only"))
