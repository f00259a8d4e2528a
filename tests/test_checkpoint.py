"""A model folder comes back exactly, is written whole or not at all, and is only data."""

import json
import os
import resource
import shutil

import pytest
import torch
from torch import nn

from unigen.checkpoint import folder_hash, load_folder, match, save_folder
from unigen.errors import CheckpointError, ResourceError, UsageError
from unigen.tensorfile import DTYPES

CONFIG = {"model": {"class": "UniGen", "width": 4}, "card": {"note": "tiny \u00e9\u202e"}}


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """Return some tensors that fit `net()`."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(tensor.shape, generator=generator)
        for name, tensor in net().state_dict().items()
    }


def net() -> nn.Module:
    """Return a tiny module."""
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2, bias=False))


def snapshot(folder) -> dict[str, bytes]:
    """Return every file below a folder with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_every_dtype_and_form_comes_back_bit_for_bit(tmp_path):
    generator = torch.Generator().manual_seed(1)
    tensors = {
        f"dtype.{name}": torch.randint(0, 100, (3, 5), generator=generator).to(dtype)
        for name, dtype in DTYPES.items()
    }
    base = torch.randn(6, 4, generator=generator)
    tensors |= {"scalar": torch.tensor(-0.0), "empty": torch.empty(0, 3), "whole": base}
    tensors |= {"tied": base, "view": base[1:3], "transposed": base.T, "_under_score.0": base[::2]}
    save_folder(tmp_path / "model", CONFIG, tensors)
    config, loaded = load_folder(tmp_path / "model")
    assert config["model"] == CONFIG["model"]
    assert config["card"] == CONFIG["card"]
    assert set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].shape == tensor.shape
        wanted = tensor.contiguous().flatten().view(torch.uint8)
        assert torch.equal(loaded[name].contiguous().flatten().view(torch.uint8), wanted)


def test_what_was_loaded_can_be_saved_again_and_is_the_same_file(tmp_path):
    save_folder(tmp_path / "a", CONFIG, weights())
    save_folder(tmp_path / "b", *load_folder(tmp_path / "a"))
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")
    assert folder_hash(tmp_path / "a") == folder_hash(tmp_path / "b")


def test_loaded_tensors_outlive_their_file(tmp_path):
    save_folder(tmp_path / "model", CONFIG, weights())
    _, loaded = load_folder(tmp_path / "model")
    with (tmp_path / "model" / "model.safetensors").open("r+b") as file:
        file.truncate(0)
    shutil.rmtree(tmp_path / "model")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in weights().items())


def test_saving_over_a_model_replaces_it_whole_and_leaves_nothing_beside_it(tmp_path):
    folder = tmp_path / "deep" / "er" / "model"
    save_folder(folder, CONFIG, weights(0))
    save_folder(folder, CONFIG, {"only": torch.ones(1)})
    assert list(load_folder(folder)[1]) == ["only"]
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    (tmp_path / "empty").mkdir()
    save_folder(tmp_path / "empty", CONFIG, weights())
    assert set(snapshot(tmp_path / "empty")) == {"config.json", "model.safetensors"}


