"""Forty poisoned model folders: each is refused with its reason, and none runs code."""

import io
import json
import os
import pickle
import random
import resource
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from unigen import registry
from unigen.checkpoint import load_folder, match, save_folder
from unigen.errors import CheckpointError

pytestmark = pytest.mark.reliability

MAX_GROWTH = 256 << 10  # KiB of resident memory that refusing one folder may cost


class Small(nn.Module):
    """The model that the folders claim to hold."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.layer = nn.Linear(width, 4)


class Touch:
    """A pickle of this object touches a file when it is loaded."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def pack(header: dict | bytes, data: bytes = b"") -> bytes:
    """Return a safetensors file with any header."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict:
    """Return how a header describes one tensor."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


GOOD = {"layer.weight": entry([4, 8], 0, 128), "layer.bias": entry([4], 128, 144)}
DATA = struct.pack("<36f", *range(1, 37))
NAN, INF = struct.pack("<f", float("nan")), struct.pack("<f", float("inf"))


def weights(content: bytes) -> Callable[[Path, Path], None]:
    """Poison a folder by the bytes of its weights file."""
    return lambda folder, canary: (folder / "model.safetensors").write_bytes(content) and None


def pickled(protocol: int) -> Callable[[Path, Path], None]:
    """Poison a folder by a pickle in place of its weights."""

    def poison(folder: Path, canary: Path) -> None:
        data = pickle.dumps({"weight": Touch(canary)}, protocol=protocol)
        (folder / "model.safetensors").write_bytes(data + b" " * 100)

    return poison


def torch_zip(folder: Path, canary: Path) -> None:
    """Poison a folder by what torch.save writes."""
    buffer = io.BytesIO()
    torch.save({"weight": torch.ones(3), "x": Touch(canary)}, buffer)
    (folder / "model.safetensors").write_bytes(buffer.getvalue())


def pickle_by_name(folder: Path, canary: Path) -> None:
    """Poison a folder by a pickle under the usual name and no safetensors."""
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Touch(canary)))


def config(change: Callable[[dict], None] | bytes) -> Callable[[Path, Path], None]:
    """Poison a folder by its configuration."""

    def poison(folder: Path, canary: Path) -> None:
        path = folder / "config.json"
        if callable(change):
            value = json.loads(path.read_text())
            change(value)
            path.write_text(json.dumps(value))
        else:
            path.write_bytes(change)

    return poison


def linked(name: str) -> Callable[[Path, Path], None]:
    """Poison a folder by a link out of it, to a file that is itself good."""

    def poison(folder: Path, canary: Path) -> None:
        (folder / name).rename(folder.parent / f"outside_{name}")
        (folder / name).symlink_to(f"../outside_{name}")

    return poison


def special(make: Callable[[Path], None]) -> Callable[[Path, Path], None]:
    """Poison a folder by something that is no file."""

    def poison(folder: Path, canary: Path) -> None:
        (folder / "model.safetensors").unlink()
        make(folder / "model.safetensors")

    return poison


