"""A training checkpoint is complete or absent, and one that was damaged is never used."""

import json
import os
import random
import select
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from torch import nn

from unigen.disk import put, staged
from unigen.errors import CheckpointError, ResourceError, UsageError
from unigen.journal import append, rewind
from unigen.owner import lock, refuse_clock, refuse_owned
from unigen.runs import latest_step, load_step, save_step, sweep
from unigen.state import flatten_optimizer, unflatten_optimizer

META = {"step": 3, "loss": 0.1 + 0.2, "seeds": [2**62, -1], "note": "\u00e9 \u202e"}


def groups(step: int) -> dict[str, dict[str, torch.Tensor]]:
    """Return tensors that tell which step saved them."""
    model = {"w": torch.arange(300.0) + step, "b.x": torch.tensor(float(step))}
    return {"model": model, "ema": {"w": model["w"].bfloat16()}, "optimizer": {}}


def names(run: Path) -> list[str]:
    """Return what is in the checkpoint folder of a run."""
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_a_step_comes_back_exactly(tmp_path):
    folder = save_step(tmp_path, 123, groups(123), META)
    assert folder == tmp_path / "checkpoints" / "step-00000123"
    assert latest_step(tmp_path) == (folder, [])
    tensors, meta = load_step(folder)
    assert meta == META
    assert meta["loss"].hex() == META["loss"].hex()
    assert tensors.keys() == groups(123).keys()
    for name, group in groups(123).items():
        assert tensors[name].keys() == group.keys()
        for key, tensor in group.items():
            assert torch.equal(tensors[name][key], tensor)
            assert tensors[name][key].dtype == tensor.dtype
    assert {path.stat().st_mode & 0o027 for path in folder.iterdir()} == {0}


def test_a_run_without_checkpoints_has_no_latest(tmp_path):
    assert latest_step(tmp_path / "new") == (None, [])
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-1").mkdir()
    (tmp_path / "checkpoints" / "step-00000001.tmp-0").mkdir()
    (tmp_path / "checkpoints" / "notes.txt").write_text("mine")
    assert latest_step(tmp_path) == (None, [])
    with pytest.raises(UsageError):
        load_step(tmp_path / "checkpoints" / "step-00000001")


def test_older_steps_are_dropped_beyond_keep_and_later_ones_are_not(tmp_path):
    for step in (1, 2, 3, 100_000_000):
        save_step(tmp_path, step, groups(step), {})
    assert names(tmp_path) == ["step-00000003", "step-100000000"]
    assert latest_step(tmp_path).folder.name == "step-100000000"
    save_step(tmp_path, 50, groups(50), {}, keep=1)
    assert names(tmp_path) == ["step-00000050", "step-100000000"]


def test_saving_a_step_again_replaces_it_whole(tmp_path):
    save_step(tmp_path, 7, groups(7), {"first": 1})
    folder = save_step(tmp_path, 7, {"model": {"w": torch.ones(2)}}, {"second": 2})
    assert load_step(folder)[1] == {"second": 2}
    assert list(load_step(folder)[0]) == ["model"]
    assert names(tmp_path) == ["step-00000007"]


def test_sweep_takes_dead_stages_only(tmp_path):
    save_step(tmp_path, 1, groups(1), {})
    for name in ("step-00000002.tmp-abc", "step-00000001.tmp-def", "other.tmp-x"):
        (tmp_path / "checkpoints" / name).mkdir()
        (tmp_path / "checkpoints" / name / "model.safetensors").write_bytes(b"half")
    gone = sweep(tmp_path)
    assert [path.name for path in gone] == ["step-00000001.tmp-def", "step-00000002.tmp-abc"]
    assert names(tmp_path) == ["other.tmp-x", "step-00000001"]
    assert sweep(tmp_path / "nowhere") == []


