"""What a training run survives: the checks of benchmarks/faults.py, once or twice each."""

import importlib.util
from pathlib import Path

import pytest
import torch
from tiny import tiny_model, tiny_world

from unigen.data.latents import Latents
from unigen.errors import ResourceError
from unigen.objectives import Denoise
from unigen.trainer import Trainer

_SPEC = importlib.util.spec_from_file_location(
    "faults", Path(__file__).parents[1] / "benchmarks" / "faults.py"
)
faults = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(faults)


@pytest.mark.reliability
@pytest.mark.parametrize(
    ("name", "n"),
    [("A1", 2), ("A2", 1), ("A4", 1), ("A7", 1), ("A8", 1), ("A10", 20), ("A12", 1)],
)
def test_a_run_survives(name, n, tmp_path):
    check, full = faults.CHECKS[name]
    assert n <= full
    assert check(tmp_path, n)


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