def index(folder: Path, canary: Path) -> None:
    """Poison a folder by an index whose shard lies outside."""
    shards = {"weight_map": {"layer.weight": "../x.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(shards))


def many(count: int) -> bytes:
    """Return a file of many tensors."""
    return pack({f"t{i}": entry([1], 4 * i, 4 * i + 4) for i in range(count)}, b"\0\0\x80?" * count)


def metadata(value: object) -> Callable[[Path, Path], None]:
    """Poison a folder by the metadata of its weights."""
    return weights(pack({"__metadata__": value, **GOOD}, DATA))


POISONS = {
    "pickle protocol 0": (pickled(0), "pickle"),
    "pickle protocol 2": (pickled(2), "pickle"),
    "pickle protocol 5": (pickled(5), "pickle"),
    "pickle named pytorch_model.bin": (pickle_by_name, "pickle"),
    "torch zip": (torch_zip, "zip"),
    "wrong magic": (weights(b"GGUF" + b"\3" * 200), "GGUF"),
    "header length 2**63": (weights(struct.pack("<Q", 2**63) + b"{" * 99), "safetensors only"),
    "header of 11 MB": (weights(pack(b"{" + b" " * 11_000_000 + b"}")), "header of 11000002"),
    "overlap": (
        weights(pack({**GOOD, "layer.bias": entry([4], 112, 128)}, DATA[:128])),
        "another tensor",
    ),
    "cut in the data": (weights(pack(GOOD, DATA)[:-7]), "bytes"),
    "cut in the header": (weights(pack(GOOD, DATA)[:60]), "cut"),
    "wrong shape": (
        weights(pack({**GOOD, "layer.weight": entry([8, 4], 0, 128)}, DATA)),
        "misfits in layer.weight",
    ),
    "impossible shape": (
        weights(pack({**GOOD, "layer.weight": entry([0, -1], 0, 128)}, DATA)),
        "impossible shape",
    ),
    "wrong dtype": (
        weights(pack({**GOOD, "layer.weight": entry([4, 4], 0, 128, "F64")}, DATA)),
        "F64",
    ),
    "missing keys": (
        weights(pack({"layer.weight": GOOD["layer.weight"]}, DATA[:128])),
        "layer.bias",
    ),
    "extra keys": (
        weights(pack({**GOOD, "more": entry([1], 144, 148)}, DATA + DATA[:4])),
        "unknown more",
    ),
    "dunder keys": (
        weights(pack({**GOOD, "layer.__class__": entry([1], 144, 148)}, DATA + DATA[:4])),
        "__class__",
    ),
    "../ keys": (
        weights(pack({**GOOD, "../../x": entry([1], 144, 148)}, DATA + DATA[:4])),
        "../../x",
    ),
    "NaN": (weights(pack(GOOD, NAN + DATA[4:])), "NaN"),
    "Inf": (weights(pack(GOOD, DATA[:-4] + INF)), "Inf"),
    "all zero": (weights(pack(GOOD, b"\0" * 144)), "zeros"),
    "200,000 tensors": (weights(many(200_000)), "header|more than"),
    "30,000 tensors": (weights(many(30_000)), "more than 20000 tensors"),
    "no tensors": (weights(pack({})), "no tensors"),
    "metadata with _target_": (metadata({"_target_": "os.system", "command": "x"}), "_target_"),
    "metadata with HTML": (metadata({"about": "<script>alert(1)</script>"}), "metadata"),
    "metadata with right-to-left marks": (metadata({"about": "\u202eexe.x"}), "metadata"),
    "metadata with NUL": (metadata({"a\0b": "\0"}), "metadata"),
    "metadata of 10 MB": (metadata({"about": "x" * 10_000_000}), "header"),
    "trailing bytes": (weights(pack(GOOD, DATA) + b"PK\3\4"), "bytes"),
    "repeated key": (
        weights(pack(json.dumps(GOOD)[:-1].encode() + b"," + json.dumps(GOOD)[1:].encode(), DATA)),
        "repeated",
    ),
    "link to a file outside": (linked("model.safetensors"), "link"),
    "fifo": (special(os.mkfifo), "regular file"),
    "directory": (special(os.mkdir), "regular file"),
    "config with auto_map": (
        config(lambda c: c.update(auto_map={"AutoModel": "evil.Model"})),
        "auto_map",
    ),
    "config with _attn_implementation_internal": (
        config(lambda c: c["model"].update(_attn_implementation_internal="evil/kernel")),
        "_attn_implementation_internal",
    ),
    "config with _target_": (
        config(lambda c: c["model"].update(_target_="os.mkdir", path="x")),
        "_target_",
    ),
    "config with a class of the system": (
        config(lambda c: c.update(model={"class": "subprocess:Popen", "args": ["touch", "x"]})),
        "subprocess:Popen",
    ),
    "config of nested lists": (config(b"[" * 500_000), "JSON"),
    "index naming ../x": (index, "sharded"),
}


@pytest.fixture
def model(tmp_path, monkeypatch) -> Path:
    """Write a good folder, whose hash is left out so that only the poison can be the reason."""
    monkeypatch.setitem(registry.CLASSES, "Small", __name__)
    folder = tmp_path / "model"
    save_folder(folder, {"model": {"class": "Small", "width": 8}}, {"layer.bias": torch.ones(4)})
    (folder / "model.safetensors").write_bytes(pack(GOOD, DATA))
    config(lambda c: c.pop("hash"))(folder, folder)
    return folder


def load(folder: Path) -> nn.Module:
    """Load a folder all the way."""
    config, tensors = load_folder(folder)
    made = registry.build(config["model"])
    match(made, tensors, str(folder))
    return made


def test_there_are_forty():
    assert len(POISONS) == 40


def test_without_poison_the_folder_loads(model):
    assert load(model).layer.bias.tolist() == [33.0, 34.0, 35.0, 36.0]


def test_the_canary_tells(tmp_path):
    pickle.loads(pickle.dumps(Touch(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", POISONS)
def test_poison_is_refused_with_its_reason(model, tmp_path, name):
    poison, words = POISONS[name]
    poison(model, tmp_path / "canary")
    modules, before = set(sys.modules), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=words) as caught:
        load(model)
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    text = str(caught.value)
    print(json.dumps({"id": "F5", "file": name, "exit_code": caught.value.exit_code, "text": text}))
    assert not (tmp_path / "canary").exists()
    assert set(sys.modules) == modules
    assert growth < MAX_GROWTH
    assert text.isascii()
    assert text.isprintable()
    assert len(text) < 500


def junk(chance: random.Random, depth: int = 3):
    """Return a random JSON value."""
    kinds = [None, True, -1, 2**70, 1e308, "", "__class__", "\u202e", "F32", [], {}]
    if depth and chance.random() < 0.5:
        keys = ["dtype", "shape", "data_offsets", "__metadata__", "class", "_target_", "model"]
        items = [junk(chance, depth - 1) for _ in range(3)]
        return (
            items
            if chance.random() < 0.5
            else dict(zip(chance.sample(keys, 3), items, strict=True))
        )
    return chance.choice(kinds)


@pytest.mark.parametrize("seed", range(5))
def test_random_damage_is_refused_or_harmless(model, seed):
    chance = random.Random(seed)
    parts = {path: path.read_bytes() for path in sorted(model.iterdir())}
    for _ in range(100):
        for path, content in parts.items():
            data = bytearray(content)
            for _ in range(chance.randrange(3)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            path.write_bytes(data[: chance.choice([len(data), chance.randrange(len(data))])])
        if chance.random() < 0.5:
            header = {**GOOD, chance.choice(["layer.bias", "__metadata__"]): junk(chance)}
            (model / "model.safetensors").write_bytes(pack(header, DATA))
        if chance.random() < 0.5:
            value = {"format": "unigen", "version": 1, "model": {"class": "Small"}}
            value[chance.choice(["model", "version", "card", "hash"])] = junk(chance)
            (model / "config.json").write_text(json.dumps(value))
        try:
            made = load(model)
        except CheckpointError as error:
            assert str(error).isascii()
        else:
            assert all(tensor.isfinite().all() for tensor in made.state_dict().values())
