"""Following a run: the log of losses, the curves, and Weights & Biases where it is installed."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import tiny_model

from unigen import cli
from unigen.disk import dump_json
from unigen.follow import following
from unigen.journal import append, rewind
from unigen.trainer import Trainer

ROOT = Path(__file__).parents[1]
TINY = ["train", "model=small", "modality=[text]", "trainer.batch=4", "trainer.cache=8",
        "trainer.preview_every=0"]  # fmt: skip


@pytest.fixture
def train(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level

    def run(out, *words):
        return cli.main([*TINY, f"out={out}", *words])

    yield run
    for handler in set(root.handlers) - set(handlers):  # those that Hydra added
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)


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
    rewind(path, 2)
    append(path, 3, {"again": 1})
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3, "again": 1}\n'


@pytest.mark.slow
def test_a_stopped_run_logs_what_one_that_was_not_stopped_does(train, tmp_path, monkeypatch):
    words = ("trainer.steps=9", "trainer.log_every=4")
    assert train("whole", *words) == 0
    step = Trainer.train_step

    def stopped(trainer):
        losses = step(trainer)
        if trainer.step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return losses

    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="143"):
        patch.setattr(Trainer, "train_step", stopped)
        train("parts", *words)
    assert train("parts", *words) == 0
    whole, parts = (tmp_path / out / "losses.jsonl" for out in ("whole", "parts"))
    assert [json.loads(x)["step"] for x in whole.read_text().splitlines()] == [4, 8, 9]
    assert parts.read_bytes() == whole.read_bytes()


def test_a_short_run_has_a_last_line(train, tmp_path):
    assert train("short", "trainer.steps=2") == 0
    (line,) = (tmp_path / "short/losses.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 2


def test_sums_are_kept_to_the_last_bit_and_may_be_no_numbers(tmp_path):
    losses = ({"image": 0.1, "text": float("inf")}, {"image": 0.7, "text": -float("inf")})
    with following(tmp_path / "whole", 0, 4, 2, None, {}) as follower:
        for each in losses:
            follower.add(each)
        follower.tell(2)
    with following(tmp_path / "parts", 0, 4, 2, None, {}) as follower:
        follower.add(losses[0])
        kept = json.loads(dump_json(follower.state()))
    with following(tmp_path / "parts", 1, 4, 2, None, {}, kept) as follower:
        follower.add(losses[1])
        follower.tell(2)
        assert follower.state() == {}
    whole, parts = (tmp_path / out / "losses.jsonl" for out in ("whole", "parts"))
    assert parts.read_bytes() == whole.read_bytes() and b"NaN" in whole.read_bytes()


ON_A_FULL_DISK = """
import resource, sys, threading
from pathlib import Path
from unigen.errors import ResourceError
from unigen.follow import following
resource.setrlimit(resource.RLIMIT_FSIZE, (16, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    with following(Path(sys.argv[1]), 0, 4, 2, None, {}):
        print("nothing can be written here")
except ResourceError as error:
    print(error)
for thread in set(threading.enumerate()) - {threading.current_thread()}:
    thread.join(1.0)
"""


def test_curves_on_a_full_disk_are_one_sentence(tmp_path):
    command = [sys.executable, "-c", ON_A_FULL_DISK, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"Cannot write .*tensorboard' .*File too large.*\n", done.stdout)
    assert "Traceback" not in done.stderr  # of the thread that writes


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
        assert follower.tracker.run.summary["image"] == 0.25
        assert follower.tracker.run.config["seed"] == 3
    assert list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))


@pytest.mark.extra
def test_a_run_that_goes_on_is_one_run_of_weights_and_biases(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="Weights & Biases is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    model, ids = tiny_model(), []
    raw = {"image": torch.rand(1, 3, 16, 16), "text": ["a <b> & c"],
           "audio": torch.rand(1, model.modality("audio").samples)}  # fmt: skip
    for step in (1, 2):
        with following(tmp_path, step - 1, 4, 2, "a project", {}) as follower:
            ids.append(follower.tracker.run.id)
            for name, value in raw.items():
                follower.show(model.modality(name), f"{name}/0", value, step)
            follower.tracker.log({}, step=step + 1)
            summary = follower.tracker.run.summary
            assert summary["image/0"]["_type"] == summary["audio/0/mel"]["_type"] == "image-file"
            assert summary["audio/0"]["_type"] == "audio-file"
            assert summary["text/0"]["_type"] == "html-file"
    assert ids[0] == ids[1] == (tmp_path / "wandb.id").read_text()