def test_saving_over_a_model_works_where_folders_cannot_be_swapped(tmp_path, monkeypatch):
    save_folder(tmp_path / "model", CONFIG, weights(0))
    monkeypatch.setattr("unigen.disk.ctypes.CDLL", lambda *args, **options: object())
    save_folder(tmp_path / "model", CONFIG, {"only": torch.ones(1)})
    assert list(load_folder(tmp_path / "model")[1]) == ["only"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_diverged_model_does_not_replace_a_good_one(tmp_path, bad):
    save_folder(tmp_path / "model", CONFIG, weights())
    before = snapshot(tmp_path)
    with pytest.raises(ResourceError, match="0.bias"):
        save_folder(tmp_path / "model", CONFIG, {**weights(), "0.bias": torch.full((4,), bad)})
    assert snapshot(tmp_path) == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("part", range(20))
def test_a_full_disk_leaves_the_old_model_and_no_other_file(tmp_path, part):
    big = {"weight": torch.ones(50_000)}
    save_folder(tmp_path / "model", CONFIG, weights())
    before, (soft, hard) = snapshot(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000 * part // 20, hard))
    try:
        with pytest.raises(ResourceError, match=r"model.*bytes"):
            save_folder(tmp_path / "model", CONFIG, big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert snapshot(tmp_path) == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_with_other_files_is_never_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="thesis.txt"):
        save_folder(tmp_path, CONFIG, weights())
    assert snapshot(tmp_path) == {"thesis.txt": b"years of work"}
    with pytest.raises(UsageError, match="thesis.txt"):
        save_folder(tmp_path / "thesis.txt" / "model", CONFIG, weights())
    with pytest.raises(UsageError, match="thesis.txt"):
        save_folder(tmp_path / "thesis.txt", CONFIG, weights())


@pytest.mark.parametrize(("umask", "mode"), [(0o000, 0o640), (0o022, 0o640), (0o077, 0o600)])
def test_files_are_never_open_to_the_world(tmp_path, umask, mode):
    old = os.umask(umask)
    try:
        save_folder(tmp_path / "model", CONFIG, weights())
    finally:
        os.umask(old)
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "model").iterdir()} == {mode}
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o750 & ~umask


@pytest.mark.parametrize(
    "change",
    [
        {"auto_map": {}},
        {"extra": 1},
        {"version": 2},
        {"version": True},
        {"format": "diffusers"},
        {"model": {}},
        {"model": {"class": "UViT", "_target_": "os.system"}},
        {"card": {"deep": [{"trust_remote_code": True}]}},
        {"card": {"ratio": float("nan")}},
        {"card": {"pair": (1, 2)}},
    ],
)
def test_a_configuration_that_could_not_be_loaded_is_not_saved(tmp_path, change):
    with pytest.raises(UsageError):
        save_folder(tmp_path / "model", {**CONFIG, **change}, weights())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "tensors",
    [
        {"../x": torch.ones(1)},
        {"a..b": torch.ones(1)},
        {"a.__class__": torch.ones(1)},
        {"a b": torch.ones(1)},
        {"": torch.ones(1)},
        {"a": torch.ones(1, dtype=torch.float64)},
        {"a": torch.zeros(3)},
        {},
    ],
    ids=str,
)
def test_tensors_that_could_not_be_loaded_are_not_saved(tmp_path, tensors):
    with pytest.raises(UsageError):
        save_folder(tmp_path / "model", CONFIG, tensors)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["nowhere", "no/where", "x" * 5000, "nul\0", "\ud800"])
def test_a_path_that_does_not_exist_is_a_usage_error(tmp_path, path):
    with pytest.raises(UsageError):
        load_folder(f"{tmp_path}/{path}")


def test_a_file_or_an_empty_folder_is_no_model(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"\x80\x02.")
    with pytest.raises(CheckpointError, match="pickle"):
        load_folder(tmp_path / "model.pt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="config.json"):
        load_folder(tmp_path / "empty")


def test_the_byte_limit_holds_before_anything_is_read(tmp_path):
    save_folder(tmp_path / "model", CONFIG, {"big": torch.ones(10_000)})
    assert load_folder(tmp_path / "model", max_bytes=41_000)
    with pytest.raises(CheckpointError, match="at most 39999"):
        load_folder(tmp_path / "model", max_bytes=39_999)


def test_nonfinite_weights_load_only_when_asked(tmp_path):
    save_folder(tmp_path / "model", CONFIG, {"w": torch.ones(4)})
    path = tmp_path / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\x00\x00\xc0\x7f")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    with pytest.raises(CheckpointError, match="config.json"):  # the hash sees any change
        load_folder(tmp_path / "model", allow_nonfinite=True)
    del config["hash"]
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="tensor w holds NaN"):
        load_folder(tmp_path / "model")
    assert load_folder(tmp_path / "model", allow_nonfinite=True)[1]["w"].isnan().sum() == 1


