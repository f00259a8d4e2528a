"""conf/ is found from a bare checkout, from a wheel and from an editable install."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ["pyproject.toml", "setup.py", "README.md", "LICENSE", "conf", "unigen"]
NEEDED = {"4_digits": "runs/digits/denoise/model"}  # what a notebook cannot make by itself
SHOW = ["-m", "unigen", "generate", "a, b", "seed=5", "--cfg", "job"]


def run(*args, cwd: Path, path: Path | None = None) -> str:
    """Run Python elsewhere and return its standard output."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    env |= {"PYTHONPATH": str(path)} if path else {}
    env["UNIGEN_SHORT_NOTEBOOKS"] = "1"  # training in a notebook takes two steps
    done = subprocess.run(
        [sys.executable, *args], cwd=cwd, env=env, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def composes_outside(path: Path, cwd: Path) -> str:
    """Compose from the package under `path`, in `cwd`, and return where its YAML lies."""
    shown = run(*SHOW, cwd=cwd, path=path)
    assert "text: a, b" in shown and "seed: 5" in shown
    assert "model" in run("-m", "unigen", "train", "--cfg", "job", cwd=cwd, path=path)
    code = "from unigen.arguments import conf_dir; print(conf_dir())"
    return run("-c", code, cwd=cwd, path=path).strip()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of what is shipped: building writes into the tree it builds from."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in SHIPPED:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def can_build():
    """Without isolation, a build takes the setuptools that is here."""
    if int(version("setuptools").split(".")[0]) < 77:
        pytest.skip("setuptools>=77 is not here: pip install -e '.[test]' brings it")


def test_conf_is_found_from_a_bare_checkout(tmp_path):
    assert composes_outside(ROOT, tmp_path) == str(ROOT / "conf")


@pytest.mark.slow
def test_conf_is_found_from_a_wheel(checkout, tmp_path, can_build):
    wheels, site, cwd = tmp_path / "wheels", tmp_path / "site", tmp_path / "cwd"
    cwd.mkdir()
    pip = ["-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(wheels)]
    run(*pip, str(checkout), cwd=tmp_path)
    (wheel,) = wheels.glob("unigen-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
        archive.extractall(site)
    assert {f"unigen/embedded/{name}" for name in ("config.json", "model.safetensors")} <= inside
    for folder, below in (("conf", "unigen/conf"), ("unigen", "unigen")):
        for path in (ROOT / folder).rglob("*"):
            embedded = "embedded" in path.parts and path.is_file()
            if path.suffix in {".py", ".yaml"} or embedded:
                assert f"{below}/{path.relative_to(ROOT / folder).as_posix()}" in inside
    top = {name.split("/")[0] for name in inside}
    assert top == {"unigen", "unigen-0.1.0.dist-info"}
    assert composes_outside(site, cwd) == str(site / "unigen" / "conf")


@pytest.mark.slow
def test_conf_is_found_from_an_editable_install(checkout, tmp_path, can_build):
    venv, cwd = tmp_path / "venv", tmp_path / "cwd"
    cwd.mkdir()
    run("-m", "venv", "--without-pip", str(venv), cwd=tmp_path)
    python = venv / "bin" / "python"
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "parent.pth").write_text("\n".join(p for p in sys.path if p.endswith("-packages")))
    pip = ["-m", "pip", "--python", str(python), "install", "-q", "--no-deps"]
    run(*pip, "--no-build-isolation", "-e", str(checkout), cwd=tmp_path)
    done = subprocess.run(
        [venv / "bin" / "unigen", *SHOW[2:]], cwd=cwd, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "text: a, b" in done.stdout, done.stderr
    code = "from unigen.arguments import conf_dir; print(conf_dir())"
    where = subprocess.run([python, "-c", code], cwd=cwd, capture_output=True, text=True)
    assert where.stdout.strip() == str(checkout / "conf")


def test_the_version_is_said_once():
    import unigen

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == unigen.__version__
    assert re.search(rf"^## \[{re.escape(unigen.__version__)}\]", changelog(), re.MULTILINE)


def changelog() -> str:
    return (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_torch_and_torchaudio_are_pinned_together():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = {re.split(r"[<>=;\[ ]", line)[0]: line for line in project["dependencies"]}
    assert bounds["torch"][len("torch") :] == bounds["torchaudio"][len("torchaudio") :]
    assert bounds["torch"].startswith("torch==")  # a later torchaudio loads beside no earlier torch


@pytest.mark.slow
def test_the_libraries_import_together(tmp_path):
    names = "torch torchaudio diffusers transformers einops hydra av soundfile PIL safetensors"
    assert run("-c", f"import {', '.join(names.split())}; print('fine')", cwd=tmp_path) == "fine\n"


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_a_notebook_runs_from_its_first_cell_to_its_last(path):
    needs = NEEDED.get(path.stem)
    if needs is not None and not (ROOT / needs).is_dir():
        pytest.skip(f"{needs} is not here: python benchmarks/digits.py train makes it")
    run("-m", "pytest", "-q", "-p", "no:jaxtyping", "--nbmake", "--nbmake-timeout=600", "-o",
        "addopts=", str(path), cwd=ROOT)  # fmt: skip


def test_the_readme_gives_two_complete_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("python3 -m venv .venv && ")]
    assert len(lines) == 2 and all("pip install -q -e" in line for line in lines)
    assert [".venv/bin/unigen generate" in lines[0], "-m pytest -q" in lines[1]] == [True, True]


def test_ci_runs_the_test_command_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tested = next(line for line in readme.splitlines() if line.endswith("-m pytest -q"))
    for step in tested.split(" && ")[1:]:
        assert step in script, step
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
