"""However many processes take a step, and in however many passes, it is the same step."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import tiny_model, tiny_world

from unigen.data.latents import Latents
from unigen.engine import Engine, blocks, engine_of, rows
from unigen.errors import UsageError
from unigen.flow import RectifiedFlow
from unigen.lens import Points
from unigen.objectives import Align, Denoise
from unigen.share import Draws, Share, draw
from unigen.team import Team, team_of
from unigen.trainer import Trainer

HERE = Path(__file__).parent
PLAIN = {"steps": 20, "options": {}}
MUON = {"steps": 20, "options": {"muon_lr": 0.02}}
CASES = {
    "ddp": {**PLAIN, "engine": "ddp"},
    "fsdp": {**PLAIN, "engine": "fsdp"},
    "ddp in passes": {"steps": 20, "options": {"accumulate": 2}},
    "fsdp in passes": {"steps": 20, "engine": "fsdp", "options": {"accumulate": 2}},
    "fsdp that forgets": {**PLAIN, "engine": "fsdp", "checkpointing": True},
    "image": {**PLAIN, "objective": "image"},
    "video": {**PLAIN, "objective": "video"},
    "align": {**PLAIN, "objective": "align"},
}
POISON = {"steps": 10, "options": {}, "poison": [1, 7, 8, 9]}


def alone(folder: Path, cases: dict[str, dict]) -> dict:
    """Return what a process alone makes of the cases."""
    return together(folder, cases, 1)


def together(folder: Path, cases: dict[str, dict], size: int = 2) -> dict:
    """Return what a team of processes makes of the cases; each failure is shown."""
    told, out = folder / f"cases-{size}.json", folder / f"out-{size}.json"
    told.write_text(json.dumps([{"name": name, **case} for name, case in cases.items()]))
    ends = side_by_side(str(HERE / "team_worker.py"), str(told), str(out), size=size)
    assert all(code == 0 for _, code in ends), "\n".join(text[-3000:] for text, _ in ends)
    return json.loads(out.read_text())


def side_by_side(*command: str, size: int = 2) -> list[tuple[str, int]]:
    """Return what every process of a team said on standard error, and its exit code."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "PYTHONPATH": f"{HERE.parent}:{HERE}", "OMP_NUM_THREADS": "1"}
    meeting = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    team = [
        subprocess.Popen(
            [sys.executable, *command],
            env={**env, **({**meeting, "RANK": str(i)} if size > 1 else {})},
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(size)
    ]
    try:
        return [(each.communicate(timeout=400)[1], each.returncode) for each in team]
    finally:
        for each in team:
            each.kill()


def apart(a: dict, b: dict) -> float:
    """Return the greatest difference of two runs' losses, relative where they are large."""
    assert len(a["losses"]) == len(b["losses"])
    return max(
        abs(x[k] - y[k]) / max(1.0, abs(x[k]))
        for x, y in zip(a["losses"], b["losses"], strict=True)
        for k in x
    )


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    single = {"denoise": PLAIN, "muon": MUON}
    single |= {name: case for name, case in CASES.items() if "objective" in case}
    one = alone(tmp_path, single)
    muon = {"ddp muon": {**MUON, "engine": "ddp"}, "fsdp muon": {**MUON, "engine": "fsdp"}}
    refused = {"refused": {**PLAIN, "engine": "fsdp", "objective": "align"}}
    two = together(tmp_path, {**CASES, **muon, **refused, "poison": {**POISON, "engine": "fsdp"}})
    for name in CASES:
        same = one[name if name in one else "denoise"]
        assert apart(same, two[name]) < 1e-5, name
        assert two[name]["average"] == pytest.approx(same["average"], rel=1e-5)
        assert (two[name]["sharded"] > 0) == name.startswith("fsdp")
    for name in muon:  # its iteration rounds to bfloat16, so a last bit may become many
        assert apart(one["muon"], two[name]) < 1e-2
    assert "trainer.engine=ddp" in two["refused"]["error"]
    assert two["poison"]["skipped"] == 4  # NaN in one process: all of them skip the step
    assert two["poison"]["step"] == 10


DYING = """
import os, signal
from unigen.team import team_of
with team_of(3600) as team:
    team.meet()
    if team.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    team.meet()
"""


@pytest.mark.slow
def test_a_wait_as_long_as_it_takes_ends_where_the_other_one_dies():
    (said, code), (_, killed) = side_by_side("-c", DYING)
    assert killed == -9
    assert code != 0
    assert "process 1 of 2 died" in said


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
def test_a_run_goes_on_with_another_number_of_processes(tmp_path, engine):
    run = str(tmp_path / "run")
    part = {"options": {}, "run": run, "steps": 4}
    (straight,) = alone(tmp_path, {"straight": {**PLAIN, "steps": 16}}).values()
    parts = [together(tmp_path, {"a": {**part, "engine": engine}})["a"]]
    parts += [alone(tmp_path, {"b": {**part, "load": True}})["b"]]
    more = {**part, "engine": engine, "load": True}
    parts += together(tmp_path, {"c": more, "d": more}).values()  # d: what c's own team wrote
    assert [p["step"] for p in parts] == [4, 8, 12, 16]
    assert apart(straight, {"losses": [x for p in parts for x in p["losses"]]}) < 1e-5


def trainer_of(objective=None, engine=None, **options):
    torch.manual_seed(0)
    objective, model = objective or Denoise(), tiny_model()
    data = Latents(tiny_model(), objective, tiny_world(), 24)
    options = {"steps": 9, "batch": 8, "warmup": 1, "bf16": False, "muon_lr": None, **options}
    return Trainer(model, objective, data, engine=engine, **options)


@pytest.mark.parametrize("passes", [2, 4])
def test_a_batch_in_passes_is_the_batch(passes):
    whole, parts = trainer_of(), trainer_of(accumulate=passes)
    seen = set()
    for _ in range(6):
        a, b = whole.train_step(), parts.train_step()
        assert a == pytest.approx(b, rel=1e-4, abs=1e-5)
        seen |= a.keys()
    assert "text" in seen  # whose losses have weights


@pytest.mark.parametrize("flow", [RectifiedFlow(), RectifiedFlow("eps")])
def test_losses_of_shares_have_the_loss_of_the_batch_as_their_mean(flow):
    torch.manual_seed(0)
    model = tiny_model()
    model.flow = flow
    names = list(model.modalities)
    x = model.encode(tiny_world().batch(torch.arange(6), names))
    with torch.no_grad():
        whole = model.loss(x, torch.Generator().manual_seed(5))
        shares = []
        for i in range(3):
            share = Share(i, 3)
            generator = Draws(share)
            generator.manual_seed(5)
            shares.append(model.loss({k: share.rows(z) for k, z in x.items()}, generator))
    for k in whole:
        assert torch.stack([s[k] for s in shares]).mean().item() == pytest.approx(
            whole[k].item(), rel=1e-5
        )
    assert isinstance(model.lens("text"), Points)
    assert len({float(s["text"]) for s in shares}) == 3


def test_random_numbers_of_shares_are_those_of_the_batch():
    whole = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    drawn = []
    for i in range(2):
        generator = Draws(Share(i, 2))
        generator.manual_seed(1)
        drawn.append(draw(torch.randn, (3, 3), generator, "cpu"))
    assert torch.equal(torch.cat(drawn), whole)
    plain = draw(torch.randn, (6, 3), torch.Generator().manual_seed(1), "cpu")
    assert torch.equal(plain, whole)


def test_forgetting_changes_no_bit_and_keeps_less():
    kept = []

    def count(x):
        kept[-1] += x.numel()
        return x

    losses = []
    for engine in (Engine(), Engine(checkpointing=True)):
        trainer, _ = trainer_of(engine=engine, batch=24), kept.append(0)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
            losses.append([trainer.train_step() for _ in range(3)])
    assert losses[0] == losses[1]
    assert kept[1] < 0.7 * kept[0]


@pytest.mark.slow
def test_compiled_blocks_learn_the_same(tmp_path):
    few = {"steps": 3, "options": {}}
    both = alone(tmp_path, {"plain": few, "compiled": {**few, "compile": True}})
    assert apart(both["plain"], both["compiled"]) < 1e-4


def test_every_block_of_the_denoiser_and_the_towers_is_found():
    model = tiny_model()
    assert blocks(model.denoiser) == list(model.denoiser.blocks)
    towers = Align("text").module(model)
    assert len(blocks(towers)) == sum(len(t.blocks) for n, t in towers.items() if n != "similarity")


def test_rows_of_processes_are_all_rows_once():
    for count in (1, 2, 5, 7, 64):
        for size in (1, 2, 3, 8):
            bounds = [rows(count, rank, size) for rank in range(size)]
            assert [i for first, last in bounds for i in range(first, last)] == list(range(count))
            chunks = [len(c) for c in torch.arange(count).chunk(size)]
            assert [b - a for a, b in bounds][: len(chunks)] == chunks


def test_what_does_not_split_is_refused():
    with pytest.raises(UsageError, match=r"batch=8 .*accumulate=3"):
        trainer_of(accumulate=3)
    with pytest.raises(UsageError, match=r"accumulate=1"):
        trainer_of(Align("text"), accumulate=2).train_step()
    with pytest.raises(UsageError, match=r"5 samples .* 2 equal shares"):
        Share(0, 2).rows(torch.arange(5))
    with pytest.raises(UsageError, match=r"engine=dpp is unknown; choose ddp or fsdp"):
        engine_of("dpp", Team())
    with pytest.raises(UsageError, match=r"timeout=0.0 "), team_of(0.0):
        pytest.fail("no time is enough")
    with pytest.raises(UsageError, match=r"schedule=linear is unknown"):
        trainer_of(schedule="linear").train_step()


def test_a_process_without_torchrun_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with team_of(1.0) as team:
        assert (team.rank, team.size) == (0, 1)
        assert type(engine_of("fsdp", team)) is Engine
        assert team.tell("x") == "x" and team.hear(3) == [3] and team.any(True, False) == (1, 0)
