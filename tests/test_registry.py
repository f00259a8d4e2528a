"""A spec is data: it builds objects of the closed table, and nothing else."""

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from torch import nn

from unigen import registry
from unigen.errors import CheckpointError, UsageError


class Leaf(nn.Module):
    """A part with plain arguments."""

    def __init__(self, size: int, name: str = "leaf", ratio: float = 0.5):
        super().__init__()
        if size < 1:
            raise UsageError(f"size is {size}; a positive number was wanted.")
        self.layer = nn.Linear(size, int(1 / ratio))
        self.name, self.ratio = name, ratio


@dataclass(frozen=True)
class Frozen:
    """A part that refuses ordinary assignment."""

    steps: int = 3


class Tree:
    """A part made of parts."""

    def __init__(self, leaves: dict, rest: list, root=None):
        self.leaves, self.rest, self.root = leaves, rest, root


@pytest.fixture(autouse=True)
def table(monkeypatch):
    """Let the table name the classes above."""
    for cls in (Leaf, Frozen, Tree):
        monkeypatch.setitem(registry.CLASSES, cls.__name__, __name__)


SPEC = {
    "class": "Tree",
    "leaves": {"a": {"class": "Leaf", "size": 2, "ratio": 0.25}, "b": {"plain": [1, None, True]}},
    "rest": [{"class": "Leaf", "size": 5, "name": "\u2028 x"}, [1.5, {"class": "Frozen"}]],
}


def test_nested_specs_are_built_and_every_object_carries_its_own():
    tree = registry.build(SPEC)
    assert (type(tree), type(tree.leaves["a"]), type(tree.rest[1][1])) == (Tree, Leaf, Frozen)
    assert tree.leaves["b"] == {"plain": [1, None, True]}
    assert tree.spec == SPEC
    assert tree.leaves["a"].spec == SPEC["leaves"]["a"]
    assert tree.rest[1][1].spec == {"class": "Frozen"}
    assert registry.build(json.loads(json.dumps(tree.spec))).spec == SPEC


def test_a_spec_is_a_copy_on_both_sides():
    given = json.loads(json.dumps(SPEC))
    tree = registry.build(given)
    given["leaves"]["a"]["size"] = 99
    tree.leaves["b"]["plain"].append(2)
    assert tree.spec == SPEC
    registry.spec_of(tree)["rest"].clear()
    assert tree.spec == SPEC


def test_an_object_built_by_hand_has_no_spec():
    with pytest.raises(UsageError, match="Leaf has no spec"):
        registry.spec_of(Leaf(2))


@pytest.mark.parametrize("name", list(registry.CLASSES))
def test_the_table_names_classes_of_their_modules(name):
    cls = registry.resolve(name)
    assert isinstance(cls, type)
    assert (cls.__name__, cls.__module__) == (name, registry.CLASSES[name])


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"class": "Leav", "size": 1}, ["'Leav'", "'Leaf'"]),
        ({"class": "Leaf", "sise": 1}, ["'sise'", "'size'"]),
        ({"class": "Leaf", "self": 1}, ["Leaf", "self"]),
        ({"class": "Leaf"}, ["Leaf", "missing", "'size'"]),
        ({"class": "Leaf", "size": 0}, ["Leaf", "positive"]),
        ({"class": "Leaf", "size": "2"}, ["Leaf"]),
        ({"class": "Leaf", "size": 1, "ratio": 0}, ["Leaf", "zero"]),
        ({"class": ["Leaf"]}, ['"class"']),
        ({"class": None}, ['"class"']),
        ({"size": 1}, ['"class"']),
        ([], ['"class"']),
        ("Leaf", ["'Leaf'", '"class"']),
        ({"class": "Tree", "leaves": {"x": {"class": "Nothing"}}, "rest": []}, ["'Nothing'"]),
        ({"class": "torch.nn.Linear"}, ["torch.nn.Linear"]),
        ({"class": "os:system"}, ["os:system", "plugins"]),
        ({"class": "torch.nn:Linear", "in_features": 1, "out_features": 1}, ["plugins"]),
        ({"class": "unigen.registry:build"}, ["unigen.registry:build", "plugins"]),
    ],
)
def test_a_wrong_spec_gets_one_sentence(spec, words):
    with pytest.raises(CheckpointError) as caught:
        registry.build(spec)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["_target_", "_partial_", "_", "__class__", "_x"])
