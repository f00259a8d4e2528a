"""The rules of the house, kept by reading the source: floors, names, sizes, imports, README map."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "unigen").rglob("*.py"))
LONGEST = 260  # lines of a file

# The floors, lowest first; the longest matching prefix decides. A new file must be given a floor.
FLOORS = {
    "unigen.errors": 0,
    "unigen.tokens": 0,
    "unigen.layers": 0,
    "unigen.precision": 0,
    "unigen.registry": 0,
    "unigen.plugins": 0,
    "unigen.disk": 0,
    "unigen.journal": 0,
    "unigen.tensorfile": 0,
    "unigen.owner": 0,
    "unigen.runs": 0,
    "unigen.share": 0,
    "unigen.team": 0,
    "unigen.rendezvous": 0,
    "unigen.checkpoint": 0,
    "unigen.state": 0,
    "unigen.media": 0,
    "unigen.flow": 1,
    "unigen.lens": 1,
    "unigen.sampler": 1,
    "unigen.uvit": 1,
    "unigen.guidance": 1,
    "unigen.presence": 1,
    "unigen.turns": 1,
    "unigen.optim": 1,
    "unigen.tune": 1,
    "unigen.modalities": 2,
    "unigen.model": 3,
    "unigen.sampling": 3,
    "unigen.align": 3,
    "unigen.objectives": 3,
    "unigen.generation": 3,
    "unigen.given": 3,
    "unigen.interop": 3,
    "unigen.data": 4,
    "unigen.train": 4,
    "unigen.engine": 4,
    "unigen.follow": 4,
    "unigen.tracker": 4,
    "unigen.plan": 4,
    "unigen.trainer": 4,
    "unigen.generate": 4,
    "unigen.replay": 4,
    "unigen.evaluate": 4,
    "unigen.metrics": 4,
    "unigen.gates": 4,
    "unigen.reference": 4,
    "unigen.record": 4,
    "unigen.report": 4,
    "unigen.preview": 4,
    "unigen.validate": 4,
    "unigen.configure": 4,
    "unigen.arguments": 5,
    "unigen.exits": 5,
    "unigen.explain": 5,
    "unigen.usage": 5,
    "unigen.cli": 5,
    "unigen.__main__": 5,
    "unigen": 0,
}
MODALITIES = {"image", "text", "video", "audio"}
NAMES_A_MODALITY = ("modalities", "interop", "data", "conf")  # folders that may
READS_MEDIA = {"PIL", "av", "decord", "soundfile"}
READS_CFG = {"omegaconf", "hydra"}
MAY_READ_CFG = {"unigen.cli", "unigen.explain"}  # beside floor 4
BLIND = ("modalities", "model", "align", "objectives", "flow", "sampler", "guidance", "presence")
BLIND += ("uvit", "layers", "lens", "tokens", "given", "generation", "sampling", "optim", "tune")
BLIND += ("engine", "trainer", "train", "validate", "preview", "generate")
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor_of(module: str) -> int | None:
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        name = ".".join(parts[:end])
        if name in FLOORS and (name != "unigen" or module == "unigen"):
            return FLOORS[name]
    return None


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def modules_named(node: ast.AST, module: str, is_package: bool) -> list[str]:
    """The modules an import statement names, relative ones made absolute."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        parts = module.split(".")
        parts = parts[: len(parts) - node.level + is_package]
        base = ".".join([*parts, base] if base else parts)
    return [base, *(f"{base}.{alias.name}" for alias in node.names)]


def imports_of(path: Path) -> list[tuple[int, str]]:
    """Every import of a file, those inside functions too: (line, module)."""
    module, package = module_of(path), path.name == "__init__.py"
    return [
        (node.lineno, name)
        for node in ast.walk(tree_of(path))
        for name in modules_named(node, module, package)
    ]


def within(path: Path, *names: str) -> bool:
    first = path.relative_to(ROOT / "unigen").parts[0]
    return first.removesuffix(".py") in names


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def test_every_module_stands_on_a_floor():
    lost = [module_of(path) for path in SOURCES if floor_of(module_of(path)) is None]
    assert not lost, f"give these a floor in {Path(__file__).name}: {lost}"


def test_imports_go_down():
    up = [
        f"{where(path, line)} imports {name}"
        for path in SOURCES
        for line, name in imports_of(path)
        if name.startswith("unigen.") and (floor_of(name) or 0) > (floor_of(module_of(path)) or 0)
    ]
    assert not up, up


def test_modality_files_import_no_other_modality():
    names = [path for path in SOURCES if within(path, "modalities") and path.stem in MODALITIES]
    twins = [
        f"{where(path, line)} imports {name}"
        for path in names
        for line, name in imports_of(path)
        if re.fullmatch(r"unigen\.modalities\.(\w+)", name)
        and name.rsplit(".", 1)[1] in MODALITIES - {path.stem}
    ]
    assert not twins, twins


def test_files_are_small_enough_to_hold():
    long = {}
    for path in SOURCES:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > LONGEST:
            long[where(path, 1)] = lines
    assert not long, long


def test_each_file_opens_with_what_it_is():
    silent = [where(path, 1) for path in SOURCES if not ast.get_docstring(tree_of(path))]
    assert not silent, silent


def test_no_function_knows_a_modality_by_name():
    knows = [
        f"{where(path, node.lineno)} says {node.value!r}"
        for path in SOURCES
        if not within(path, *NAMES_A_MODALITY) and not within(path, "media")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Constant) and node.value in MODALITIES
    ]
    assert not knows, knows


def test_configuration_stops_at_floor_four():
    reads = [
        f"{where(path, line)} imports {name}"
        for path in SOURCES
        for line, name in imports_of(path)
        if name.split(".")[0] in READS_CFG
        and floor_of(module_of(path)) != 4
        and module_of(path) not in MAY_READ_CFG
    ]
    assert not reads, reads