def test_sweep_takes_what_a_killed_record_left_beside_the_checkpoints(tmp_path):
    names = ("losses.jsonl", "run-2.diff", "run.json", "validation.jsonl", "wandb.id")
    stages = [f"{name}.tmp-abc" for name in names]
    for name in (*stages, "run-2.diff", "mine.tmp-abc", "model.tmp-abc"):
        (tmp_path / name).write_bytes(b"half")
    assert [path.name for path in sweep(tmp_path)] == stages
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["mine.tmp-abc", "model.tmp-abc", "run-2.diff"]


def test_what_cannot_be_put_in_its_place_leaves_nothing(tmp_path):
    (tmp_path / "run.json").mkdir()  # a file cannot take its place
    with pytest.raises(UsageError, match=r"Cannot write .*run\.json' \(4 bytes\)"):
        put(tmp_path / "run.json", b"half")
    put(tmp_path / "run.diff", b"old")
    put(tmp_path / "run.diff", b"new")
    assert (tmp_path / "run.diff").read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.diff", "run.json"]


def test_a_writer_leaves_the_stages_of_its_neighbors_alone(tmp_path):
    with staged(tmp_path / "shards_val", 1) as other:
        (other / "file").write_bytes(b"half")
        with staged(tmp_path / "shards", 1) as stage:
            (stage / "file").write_bytes(b"whole")
        assert (other / "file").read_bytes() == b"half"
        with (
            pytest.raises(UsageError, match=r"shards_val.*another process"),
            staged(tmp_path / "shards_val", 1),
        ):
            raise AssertionError("two writers at once")
        (other / "file").write_bytes(b"all")
    assert (tmp_path / "shards_val" / "file").read_bytes() == b"all"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shards", "shards_val"]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Save steps 1 and 2 of a run once."""
    run = tmp_path_factory.mktemp("two")
    for step in (1, 2):
        save_step(run, step, groups(step), {**META, "step": step})
    return run


@pytest.mark.parametrize("seed", range(100))
def test_one_flipped_bit_anywhere_is_found_and_the_older_step_is_used(two, tmp_path, seed):
    shutil.copytree(two, tmp_path, dirs_exist_ok=True)
    old, new = sorted((tmp_path / "checkpoints").iterdir())
    chance = random.Random(seed)
    path = sorted(new.iterdir())[seed % 5]
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    folder, notes = latest_step(tmp_path)
    assert folder == old
    assert len(notes) == 1
    assert path.name in notes[0]
    with pytest.raises(CheckpointError, match=path.name):
        load_step(new)
    assert load_step(old)[1] == {**META, "step": 1}


@pytest.mark.parametrize("name", ["manifest.json", "meta.json", "model.safetensors"])
@pytest.mark.parametrize("fault", ["gone", "empty", "cut", "longer", "other", "fifo", "link"])
def test_a_damaged_file_is_found(two, tmp_path, name, fault):
    shutil.copytree(two, tmp_path, dirs_exist_ok=True)
    other, folder = sorted((tmp_path / "checkpoints").iterdir())
    path, data = folder / name, (folder / name).read_bytes()
    path.unlink()
    if fault == "fifo":
        os.mkfifo(path)
    elif fault == "link":
        path.symlink_to(other / name)
    elif fault != "gone":
        changed = {"empty": b"", "cut": data[:-1], "longer": data + b"\n"}
        path.write_bytes(changed.get(fault, (other / name).read_bytes()))
    assert latest_step(tmp_path).folder == other
    with pytest.raises(CheckpointError, match="changed" if fault == "other" else name):
        load_step(folder)


def test_no_good_step_is_a_fault_that_names_every_one(tmp_path):
    for step in (1, 2):
        (save_step(tmp_path, step, groups(step), {}) / "meta.json").write_text("{}")
    with pytest.raises(CheckpointError, match="step-00000002.*step-00000001"):
        latest_step(tmp_path)


@pytest.mark.parametrize("group", ["model", "ema", "optimizer"])
def test_a_nan_is_never_saved(tmp_path, group):
    save_step(tmp_path, 1, groups(1), {})
    bad = groups(2)
    bad[group] = {"w": torch.tensor([1.0, float("nan")])}
    with pytest.raises(ResourceError, match="NaN"):
        save_step(tmp_path, 2, bad, {})
    with pytest.raises(ValueError, match="JSON"):
        save_step(tmp_path, 2, groups(2), {"loss": float("nan")})
    assert names(tmp_path) == ["step-00000001"]


