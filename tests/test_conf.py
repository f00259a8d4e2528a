"""The YAML files: each composes, each says where it goes, and none says more than it should."""

import re
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from unigen.arguments import VERBS, conf_dir, known_keys

CONF = conf_dir()
GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name[0] != "_")
OPTIONS = sorted(path.relative_to(CONF) for path in CONF.glob("*/*.yaml"))
MIXED_IN = {"quiet"}  # top-level files that verbs include


def composed(verb: str, *overrides: str) -> dict:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose(verb, list(overrides)), resolve=True)


def options_of(path: Path) -> str:
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
    group, name = path.parts[0], path.stem
    value = f"[{name}]" if group == "modality" else name
    cfg = composed("train", f"{group}={value}")
    package = options_of(path)
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
    assert options_of(path) == "_global_"


def targets(node) -> list[str]:
    if isinstance(node, list):
        return [target for each in node for target in targets(each)]
    if not isinstance(node, dict):
        return []
    here = [node["_target_"]] if "_target_" in node else []
    return here + [target for value in node.values() for target in targets(value)]


@pytest.mark.parametrize("path", OPTIONS, ids=str)
def test_each_target_is_of_this_package(path):
    node = yaml.safe_load((CONF / path).read_text(encoding="utf-8")) or {}
    assert all(target.startswith("unigen.") for target in targets(node))


def test_there_is_no_code_and_no_environment_in_the_yaml():
    for path in CONF.rglob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\$\{(eval|oc\.env|oc\.decode|oc\.create)", text), path


def test_every_group_is_in_the_defaults_of_train():
    assert set(GROUPS) <= set(known_keys("train"))