@pytest.mark.parametrize("place", ["top", "dict", "list"])
def test_no_key_begins_with_an_underscore(key, place):
    inner = {key: "os.system"}
    spec = {
        "top": {"class": "Leaf", "size": 1, **inner},
        "dict": {"class": "Tree", "leaves": {"a": inner}, "rest": []},
        "list": {"class": "Tree", "leaves": {}, "rest": [[inner]]},
    }[place]
    with pytest.raises(CheckpointError, match=key):
        registry.build(spec)


def bomb() -> list:
    """A list whose aliases stand for 10**9 items."""
    node: list = ["x"] * 10
    for _ in range(8):
        node = [node] * 10
    return node


def cycle() -> list:
    """A list that holds itself."""
    node: list = []
    node.append(node)
    return node


def deep(levels: int) -> list:
    """Lists in lists."""
    node: list = []
    for _ in range(levels):
        node = [node]
    return node


@pytest.mark.parametrize(
    "value",
    [(1, 2), {1}, b"x", 1j, float("nan"), float("inf"), 2**64, 10**5000, object(), Leaf, len]
    + [{1: 2}, {None: 1}, bomb(), cycle(), deep(10_000), [0] * 30_000],
    ids=lambda value: type(value).__name__,
)
def test_only_bounded_json_passes(value):
    with pytest.raises(CheckpointError) as caught:
        registry.build({"class": "Tree", "leaves": {}, "rest": [], "root": value})
    assert len(str(caught.value)) < 300


def test_a_message_never_holds_raw_control_or_bidi_characters():
    with pytest.raises(CheckpointError) as caught:
        registry.build({"class": "\x1b[31m\u202eevil\x00\ud800" + "x" * 100_000})
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Write a module of the user's own, with a submodule."""
    package = tmp_path / "depth_plugin"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from collections import OrderedDict\nimport os\nfrom depth_plugin.more import Lidar\n"
        "class Depth:\n    def __init__(self, size):\n        self.size = size\n"
        "def make(size):\n    return size\n"
    )
    (package / "more.py").write_text("class Lidar:\n    pass\nclass _Hidden:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "depth_plugin"
    for name in [name for name in sys.modules if name.split(".")[0] == "depth_plugin"]:
        del sys.modules[name]


def test_a_plugin_class_is_built_only_when_its_module_is_named(plugin):
    spec = {"class": "depth_plugin:Depth", "size": 4}
    with pytest.raises(CheckpointError, match="plugins"):
        registry.build(spec)
    assert "depth_plugin" not in sys.modules
    with pytest.raises(CheckpointError, match="plugins"):
        registry.build(spec, plugins=["depth_plugin.more", "depth_plug"])
    depth = registry.build(spec, plugins=[plugin])
    assert (depth.size, depth.spec) == (4, spec)
    lidar = {"class": "depth_plugin.more:Lidar"}
    assert type(registry.build(lidar, plugins=[plugin])).__name__ == "Lidar"
    assert registry.name_of(type(depth), [plugin]) == "depth_plugin:Depth"
    assert registry.name_of(type(depth)) is None


@pytest.mark.parametrize(
    "name",
    ["OrderedDict", "os", "make", "_Hidden", "Nothing", "more.Lidar", "os:system", "", "Depth "]
    + ["__class__", "Depth.__init__"],
)
def test_a_plugin_gives_its_own_classes_only(plugin, name):
    with pytest.raises(CheckpointError):
        registry.build({"class": f"{plugin}:{name}", "size": 1}, plugins=[plugin])
    with pytest.raises(CheckpointError):
        registry.build({"class": f"{plugin}.more:{name}", "size": 1}, plugins=[plugin])


def test_a_plugin_that_is_not_there_is_the_users_to_mend():
    with pytest.raises(UsageError, match="no_such_plugin"):
        registry.build({"class": "no_such_plugin:Depth"}, plugins=["no_such_plugin"])


@pytest.mark.parametrize("plugins", ["os", ["a b"], ["../x"], [""], ["_private"], ["a..b"]])
def test_plugins_are_a_list_of_modules(plugins):
    with pytest.raises(UsageError, match="plugins"):
        registry.build({"class": "Frozen"}, plugins=plugins)


def test_the_registry_needs_no_heavy_import():
    source = Path(registry.__file__).read_text(encoding="utf-8")
    assert not re.search(r"^\s*(import|from) (torch|numpy|omegaconf|hydra)", source, re.MULTILINE)