def linked(here, there):
    """Return a folder of links to the files of another one."""
    here.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (here / name).symlink_to(there / name)
    return here


def test_links_are_followed_only_under_the_root(tmp_path):
    save_folder(tmp_path / "store", CONFIG, weights())
    links = linked(tmp_path / "views" / "main", tmp_path / "store")
    with pytest.raises(CheckpointError, match="link"):
        load_folder(links)
    _, loaded = load_folder(links, root=tmp_path)
    assert torch.equal(loaded["0.bias"], weights()["0.bias"])
    assert folder_hash(links, root=tmp_path) == folder_hash(tmp_path / "store")


def test_links_of_a_snapshot_lead_to_the_blobs_beside_it_and_nowhere_else(tmp_path):
    """That is how the hub's cache keeps a repository."""
    save_folder(tmp_path / "repo" / "blobs", CONFIG, weights())
    save_folder(tmp_path / "other" / "blobs", CONFIG, weights())
    own = linked(tmp_path / "repo" / "snapshots" / "main", tmp_path / "repo" / "blobs")
    _, loaded = load_folder(own)
    assert torch.equal(loaded["0.bias"], weights()["0.bias"])
    strange = linked(tmp_path / "repo" / "snapshots" / "next", tmp_path / "other" / "blobs")
    with pytest.raises(CheckpointError, match="link"):
        load_folder(strange)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("target", ["config.json", "model.safetensors", "nothing", "/dev/zero"])
def test_a_link_to_itself_or_to_nothing_is_a_fault_of_the_folder(tmp_path, name, target):
    save_folder(tmp_path / "model", CONFIG, weights())
    (tmp_path / "model" / name).unlink()
    (tmp_path / "model" / name).symlink_to(target)
    with pytest.raises(CheckpointError):
        load_folder(tmp_path / "model")
    with pytest.raises(CheckpointError):
        load_folder(tmp_path / "model", root="/")


def test_match_copies_values_and_keeps_the_modules_own_storage():
    module, tensors = net(), weights()
    pointers = [p.data_ptr() for p in module.parameters()]
    match(module, tensors, "The file")
    assert all(torch.equal(module.state_dict()[name], tensors[name]) for name in tensors)
    assert [p.data_ptr() for p in module.parameters()] == pointers
    assert all(p.requires_grad for p in module.parameters())
    tensors["0.bias"].zero_()
    assert module[0].bias.abs().sum() > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"0.bias": None}, ["lacks 0.bias"]),
        ({"0.biaz": torch.ones(4)}, ["unknown 0.biaz"]),
        ({"0.bias": torch.ones(5)}, ["misfits", "0.bias [5]", "[4]"]),
        ({"0.bias": torch.ones(4, dtype=torch.int64)}, ["misfits", "int64"]),
        ({f"x.{i}": torch.ones(1) for i in range(12)}, ["x.0", "x.4", "and 7 more"]),
        ({"0.bias": None, "y": torch.ones(1)}, ["lacks 0.bias", "unknown y"]),
    ],
)
def test_match_names_every_misfit_and_then_changes_nothing(change, words):
    module, tensors = net(), {**weights(), **change}
    tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        match(module, tensors, "The file")
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_match_refuses_a_module_that_would_keep_nothing():
    with torch.device("meta"):
        module = net()
    with pytest.raises(ValueError, match="meta"):
        match(module, weights(), "The file")


def test_the_hash_names_the_content(tmp_path):
    save_folder(tmp_path / "a", CONFIG, weights(0))
    first = folder_hash(tmp_path / "a")
    assert len(first) == 16
    assert int(first, 16) > 0
    save_folder(tmp_path / "a", CONFIG, weights(1))
    second = folder_hash(tmp_path / "a")
    save_folder(tmp_path / "a", {**CONFIG, "card": {}}, weights(1))
    third = folder_hash(tmp_path / "a")
    assert len({first, second, third}) == 3
    with pytest.raises(UsageError):
        folder_hash(tmp_path / "nowhere")
