"""What plugins=[...] names is imported, used or not, or refused by its name."""

import sys
from pathlib import Path

import pytest
from media_folder import png
from tiny import tiny_model

from unigen import load
from unigen.cli import main
from unigen.errors import UsageError


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Work in a folder with a plugin, a broken one and one that lacks another module."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delenv("UNIGEN_TRACEBACK", raising=False)
    tiny_model().save_pretrained(tmp_path / "tiny")
    png(tmp_path / "media" / "a.png", 0)
    (tmp_path / "my_plugin.py").write_text("import sys\nsys.my_plugin_was_here = True\n")
    (tmp_path / "my_broken.py").write_text("raise RuntimeError('no such device')\n")
    (tmp_path / "my_hungry.py").write_text("import a_module_of_nobody\n")
    yield tmp_path
    for name in ("my_plugin", "my_broken", "my_hungry"):
        sys.modules.pop(name, None)


COMMANDS = [
    "generate|a star|steps=1|model=tiny|out=out",
    "caption|media/a.png|steps=1|model=tiny",
    "embed|media/a.png|model=tiny|out=out",
    "data|check|data.root=media",
]


ABSENT = "'nonexistent' was not found; install it, or run from its folder"


@pytest.mark.parametrize(
    ("line", "plugins", "said"),
    [
        *((line, "nonexistent", ABSENT) for line in [*COMMANDS, "train|model=small|plan=true"]),
        (COMMANDS[0], "my_plugin,my_broken", "'my_broken' cannot be imported (RuntimeError: no s"),
        (COMMANDS[0], "my_hungry", "'my_hungry' cannot be imported (ModuleNotFoundError: No modu"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_named(here, capsys, line, plugins, said):
    before = {path.name for path in here.iterdir()} | {"__pycache__", "runs"}
    assert main([*line.split("|"), f"plugins=[{plugins}]"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and err.count("\n") == 1, err
    assert {path.name for path in here.iterdir()} <= before


@pytest.mark.parametrize("line", COMMANDS)
def test_a_plugin_is_imported_where_nothing_of_it_is_named(here, monkeypatch, capsys, line):
    monkeypatch.setattr(sys, "my_plugin_was_here", False, raising=False)
    assert main([*line.split("|"), "plugins=[my_plugin]"]) == 0, capsys.readouterr().err
    assert sys.my_plugin_was_here


def test_so_it_is_in_python(here: Path):
    with pytest.raises(UsageError, match="'nonexistent' was not found"):
        load(here / "tiny", ["nonexistent"])
