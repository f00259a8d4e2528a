"""Sixty hostile names, each tried in a configuration, in a spec and in a checkpoint: none runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import unigen
from unigen import configure, registry
from unigen.checkpoint import load_folder, save_folder
from unigen.errors import CheckpointError, UsageError

pytestmark = pytest.mark.reliability

# Each pair is a name and the arguments with which it would touch the canary, CANARY.
TARGETS = [
    ("os.system", {"command": "touch CANARY"}),
    ("posix.system", {"command": "touch CANARY"}),
    ("os.popen", {"cmd": "touch CANARY"}),
    ("os.mkdir", {"path": "CANARY"}),
    ("os.mkfifo", {"path": "CANARY"}),
    ("os.execvp", {"file": "touch", "args": ["touch", "CANARY"]}),
    ("subprocess.run", {"args": ["touch", "CANARY"]}),
    ("subprocess.call", {"args": ["touch", "CANARY"]}),
    ("subprocess.Popen", {"args": ["touch", "CANARY"]}),
    ("subprocess.check_output", {"args": ["touch", "CANARY"]}),
    ("builtins.eval", {"source": "open('CANARY', 'w')"}),
    ("builtins.exec", {"source": "open('CANARY', 'w')"}),
    ("builtins.open", {"file": "CANARY", "mode": "w"}),
    ("builtins.__import__", {"name": "antigravity"}),
    ("io.open", {"file": "CANARY", "mode": "w"}),
    ("io.FileIO", {"file": "CANARY", "mode": "w"}),
    ("codecs.open", {"filename": "CANARY", "mode": "w"}),
    ("pathlib.Path", {}),
    ("pathlib.Path.touch", {"self": "CANARY"}),
    ("shutil.copy", {"src": "/etc/hostname", "dst": "CANARY"}),
    ("importlib.import_module", {"name": "antigravity"}),
    ("runpy.run_path", {"path_name": "SCRIPT"}),
    ("code.InteractiveInterpreter", {}),
    ("pty.spawn", {"argv": ["touch", "CANARY"]}),
    ("distutils.spawn.spawn", {"cmd": ["touch", "CANARY"]}),
    ("multiprocessing.Process", {}),
    ("ctypes.CDLL", {"name": "SCRIPT"}),
    ("sqlite3.connect", {"database": "CANARY"}),
    ("pickle.loads", {"data": "cos\nsystem\n(S'touch CANARY'\ntR."}),
    ("torch.load", {"f": "SCRIPT", "weights_only": False}),
    ("torch.save", {"obj": 1, "f": "CANARY"}),
    ("torch.hub.load", {"repo_or_dir": "FOLDER", "model": "evil", "source": "local"}),
    ("numpy.load", {"file": "SCRIPT", "allow_pickle": True}),
    ("numpy.savetxt", {"fname": "CANARY", "X": [1]}),
    ("logging.os.system", {"command": "touch CANARY"}),
    ("logging.FileHandler", {"filename": "CANARY"}),
    ("logging.handlers.RotatingFileHandler", {"filename": "CANARY"}),
    ("logging.config.dictConfig", {"config": {"version": 1}}),
    ("hydra.utils.instantiate", {"config": {"path": "CANARY"}}),
    ("hydra.utils.get_method", {"path": "os.system"}),
    ("omegaconf.OmegaConf.save", {"config": {}, "f": "CANARY"}),
    ("transformers.dynamic_module_utils.get_class_from_dynamic_module", {"class_reference": "x"}),
    ("unigen.checkpoint.save_folder", {"folder": "CANARY", "config": {}, "tensors": {}}),
    ("unigen.disk.write_file", {"path": "CANARY", "data": ""}),
    ("unigen.disk.os.system", {"command": "touch CANARY"}),
    ("unigen.disk.shutil.rmtree", {"path": "FOLDER"}),
    ("unigen.runs.save_step", {"run": "CANARY", "step": 1, "tensors": {}, "meta": {}}),
    ("unigen.registry.import_module", {"name": "evil_plugin"}),
    ("unigen.registry.build", {"spec": {"class": "evil_plugin:Evil"}, "plugins": ["evil_plugin"]}),
    ("unigen.configure.build", {"node": {}, "plugins": ["evil_plugin"]}),
    ("unigen.configure.partial", {}),
    ("unigen.media.write_text", {"path": "CANARY", "text": "x", "recipe": {}}),
    ("unigen.model.load", {"folder": "FOLDER", "plugins": ["evil_plugin"]}),
    ("unigen.uvit.torch.load", {"f": "SCRIPT", "weights_only": False}),
    ("unigen.flow.__builtins__.eval", {"source": "open('CANARY', 'w')"}),
    ("unigen.__main__", {}),
    ("unigen_evil.Evil", {}),
    ("evil_plugin.Evil", {}),
    ("unigen..evil_plugin.Evil", {}),
    ("un\u0456gen.evil.Evil", {}),
]

EVIL = "import pathlib\npathlib.Path({canary!r}).touch()\nclass Evil:\n    pass\n"


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """Give a path that must not come to exist; hostile modules that make it are importable."""
    canary = tmp_path / "canary"
    for name in ("evil_plugin", "unigen_evil", "evil", "antigravity", "script", "hubconf"):
        (tmp_path / f"{name}.py").write_text(EVIL.format(canary=str(canary)))
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    yield canary
    sys.modules.pop("evil_plugin", None)


def filled(value, canary: Path):
    """Put the real paths into the arguments of a target."""
    words = {"CANARY": canary, "SCRIPT": canary.parent / "script.py", "FOLDER": canary.parent}
    text = json.dumps(value)
    for word, path in words.items():
        text = text.replace(word, str(path))
    return json.loads(text)


def test_there_are_sixty():
    assert len({name for name, _ in TARGETS}) == 60


def test_the_canary_tells(canary):
    configure.build({"_target_": "evil_plugin.Evil"}, ["evil_plugin"])
    assert canary.exists()


def nested(node: dict) -> list:
    """Return a node alone, as an argument, in lists, and kept for later."""
    flow = {"_target_": "unigen.flow.RectifiedFlow", "clock": node}
    return [node, flow, [[{"x": node}]], {**node, "_partial_": True}]


@pytest.mark.parametrize(("name", "arguments"), TARGETS, ids=[name for name, _ in TARGETS])
def test_a_configuration_cannot_name_it(canary, name, arguments):
    for node in nested({"_target_": name, **filled(arguments, canary)}):
        for plugins in ([], ["json"]):
            with pytest.raises(UsageError) as caught:
                configure.build(node, plugins)
            assert str(caught.value).isascii()
    assert not canary.exists()


@pytest.mark.parametrize(("name", "arguments"), TARGETS, ids=[name for name, _ in TARGETS])
def test_a_spec_and_a_checkpoint_cannot_name_it(canary, tmp_path, name, arguments):
    arguments = filled(arguments, canary)
    module, _, attribute = name.rpartition(".")
    specs = [{"class": name, **arguments}, {"class": f"{module}:{attribute}", **arguments}]
    for i, spec in enumerate(specs):
        for plugins in ([], ["json"]):
            with pytest.raises(CheckpointError):
                registry.build(spec, plugins)
        folder = tmp_path / f"model{i}"
        save_folder(folder, {"model": spec}, {"w": torch.ones(1)})
        config, _ = load_folder(folder)  # a name alone is data
        with pytest.raises(CheckpointError):
            registry.build(config["model"])
        config["model"]["part"] = {"_target_": name}
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match="_target_"):
            load_folder(folder)
    assert not canary.exists()


def test_the_package_never_calls_hydras_instantiate():
    root = Path(unigen.__file__).parent
    texts = {path: path.read_text(encoding="utf-8") for path in root.rglob("*.py")}
    assert len(texts) > 10
    bad = ("hydra.utils", "pickle.load", "weights_only=False", "allow_pickle=True", "shell=True")
    assert [(path, word) for path, text in texts.items() for word in bad if word in text] == []


def test_importing_the_registry_runs_nothing_of_a_checkpoint():
    code = "import unigen.registry, sys; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "False\n"
