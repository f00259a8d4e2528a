"""The YAML files: each composes, each says where it goes, and none says more than it should."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from unigen.arguments import VERBS, conf_dir, known_keys
from unigen.configure import find
from unigen.usage import usage

CONF = conf_dir()
GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name[0] != "_")
OPTIONS = sorted(path.relative_to(CONF) for path in CONF.glob("*/**/*.yaml"))
OWN = [p for p in OPTIONS if p.parts[0] == "modality" and "_" not in p.stem]  # no one else's codec
FLOWS = [p for p in OPTIONS if p.parts[0] == "flow"]
SOURCES = [p for p in OPTIONS if p.parts[0] == "data"]
MIXED_IN = {"quiet"}  # top-level files that verbs include
#: Keys that are not what the class says alone: tuned for the model that ships, or for a codec.
TUNED = {
    ("flow/rectified", "t_min"), ("flow/rectified", "shift"), ("model/base", "ratio"),
    ("modality/text", "min_p"),
    ("modality/image_dc", "patch"), ("modality/image_kl", "size"), ("modality/image_tiny", "size"),
    ("modality/video_kl", "size"), ("modality/video_wan", "size"), ("modality/video_wan", "patch"),
    *((f"modality/{p.stem}", "noise_mean") for p in OPTIONS if p.parts[0] == "modality"),
}  # fmt: skip


def composed(verb: str, *overrides: str) -> dict:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose(verb, list(overrides)), resolve=True)


def option(path: Path) -> str:
    """The option as it is typed: `image`, `world/image`."""
    return path.relative_to(path.parts[0]).with_suffix("").as_posix()


def package_of(path: Path) -> str:
    text = (CONF / path).read_text(encoding="utf-8")
    match = re.search(r"# @package (\S+)", text)
    return match[1] if match else path.parts[0]


def test_there_is_one_top_level_file_a_verb():
    assert {path.stem for path in CONF.glob("*.yaml")} == set(VERBS) | MIXED_IN


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_composes_and_resolves(verb):
    keys = [key for key in known_keys(verb) if key != "hydra"]
    cfg = composed(verb)
    assert "_target_" not in cfg
    top = yaml.safe_load((CONF / f"{verb}.yaml").read_text(encoding="utf-8"))
    assert set(top) - {"defaults", "hydra"} <= set(cfg)
    assert set(top) - {"defaults"} <= {*keys, "hydra"}


@pytest.mark.parametrize("path", OPTIONS, ids=str)
def test_each_option_composes_in_its_place(path):
    group, name = path.parts[0], option(path)
    value = f"[{name}]" if group == "modality" else name
    cfg = composed("train", f"{group}={value}")
    package = package_of(path)
    node = cfg
    for key in [] if package == "_global_" else package.split("."):
        node = node[key]
    assert node


@pytest.mark.parametrize("path", [p for p in OPTIONS if p.parts[0] == "modality"], ids=str)
def test_a_modality_is_called_as_its_file(path):
    """A file is called as its modality, or as that, `_` and a codec."""
    cfg, name = composed("train", f"modality=[{path.stem}]"), path.stem.partition("_")[0]
    assert set(cfg["modalities"]) == {name}
    assert {part.split(":")[0] for part in cfg["parts"]} == {name}


@pytest.mark.parametrize("path", [p for p in OPTIONS if p.parts[0] == "experiment"], ids=str)
def test_an_experiment_is_global(path):
    assert package_of(path) == "_global_"


def test_the_help_names_every_option():
    lines = usage("train").splitlines()
    for group in GROUPS:
        there = sorted(option(path) for path in OPTIONS if path.parts[0] == group)
        assert f"  {group}={'|'.join(there)}" in lines


def calls(node: Any) -> Iterator[dict[str, Any]]:
    """Every node that is the call of a constructor, the outer one first."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        node = list(node.values())
    for each in node if isinstance(node, list) else []:
        yield from calls(each)


def calls_of(path: Path) -> list[dict[str, Any]]:
    return list(calls(yaml.safe_load((CONF / path).read_text(encoding="utf-8"))))


def parameters(found) -> dict[str, inspect.Parameter]:
    """What a class or function takes, and what its `**common` hands on to."""
    made: dict[str, inspect.Parameter] = {}
    kind = found if isinstance(found, type) else get_type_hints(found).get("return", object)
    for each in (found, *kind.__mro__):
        taken = inspect.signature(each).parameters
        made = {**taken, **made}
        if not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
            break
    return {name: p for name, p in made.items() if p.kind is not p.VAR_KEYWORD}


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("path", OPTIONS, ids=str)
def test_each_target_is_of_this_package(path):
    assert all(call["_target_"].startswith("unigen.") for call in calls_of(path))


@pytest.mark.parametrize("path", OPTIONS, ids=str)
def test_configuration_is_the_constructor_call_and_says_its_defaults(path):
    here, differ = path.with_suffix("").as_posix(), set()
    for call in calls_of(path):
        takes = parameters(find(call.pop("_target_")))
        assert set(call) <= set(takes)
        for key, value in call.items():
            given = isinstance(value, dict) or str(value).startswith("${") or value == "???"
            default = plain(takes[key].default)
            if not given and default is not inspect.Parameter.empty and value != default:
                differ.add((here, key))
    assert differ == {(name, key) for name, key in TUNED if name == here}


@pytest.mark.parametrize("path", [*OWN, *SOURCES, *FLOWS], ids=str)
def test_every_argument_of_a_modality_a_source_and_a_flow_is_a_key(path):
    (call,) = calls_of(path)
    found = find(call["_target_"])
    takes = parameters(found) if path in FLOWS else inspect.signature(found).parameters
    assert {name for name, p in takes.items() if p.kind is not p.VAR_KEYWORD} <= set(call)


def test_what_a_user_wants_to_change_is_a_key():
    words = ("modalities.image.size=96", "modalities.video.reader=decord", "data.size=96",
             "modalities.text.capacity=300", "modalities.audio.channels=16")  # fmt: skip
    cfg = composed("train", *words)
    assert (cfg["modalities"]["image"]["size"], cfg["data"]["size"]) == (96, 96)
    assert cfg["model"]["modalities"]["video"]["reader"] == "decord"
    assert (cfg["parts"]["text"], cfg["parts"]["audio"]) == (300, 16)


def test_there_is_no_code_and_no_environment_in_the_yaml():
    for path in CONF.rglob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\$\{(eval|oc\.env|oc\.decode|oc\.create)", text), path


def test_every_group_is_in_the_defaults_of_train():
    assert set(GROUPS) <= set(known_keys("train"))
