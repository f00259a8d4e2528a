"""What a plan says of a small model is what is counted and measured on it."""

import logging
import re
import resource

import pytest
import torch
from tiny import tiny_model, tiny_world

from unigen import cli
from unigen.data.latents import Latents
from unigen.errors import UsageError
from unigen.modalities.text import Text, spread
from unigen.objectives import Denoise, presence_sets
from unigen.plan import Speed, Step, lines, walk
from unigen.trainer import Trainer
from unigen.uvit import UViT

TOKENS = {"image": 4, "image:global": 1, "text": 16, "text:global": 1}
SETS = presence_sets(["image", "text"], [0.5, 0.5])


def measured(denoiser, tokens):
    """Bytes that torch really keeps of one sample for the way back, each storage once."""
    own = {p.untyped_storage().data_ptr() for p in denoiser.parameters()}
    kept = {}

    def keep(x):
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return x

    x = {p: torch.randn(1, n, denoiser.parts[p]) for p, n in tokens.items()}
    t = {p: torch.rand(1, n) for p, n in tokens.items()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        out = denoiser(x, t, {p: torch.rand(n, 3) for p, n in tokens.items()})
    assert out
    return sum(storage.nbytes() for storage in kept.values())


def test_state_is_what_a_trainer_holds():
    model = tiny_model()
    data = Latents(model, Denoise(), tiny_world(), 8)
    objective = Denoise(shares=[0.0, 0.0, 0.0, 1.0])
    trainer = Trainer(model, objective, data, batch=4, warmup=1)
    trainer.train_step()
    step = Step(model.denoiser, TOKENS, SETS, 4)
    groups, _ = trainer.state()
    parameters = list(trainer.module.parameters())
    assert step.parameters == sum(p.numel() for p in parameters)
    assert step.weights == sum(p.nbytes for p in parameters)
    assert step.average == sum(v.nbytes for v in groups["ema"].values()) - 8  # one counter
    held = [v for name, group in groups.items() if name.startswith("optimizer")
            for v in group.values() if v.ndim]  # fmt: skip
    used = {id(p) for p in parameters if p in trainer.optimizers[0].state}
    used |= {id(p) for p in parameters if p in trainer.optimizers[1].state}
    assert len(used) == len(parameters)
    assert step.moments == sum(v.nbytes for v in held)


@pytest.mark.parametrize("tokens", [TOKENS, {"image": 4}, {"text": 16, "text:global": 1}])
def test_activations_are_those_that_torch_keeps(tokens):
    denoiser = tiny_model().denoiser
    assert walk(denoiser, tokens)[1] == pytest.approx(measured(denoiser, tokens), rel=0.02)


def test_operations_are_six_a_weight_and_token_and_the_products_of_attention():
    width, depth, n = 64, 3, 10
    net = UViT({"a": 8}, width=width, depth=depth, head=32, ratio=2.0)
    flops, _ = walk(net, {"a": n})
    block = 4 * width**2 + 2 * 2 * width**2  # attention, feed-forward
    skip = 2 * width**2 * (depth // 2)
    inside = (n + 1) * (depth * block + skip)
    ends = n * 2 * 8 * width + (2 * n + 1) * 0
    clocks = (n + 1) * 64 * width + n * 48 * width
    products = depth * 2 * (n + 1) ** 2 * width
    expected = 6 * (inside + ends + clocks + products)
    inputs = 2 * (n * 8 * width + clocks)  # what came in needs no gradient
    assert flops == pytest.approx(expected - inputs, rel=0.01)


def test_long_sequences_are_counted_as_short_ones_are():
    net = UViT({"a": 8}, width=64, depth=3, head=32)
    short, long = (walk(net, {"a": n}) for n in (400, 800))  # plain products, fused kernel
    quadratic = 6 * 3 * 2 * 64
    linear = (short[0] - quadratic * 401**2) / 401
    again = 7 / 6  # the fused kernel makes the scores once more going back
    assert long[0] == pytest.approx(linear * 801 + again * quadratic * 801**2, rel=0.01)
    assert long[1] < 2.1 * short[1]  # the fused kernel keeps no scores


def test_forgetting_keeps_less_and_computes_a_third_more():
    net = UViT({"a": 8}, width=64, depth=9, head=32)
    plain, forgetful = walk(net, {"a": 50}), walk(net, {"a": 50}, checkpointing=True)
    assert forgetful[1] < 0.4 * plain[1]
    assert 1.3 < forgetful[0] / plain[0] < 1.4
    assert not net.blocks[0]._forward_pre_hooks


def test_processes_divide_what_they_share():
    step = Step(tiny_model().denoiser, TOKENS, SETS, 16)
    ddp, fsdp, one = step.memory(8, False), step.memory(8, True), step.memory(1, False)
    for name in ("weights", "gradients", "optimizer", "average"):
        assert ddp[name] == one[name] == 8 * fsdp[name]
    assert ddp["activations"] == one["activations"] / 8
    assert fsdp["total"] == sum(v for k, v in fsdp.items() if k != "total")
    assert step.moved(1, False) == step.moved(1, True) == 0
    assert step.moved(2, False) == step.weights
    assert step.moved(4, True) == pytest.approx(3 * 3 / 4 * step.weights)
    passes = Step(tiny_model().denoiser, TOKENS, SETS, 16, passes=4)
    assert passes.activations == step.activations / 4
    assert passes.flops == step.flops
    assert len(lines(step, Speed())) == 7 + 1 + 2 * 3


def test_presence_sets_are_drawn_as_often_as_planned():
    sets = presence_sets(["a", "b", "c"], [0.05, 0.45, 0.3, 0.2])
    assert sum(share for share, _ in sets) == pytest.approx(1)
    assert len(sets) == 7
    assert sum(s for s, names in sets if len(names) == 2) == pytest.approx(0.45 / 0.8)
    ways = Denoise(ways=["a > b: 0.5", "d > a: 0.5"]).sets(["c", "b", "a"])  # there is no d
    assert ways == [(0.5, ["a", "b"]), *((s / 2, names) for s, names in sets)]


def test_seconds_are_those_of_computing_and_then_those_of_sending():
    step = Step(tiny_model().denoiser, TOKENS, SETS, 16)
    one = step.seconds(1, False, Speed(tflops=1e-3, share=0.5, network=1e-3))
    assert one == pytest.approx(step.flops / 0.5e9)
    free, far = Speed(network=1e30), Speed(tflops=1e30, network=2.0)
    assert step.seconds(8, True, free) == pytest.approx(step.seconds(1, True, free) / 8)
    assert step.seconds(8, True, far) == pytest.approx(step.moved(8, True) / 2e9)
    both = Speed(tflops=1.0, share=0.3, network=0.01)
    parts = both.seconds(step.flops, 0.0, 8), both.seconds(0.0, step.moved(8, False), 8)
    assert step.seconds(8, False, both) == pytest.approx(sum(parts))


def test_shares_that_show_nothing_have_no_plan():
    with pytest.raises(UsageError, match=r"^objective\.shares=\[0, 0, 1\] shows no set of up to 2"):
        presence_sets(["a", "b"], [0, 0, 1])


@pytest.mark.parametrize("wrong", [{"share": 1.5}, {"tflops": 0}, {"network": float("nan")}])
def test_what_is_no_speed_is_refused(wrong):
    with pytest.raises(UsageError, match=rf"^assume\.{next(iter(wrong))}="):
        Speed(**wrong)


PLAN = ("train", "plan=true", "model=small", "modality=[text,image]", "trainer.batch=8")


@pytest.fixture
def planned(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level

    def call(*words):
        code = cli.main([*PLAN, "out=planned", *words])
        return code, capsys.readouterr()

    yield call
    for handler in set(root.handlers) - set(handlers):  # those that Hydra added
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)


def test_a_plan_is_printed_and_nothing_is_trained(planned, tmp_path):
    code, said = planned("assume.tflops=0.1", "assume.share=0.5", "assume.network=2")
    assert code == 0
    text = said.out.splitlines()
    facts = dict(re.split(r"  +", line, maxsplit=1) for line in text[:5])
    assert facts["batch"] == "8 samples"
    assert facts["assumed of each processor"] == "0.5 of 0.1 TFLOP a second, 2 GB a second sent"
    assert int(facts["parameters of the denoiser"].replace(",", "")) > 10_000
    flops = float(facts["operations a step"].split()[0]) * 1e12
    names, rows = text[6].split(), [line.split() for line in text[7:]]
    assert [(int(row[0]), row[1]) for row in rows] == [
        (1, "ddp"), *((n, engine) for n in (8, 64, 512) for engine in ("ddp", "fsdp"))
    ]  # fmt: skip
    for row in rows:
        assert len(row) == len(names)
        sent, seconds = (float(row[names.index(name)]) for name in ("sent", "seconds"))
        expected = flops / (int(row[0]) * 0.5 * 0.1e12) + sent / 2
        assert seconds == pytest.approx(expected, rel=0.02)
    assert not (tmp_path / "planned/checkpoints").exists()
    assert not (tmp_path / "planned/run.json").exists()


def test_a_plan_of_a_billion_weights_holds_none_of_them(planned):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code, said = planned("model.denoiser.width=4608", "model.denoiser.depth=5")
    assert code == 0
    weights = int(re.search(r"denoiser +([\d,]+)", said.out)[1].replace(",", ""))
    assert weights > 1e9
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert grown < 0.25 * 4 * weights


def test_a_plan_takes_weights_from_nothing_but_its_denoiser(planned):
    spread.cache_clear()
    assert planned()[0] == 0
    assert not any(x.is_meta for x in Text().state_dict().values())  # which knows of earlier ones


def test_a_plan_for_no_machine_says_what_to_type(planned):
    code, said = planned("assume.share=2")
    assert code == 2 and not said.out
    assert "assume.share=2 is no speed; it is at most 1 and more than 0." in said.err