def test_too_little_space_is_said_before_anything_is_written(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    save_step(tmp_path, 1, groups(1), {})
    monkeypatch.setattr("unigen.disk.shutil.disk_usage", lambda path: usage(10**9, 0, 1000))
    with pytest.raises(ResourceError, match=r"step-00000002.* bytes and 1000 are free"):
        save_step(tmp_path, 2, groups(2), {})
    assert names(tmp_path) == ["step-00000001"]


def test_a_run_has_one_owner(tmp_path, monkeypatch):
    refuse_owned(tmp_path / "run")
    assert not (tmp_path / "run").exists()  # asking makes nothing
    with lock(tmp_path / "run"):
        with pytest.raises(UsageError, match="is used by another run"):
            refuse_owned(tmp_path / "run")
        monkeypatch.setenv("RANK", "1")  # the first process of its team is the owner
        refuse_owned(tmp_path / "run")
        monkeypatch.delenv("RANK")
        with pytest.raises(UsageError, match="is used by another run"), lock(tmp_path / "run"):
            pytest.fail("two owners")
        with lock(tmp_path / "other"):
            pass
    refuse_owned(tmp_path / "run")
    with lock(tmp_path / "run"):
        pass


def test_a_forked_worker_does_not_keep_the_lock_of_a_dead_run(tmp_path):
    ready, done = os.pipe(), os.pipe()
    run = os.fork()
    if run == 0:
        holder = lock(tmp_path)
        holder.__enter__()
        if os.fork() == 0:  # the worker: tells that it lives, and stays until told to go
            os.close(done[1])
            os.write(ready[1], b"x")
            os.read(done[0], 1)
        os._exit(0)  # no unlocking
    os.waitpid(run, 0)
    assert os.read(ready[0], 1) == b"x"
    with lock(tmp_path):
        pass
    for descriptor in (*ready, *done):
        os.close(descriptor)


def test_the_lock_file_is_no_way_out(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "outside")
    with pytest.raises(UsageError), lock(tmp_path / "run"):
        pytest.fail("a link was followed")
    assert not (tmp_path / "outside").exists()


def train(kind: str, steps: int, state: tuple | None = None):
    """Train a tiny net, from a saved state if given; return its weights and state."""
    torch.manual_seed(0)
    net = nn.Linear(4, 4, bias=False)
    if kind == "adamw":
        groups = [{"params": net.parameters(), "lr": 0.1 + 1e-9, "betas": (0.9, 1 - 1e-3)}]
        optimizer = torch.optim.AdamW(groups, amsgrad=True)
    else:
        optimizer = torch.optim.Muon(net.parameters(), lr=0.02)
    start = 0
    if state is not None:
        weights, saved, start = state
        net.load_state_dict(weights)
        optimizer.load_state_dict(saved)
    for step in range(start, steps):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (net(x) - x).square().mean().backward()
        optimizer.step()
    return net.state_dict(), optimizer.state_dict()


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_resumed_optimizer_goes_on_as_if_never_stopped(tmp_path, kind):
    whole, whole_state = train(kind, 6)
    weights, state = train(kind, 3)
    tensors, meta = flatten_optimizer(state)
    folder = save_step(tmp_path, 3, {"model": weights, "optimizer": tensors}, {"optimizer": meta})
    tensors, loaded = load_step(folder)
    state = unflatten_optimizer(tensors["optimizer"], loaded["optimizer"])
    resumed, resumed_state = train(kind, 6, (tensors["model"], state, 3))
    assert torch.equal(resumed["weight"], whole["weight"])
    assert resumed_state["param_groups"] == whole_state["param_groups"]
    for name, value in whole_state["state"][0].items():
        assert torch.equal(resumed_state["state"][0][name], value)


def test_an_optimizer_state_survives_with_its_types():
    state = {
        "state": {0: {"step": torch.tensor(3.0), "count": 7}, 10: {"x": torch.ones(2).half()}},
        "param_groups": [{"lr": torch.tensor(0.1), "betas": (0.9, [0.99, ()]), "params": [0, 10]}],
        "limits": (float("inf"), -float("inf"), 5e-324, None, True, "word"),
        "empty": {},
    }
    tensors, meta = flatten_optimizer(state)
    back = unflatten_optimizer(tensors, json.loads(json.dumps(meta, allow_nan=False)))
    assert repr(back) == repr(state)
    assert set(tensors) == {"state.0.step", "state.10.x", "param_groups.0.lr"}
    del tensors["state.10.x"]
    with pytest.raises(CheckpointError, match="state.10.x"):
        unflatten_optimizer(tensors, meta)
    with pytest.raises(ValueError, match="object"):
        flatten_optimizer({"state": {0: object()}})


WRITER = """
import sys, torch
from unigen.owner import lock
from unigen.runs import latest_step, load_step, save_step, sweep
run = sys.argv[1]
with lock(run):
    sweep(run)
    last = latest_step(run).folder
    step = 0 if last is None else load_step(last)[1]["step"]
    while True:
        step += 1
        print(step, flush=True)
        tensors = {"model": {"w": torch.full((5_000_000,), float(step))}}
        save_step(run, step, tensors, {"step": step})
"""


@pytest.mark.reliability
def test_a_kill_while_saving_loses_nothing_older(tmp_path):
    chance, halves = random.Random(0), 0
    for attempt in range(10):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        writer.stdout.readline()
        announced = int(writer.stdout.readline())  # one whole save, and then some part of the next
        if attempt % 2:
            select.select([writer.stdout], [], [], chance.uniform(0, 0.2))
        else:
            while not any(".tmp-" in name for name in names(tmp_path)):
                assert writer.poll() is None
        writer.kill()
        announced = [announced, *map(int, writer.stdout.read().split())][-1]
        writer.wait()
        writer.stdout.close()
        halves += any(".tmp-" in name for name in names(tmp_path))
        folder, notes = latest_step(tmp_path)
        tensors, meta = load_step(folder)
        assert notes == []
        assert meta["step"] in (announced - 1, announced)
        assert torch.equal(tensors["model"]["w"], torch.full((5_000_000,), float(meta["step"])))
    print(json.dumps({"id": "A1", "kills": 10, "half_written": halves, "lost": 0}))
    with lock(tmp_path):
        sweep(tmp_path)
    assert not [name for name in names(tmp_path) if ".tmp-" in name]
    assert halves > 0  # some kill did meet a save


def test_a_log_has_every_step_once(tmp_path):
    path = tmp_path / "losses.jsonl"
    rewind(path, 0)
    for step in (50, 100, 150):
        append(path, step, {"image": 0.5})
    whole = path.read_text()
    path.write_text(whole + '{"step": 200, "ima')  # killed here
    rewind(path, 100)
    append(path, 150, {"image": 0.5})
    assert path.read_text() == whole
    assert whole.splitlines()[0] == '{"step": 50, "image": 0.5}'
    assert list(tmp_path.iterdir()) == [path]


def test_a_log_on_a_full_disk_is_one_sentence_with_path_and_bytes(tmp_path):
    (tmp_path / "losses.jsonl").symlink_to("/dev/full")
    with pytest.raises(
        ResourceError, match=r"losses\.jsonl' \(27 bytes\): No space left"
    ) as caught:
        append(tmp_path / "losses.jsonl", 50, {"image": 0.5})
    assert caught.value.exit_code == 5


def test_a_run_that_torchrun_may_start_again_has_a_folder_of_its_own(monkeypatch):
    clock = "runs/${now:%Y}"
    refuse_clock(clock)
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "0")
    refuse_clock(clock)
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    refuse_clock("runs/mine")
    with pytest.raises(UsageError, match=r"--max-restarts=3 .* type out=runs/<name>\.$"):
        refuse_clock(clock)
