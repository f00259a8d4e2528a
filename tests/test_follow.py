"""Following a run: the log of losses, the curves, and Weights & Biases where it is installed."""

import json

import pytest

from unigen.follow import following, journal


def test_the_log_holds_the_means_since_the_last_line(tmp_path):
    with following(tmp_path, 0, 4, 2, None, {}) as follower:
        for x in (1.0, 3.0):
            follower.add({"image": x})
        follower.tell(2)
        follower.add({"image": 5.0, "text": 2.0})
        follower.tell(3)
    lines = [json.loads(x) for x in (tmp_path / "losses.jsonl").read_text().splitlines()]
    assert lines == [{"step": 2, "image": 2.0}, {"step": 3, "image": 5.0, "text": 2.0}]
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_log_goes_on_after_a_step_without_what_came_later(tmp_path):
    path = tmp_path / "losses.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    with journal(path, 2) as log:
        log.write('{"step": 3, "again": 1}\n')
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3, "again": 1}\n'


@pytest.mark.extra
def test_weights_and_biases_gets_what_the_log_gets(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="Weights & Biases is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with following(tmp_path, 0, 4, 2, "a project", {"seed": 3}) as follower:
        for step in range(1, 5):
            follower.add({"image": 1.0 / step})
            follower.tell(step)
        follower.tracker.log({}, step=5)  # a step counts when the next one begins
        assert follower.tracker.summary["image"] == 0.25
        assert follower.tracker.config["seed"] == 3
    assert list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
