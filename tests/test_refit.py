"""Output layers by least squares: at the minimum of the loss, wherever they began."""

from functools import partial

import pytest
import torch
from tiny import tiny_model, tiny_world
from torch import nn

from unigen import cli
from unigen.checkpoint import load_folder
from unigen.data.latents import Latents
from unigen.objectives import Denoise
from unigen.refit import Normal, refit
from unigen.trainer import Trainer


def trainer_of(**options):
    torch.manual_seed(0)
    objective, model = Denoise(), tiny_model()
    data = Latents(model, objective, tiny_world(), 64)
    return Trainer(model, objective, data, batch=16, warmup=1, bf16=False, **options)


def total(trainer, batches, parts):
    """The losses of some batches, of the parts that are asked for."""
    works = [trainer.read(trainer.step + i) for i in range(batches)]
    found = [trainer.losses(trainer.lesson, work, *each) for work in works for each in work.batches]
    return sum(x for each in found for name, x in each.items() if name in parts)


def test_a_linear_regression_is_solved_in_one_go():
    torch.manual_seed(0)
    x, layer, weight = torch.randn(4, 50, 6), nn.Linear(6, 3), torch.rand(4, 50)
    y = x @ torch.randn(6, 3) + 2 + 0.1 * torch.randn(4, 50, 3)

    def loss(i):
        return {"a": ((layer(x[i]) - y[i]).square().mean(-1) * weight[i]).mean()}

    refit({"a": layer, "b": nn.Linear(6, 3)}, [partial(loss, i) for i in range(4)])
    root = weight.flatten().sqrt()[:, None].double()
    rows = torch.cat([x, torch.ones(4, 50, 1)], -1).flatten(0, 1).double()
    right = torch.linalg.lstsq(root * rows, root * y.flatten(0, 1).double()).solution
    assert torch.allclose(layer.weight.double(), right[:-1].T, atol=1e-4)
    assert torch.allclose(layer.bias.double(), right[-1], atol=1e-4)


def test_a_layer_of_which_there_was_no_loss_stays():
    layer = nn.Linear(6, 3)
    before = layer.weight.clone()
    refit({"a": layer}, [])
    assert torch.equal(layer.weight, before)
    assert not Normal(layer).square.any()


def test_the_denoiser_ends_at_the_minimum_of_its_losses_in_its_output_layers():
    trainer = trainer_of(ema=0.5)
    for _ in range(3):
        trainer.train_step()
    trainer.averaged_model()
    before = {k: v.clone() for k, v in trainer.module.state_dict().items()}
    layers = trainer.module.outputs()
    numbers = [p for p in layers if trainer.model.lens(p).quadratic]
    assert set(layers) - set(numbers) == {"text"}
    loss = total(trainer, 12, numbers).item()
    trainer.refit(12)
    moved = {k for k, v in trainer.module.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {f"head_out.{p.replace(':', '__')}.{w}" for p in numbers
                     for w in ("weight", "bias")}  # fmt: skip
    average = trainer.ema.module.state_dict()
    assert all(torch.equal(v, average[k]) for k, v in trainer.module.state_dict().items())
    weights = [w for p in numbers for w in layers[p].parameters()]
    for w in weights:
        w.requires_grad_(True)
    after = total(trainer, 12, numbers)
    slopes = torch.autograd.grad(after, weights)
    assert after.item() < loss
    assert max(float(slope.abs().max()) for slope in slopes) < 0.01
    assert all(not layer._forward_hooks for layer in layers.values())


def test_a_run_may_end_with_it(tmp_path):
    words = ["train", "model=small", "trainer.steps=1", "trainer.cache=8", "trainer.batch=4",
             f"out={tmp_path}/run"]  # fmt: skip
    assert cli.main(words) == 0
    before = load_folder(tmp_path / "run/model")[1]
    assert cli.main([*words, "trainer.refit=2"]) == 0  # of the same run, which is over
    after = load_folder(tmp_path / "run/model")[1]
    moved = {k for k, v in before.items() if not torch.equal(v, after[k])}
    assert moved
    assert all(k.startswith("denoiser.head_out.") for k in moved)


@pytest.mark.parametrize("wrong", [
    ["objective=codec", "objective.modality=image"], ["objective=align"], ["tune=new"],
])  # fmt: skip
def test_only_a_whole_denoiser_has_output_layers_to_solve(wrong, tmp_path, capsys):
    words = ["train", "model=small", "trainer.steps=1", "trainer.refit=1", "trainer.cache=8",
             "trainer.batch=4", f"out={tmp_path}/run", *wrong]  # fmt: skip
    assert cli.main(words) == 2
    assert "unigen: trainer.refit solves" in capsys.readouterr().err