def test_the_model_and_its_training_know_no_world_and_no_oracle():
    knows = [
        f"{where(path, line)} imports {name}"
        for path in SOURCES
        if within(path, *BLIND)
        for line, name in imports_of(path)
        if name.startswith("unigen.data.world") or "oracle" in name
    ]
    assert not knows, knows


def test_media_libraries_stay_in_media():
    reads = [
        f"{where(path, line)} imports {name}"
        for path in SOURCES
        if not within(path, "media")
        for line, name in imports_of(path)
        if name.split(".")[0] in READS_MEDIA
    ]
    assert not reads, reads


def test_media_needs_no_torch():
    heavy = [
        f"{where(path, line)} imports {name}"
        for path in SOURCES
        if within(path, "media")
        for line, name in imports_of(path)
        if name.split(".")[0] in {"torch", "torchaudio", "diffusers", "transformers"}
    ]
    assert not heavy, heavy


def dangers(path: Path) -> list[str]:
    """What may run foreign code: pickle, eval, shells, unsafe YAML, unsafe torch.load."""
    found = [
        where(path, line)
        for line, name in imports_of(path)
        if name.split(".")[0] in FORBIDDEN_MODULES
    ]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            words = {word.arg: word.value for word in node.keywords}
            for word, allowed in (
                ("shell", False),
                ("trust_remote_code", False),
                ("weights_only", True),
            ):
                value = words.get(word)
                if value is not None and getattr(value, "value", None) is not allowed:
                    found.append(f"{where(path, node.lineno)} {word}")
            if called in {"eval", "exec", "os.system", "os.popen", "yaml.load", "torch.hub.load"}:
                found.append(f"{where(path, node.lineno)} {called}")
            if called == "torch.load" and "weights_only" not in words:
                found.append(f"{where(path, node.lineno)} torch.load without weights_only=True")
            if called.endswith("extractall") or called == "hydra.utils.instantiate":
                found.append(f"{where(path, node.lineno)} {called}")
    return found


def test_nothing_runs_foreign_code():
    found = [danger for path in SOURCES for danger in dangers(path)]
    assert not found, found


def test_no_bare_except_and_no_postponed_annotations():
    bad = []
    for path in SOURCES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                bad.append(f"{where(path, node.lineno)} bare except")
            if isinstance(node, ast.ImportFrom) and node.module == "__future__":
                bad.append(f"{where(path, node.lineno)} would disable the shape checks")
    assert not bad, bad


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import pickle", "x.py"),
        ("eval('1')", "eval"),
        ("import torch; torch.load('x')", "weights_only"),
        ("import torch; torch.load('x', weights_only=False)", "weights_only"),
        ("import subprocess; subprocess.run('ls', shell=True)", "shell"),
        ("f.from_pretrained('x', trust_remote_code=True)", "trust_remote_code"),
        ("import yaml; yaml.load('x')", "yaml.load"),
    ],
)
def test_the_rule_against_foreign_code_can_fail(tmp_path, monkeypatch, source, words):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "unigen").mkdir()
    path = tmp_path / "unigen" / "x.py"
    path.write_text(source)
    assert any(words in danger for danger in dangers(path))


def test_import_is_silent_and_light():
    code = (
        "import sys, unigen; assert unigen.__version__; dir(unigen);"
        "sys.exit(str({'torch', 'hydra', 'numpy'} & set(sys.modules)).replace('set()', '') or 0)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.slow
def test_types_agree():
    if importlib.util.find_spec("pyright") is None:
        pytest.skip("pyright is not installed; type pip install -e '.[types]'")
    command = [sys.executable, "-m", "pyright"]
    options = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 300}
    options["env"] = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}  # asks no server
    try:
        subprocess.run([*command, "--version"], check=True, **options)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"pyright has no node and cannot fetch one: {error}")
    done = subprocess.run([*command, "--warnings", "--pythonpath", sys.executable], **options)
    assert done.returncode == 0, done.stdout + done.stderr


MAP = re.compile(r"<!-- map -->\n```\w*\n(.*?)```\n<!-- /map -->", re.DOTALL)
MAPPED = [
    path
    for folder in ("unigen", "conf", "tests", "benchmarks", "notebooks")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in {".py", ".yaml", ".ipynb"} and "." not in path.parent.name
]


def paths_in_map(text: str) -> set[str]:
    """The files of an indented map: a folder ends in `/`, a name ends at two spaces."""
    paths, stack = set(), []
    for line in text.splitlines():
        if not line.strip():
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        name = re.split(r"\s{2,}", line.strip())[0]
        stack = stack[:depth]
        if name.endswith("/"):
            stack.append(name)
        else:
            paths |= {"".join(stack) + each for each in name.split()}
    return paths


def test_the_map_is_read_as_it_is_drawn():
    text = "a/\n  b.py         one\n  c/\n    d.py e.py  two\nf.toml  three\n"
    assert paths_in_map(text) == {"a/b.py", "a/c/d.py", "a/c/e.py", "f.toml"}


def test_the_map_of_the_readme_is_the_tree():
    match = MAP.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert match, "README.md has no map between <!-- map --> and <!-- /map -->"
    drawn = paths_in_map(match[1])
    assert drawn, "the map in README.md is empty"
    missing = {path for path in drawn if not (ROOT / path).exists()}
    assert not missing, f"drawn, but not there: {sorted(missing)}"
    here = {path.relative_to(ROOT).as_posix() for path in MAPPED if path.name != "__init__.py"}
    assert not here - drawn, f"there, but not drawn: {sorted(here - drawn)}"
