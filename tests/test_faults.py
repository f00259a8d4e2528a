"""What a training run survives: the checks of benchmarks/faults.py, once or twice each."""

import importlib
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from tiny import tiny_model, tiny_world

from unigen.data.latents import Latents
from unigen.errors import ResourceError
from unigen.media import limits
from unigen.objectives import Denoise
from unigen.trainer import Trainer

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
faults = importlib.import_module("faults")
FEW = {"A1": 2, "A2": 1, "A3": 5, "A4": 2, "A5": 2, "A6": 1, "A7": 1, "A8": 1, "A9": 5, "A10": 20,
       "A12": 1, "A13": 40, "B1": 100, "B2": 7, "B3": 1, "B4": 2, "B5": 11}  # fmt: skip


@pytest.mark.reliability
@pytest.mark.parametrize("name", FEW)
def test_a_run_survives(name, tmp_path, monkeypatch):
    check, full = faults.CHECKS[name]
    if name == "B4":  # a decoder that hangs is given up sooner
        monkeypatch.setattr(limits, "WORKER_SECONDS", 2.0)
    outcome = check(tmp_path, FEW[name])
    assert FEW[name] <= full
    assert outcome["good"] == outcome["n"], outcome  # times are for an idle machine to judge


@pytest.mark.slow
def test_a_run_whose_weights_are_shared_stops_and_goes_on_bit_for_bit(tmp_path):
    shared = faults.faults_shared
    words = ("trainer.engine=fsdp", "trainer.bf16=true", "trainer.steps=24",
             "trainer.save_every=1000.0")  # fmt: skip
    straight, out = tmp_path / "straight", tmp_path / "run"
    code, said = shared.finished(shared.started(straight, *words, team=shared.TEAM))
    assert code == 0, said
    run = shared.started(out, *words, team=shared.TEAM)
    shared.until(lambda: len(shared.logged(out)) >= 4, run)
    os.kill(shared.process(run, 1), signal.SIGTERM)  # one is told, both stop
    code, said = shared.finished(run)
    assert code == 1 and "exitcode  : 143" in said, said  # of torchrun, and of a process
    stopped = shared.newest(out)
    assert 4 <= stopped == len(shared.logged(out)) < 24
    (step,) = (out / "checkpoints").iterdir()
    assert {path.name for path in step.iterdir()} >= {
        f"model-0000{rank}-of-00002.safetensors" for rank in (1, 2)
    }
    code, said = shared.finished(shared.started(out, *words, team=shared.TEAM))
    assert code == 0, said
    assert shared.logged(out) == shared.logged(straight)
    assert len(shared.logged(out)) == 24
    for name in ("config.json", "model.safetensors"):
        assert (out / "model" / name).read_bytes() == (straight / "model" / name).read_bytes()


def test_every_check_is_tried_and_fails_where_something_is_lost_or_late(capsys):
    assert FEW.keys() == faults.CHECKS.keys()
    line = faults.faults_shared.line
    assert line("X", "all", 3, 3, {"end": (4.0, 5)}, more=1)["pass"]
    assert not line("X", "lost", 3, 2)["pass"]
    assert not line("X", "late", 3, 3, {"end": (5.1, 5)})["pass"]
    assert len(capsys.readouterr().out.splitlines()) == 3


def trainer_of(**options):
    model = tiny_model()
    data = Latents(tiny_model(), Denoise(), tiny_world(), 24)
    return Trainer(model, Denoise(), data, **{"steps": 60, "batch": 4, "warmup": 1, **options})


def poisoned(trainer, steps):
    """Make the gradient not finite at some steps: the loss is, its slope is not."""
    loss = trainer.objective.loss

    def made(*inputs):
        losses = loss(*inputs)
        weight = next(trainer.module.parameters())
        slope = (weight - weight.detach()).abs().sum().sqrt()  # 0, with an infinite slope
        return {k: x + slope for k, x in losses.items()} if trainer.step in steps else losses

    trainer.objective.loss = made


def test_a_bad_gradient_is_skipped_and_counted():
    trainer = trainer_of()
    poisoned(trainer, {1, 7, 8, 9})
    for step in range(11):
        before = {k: v.clone() for k, v in trainer.module.state_dict().items()}
        losses = trainer.train_step()
        same = all(torch.equal(v, before[k]) for k, v in trainer.module.state_dict().items())
        assert same == (step in {1, 7, 8, 9})
    assert trainer.skipped == 4 and losses["skipped"] == 4
    again = trainer_of()
    again.load_state(*trainer.state())
    assert again.skipped == 4
    groups, meta = trainer.state()
    del meta["skipped"]  # as before it was counted
    again.load_state(groups, meta)
    assert again.skipped == 0


def test_five_bad_steps_in_a_row_name_their_samples():
    trainer = trainer_of()
    poisoned(trainer, set(range(3, 60)))
    with pytest.raises(ResourceError) as caught:
        for _ in range(60):
            trainer.train_step()
    assert trainer.step == 8
    index = trainer.data.order(0, 7, 4).tolist()
    assert f"samples are {', '.join(map(str, index))};" in str(caught.value)
    trainer = trainer_of(patience=1)
    row = int(trainer.data.order(0, 0, 4)[2])
    for z in trainer.data.store.values():
        z[row] = float("inf")
    with pytest.raises(ResourceError, match=rf"samples are {row} \(their data is not finite\)"):
        trainer.train_step()
