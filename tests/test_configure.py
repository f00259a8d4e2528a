"""Configuration builds the package's own parts, and says which key was wrong."""

import functools
import sys

import pytest
from omegaconf import OmegaConf
from torch import nn

from unigen import configure, registry
from unigen.errors import UsageError

PLUGIN = """
from dataclasses import dataclass
from os import getcwd
from collections import OrderedDict

@dataclass
class Depth:
    size: int = 3
    part: object = None
    extra: object = None

class Strict:
    def __init__(self, size):
        if size < 1:
            raise ValueError(f"size {size} is too small")

def double(size, by=2):
    return size * by

constant = 3
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Put a user's module with a submodule on the path."""
    folder = tmp_path / "sensor_plugin"
    folder.mkdir()
    (folder / "__init__.py").write_text(PLUGIN)
    (folder / "more.py").write_text("class Lidar:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield ["sensor_plugin"]
    for name in [name for name in sys.modules if name.split(".")[0] == "sensor_plugin"]:
        del sys.modules[name]


@pytest.mark.parametrize("wrap", [dict, OmegaConf.create])
def test_parts_are_built_inner_first_and_carry_their_specs(plugin, wrap):
    node = {
        "model": {
            "_target_": "sensor_plugin.Depth",
            "size": 5,
            "part": {"x": [{"_target_": "sensor_plugin.Depth"}, 1.5, None]},
        },
        "steps": 10,
        "list": [{"_target_": "sensor_plugin.more.Lidar"}],
    }
    made = configure.build(wrap(node), plugin)
    inner = made["model"].part["x"][0]
    assert (made["steps"], made["model"].size, inner.size) == (10, 5, 3)
    spec = {
        "class": "sensor_plugin:Depth",
        "size": 5,
        "part": {"x": [{"class": "sensor_plugin:Depth"}, 1.5, None]},
    }
    assert made["model"].spec == spec
    assert made["list"][0].spec == {"class": "sensor_plugin.more:Lidar"}
    assert registry.build(spec, plugin).spec == spec


def test_a_class_of_the_table_gets_its_short_name():
    flow = configure.build({"_target_": "unigen.flow.RectifiedFlow"})
    assert flow.spec == {"class": "RectifiedFlow"}
    assert type(registry.build(flow.spec)) is type(flow)


def test_partial_gives_the_function_with_its_arguments(plugin):
    node = {"_target_": "sensor_plugin.double", "_partial_": True, "by": 3}
    double = configure.build(node, plugin)
    assert isinstance(double, functools.partial)
    assert double(4) == 12
    assert configure.build({**node, "_partial_": False, "size": 2}, plugin) == 6
    part = {"_target_": "sensor_plugin.Depth", "part": node}
    made = configure.build(part, plugin)
    assert made.part(1) == 3
    with pytest.raises(UsageError, match="no spec"):
        registry.spec_of(made)  # a function is nothing that a checkpoint can hold


def test_the_packages_functions_may_be_targets():
    sampler = configure.build({"_target_": "unigen.sampler.euler", "_partial_": True})
    assert sampler.func.__module__ == "unigen.sampler"


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"_target_": "sensor_plugin.Depth", "sise": 1}, ["'sise'", "'size'"]),
        ({"_target_": "sensor_plugin.double", "bye": 1, "_partial_": True}, ["'bye'", "'by'"]),
        ({"_target_": "sensor_plugin.double"}, ["double", "'size'"]),
        ({"_target_": "sensor_plugin.Strict", "size": 0}, ["Strict", "size 0 is too small"]),
        ({"_target_": "sensor_plugin.Strict", "size": "big"}, ["Strict"]),
        ({"_target_": "unigen.modalities.image.Image", "size": 100}, ["size=100", "16"]),
        ({"_target_": "sensor_plugin.getcwd"}, ["getcwd"]),
        ({"_target_": "sensor_plugin.OrderedDict"}, ["OrderedDict", "collections"]),
        ({"_target_": "sensor_plugin.constant"}, ["constant", "class"]),
        ({"_target_": "sensor_plugin.constant.real"}, ["constant"]),
        ({"_target_": "sensor_plugin.Depht"}, ["Depht", "does not exist", "'Depth'"]),
        ({"_target_": "sensor_plugin.none.Depth"}, ["sensor_plugin.none"]),
        ({"_target_": "unigen.modalities"}, ["unigen.modalities"]),
        ({"_target_": "sensor_plugin2.Depth"}, ["sensor_plugin2.Depth", "plugins"]),
        ({"_target_": "unigen.modalites.image.Image"}, ["unigen.modalites"]),
        ({"_target_": "unigen.uvit.UVit"}, ["UVit", "'UViT'"]),
        ({"_target_": 3}, ["_target_", "3"]),
        ({"_target_": None}, ["_target_"]),
        ({"_partial_": True}, ["_partial_"]),
        ({"_target_": "sensor_plugin.Depth", "_partial_": "yes"}, ["_partial_", "'yes'"]),
        ({"_target_": "sensor_plugin.Depth", "_args_": [1]}, ["_args_"]),
        ({"_target_": "sensor_plugin.Depth", "_recursive_": False}, ["_recursive_"]),
        ({"a": [{"_convert_": "all"}]}, ["_convert_"]),
        ({"a": {1: 2}}, ["1"]),
    ],
)
def test_a_wrong_key_is_named(plugin, node, words):
    with pytest.raises(UsageError) as caught:
        configure.build(node, plugin)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_value_or_interpolation_is_named():
    for text in ("size: ???", "size: ${nowhere.at.all}"):
        with pytest.raises(UsageError, match="size|nowhere"):
            configure.build(OmegaConf.create(text))


def test_a_module_keeps_its_spec_out_of_its_weights(monkeypatch):
    monkeypatch.setitem(registry.CLASSES, "Net", __name__)
    net = configure.build({"_target_": f"{__name__}.Net", "size": 2}, [__name__])
    assert net.spec == {"class": "Net", "size": 2}
    assert set(net.state_dict()) == {"layer.weight", "layer.bias"}


class Net(nn.Module):
    """A module that a checkpoint may name."""

    def __init__(self, size: int):
        super().__init__()
        self.layer = nn.Linear(size, size)
