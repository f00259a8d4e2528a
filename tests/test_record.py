"""The record of a run: versions, the checkout, the weights it began with, and every start."""

import hashlib
import json
import logging
import shutil
import subprocess
from importlib.metadata import version

import pytest

from unigen import cli
from unigen import record as records
from unigen.record import checkout_state, init_hashes, record, versions


@pytest.fixture
def checkout(tmp_path):
    """A git checkout with one commit."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "unigen").mkdir()
    (folder / "unigen/a.py").write_text("x = 1\n")
    told = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    for words in (("init", "-q"), ("add", "."), (*told, "commit", "-qm", "one")):
        subprocess.run(["git", "-C", str(folder), *words], check=True)
    return folder


def test_versions_are_those_of_what_is_installed(monkeypatch):
    monkeypatch.setattr(records, "PACKAGES", (*records.PACKAGES, "a-package-of-nobody"))
    found = versions()
    for name in ("torch", "hydra-core", "av", "soundfile"):
        assert found[name] == version(name)
    assert "peft" in found
    assert found["a-package-of-nobody"] == "not installed"


def test_a_clean_checkout_is_its_commit(checkout, tmp_path):
    git = json.loads(record(tmp_path, {}, 1, checkout=checkout).read_text())["git"]
    head = subprocess.check_output(["git", "-C", str(checkout), "rev-parse", "HEAD"], text=True)
    assert git == {"commit": head.strip(), "changed": [], "untracked": {}}
    assert not list(tmp_path.glob("*.diff"))
    assert checkout_state(tmp_path) == (None, b"")


def test_the_diff_makes_the_code_that_ran_out_of_the_commit(checkout, tmp_path):
    (checkout / "unigen/a.py").write_text("x = 2\n")
    git = json.loads(record(tmp_path, {}, 1, checkout=checkout).read_text())["git"]
    assert git["changed"] == [" M unigen/a.py"] and git["diff"] == "run.diff"
    diff = tmp_path / "run.diff"
    assert git["diff_bytes"] == diff.stat().st_size
    for words in (("checkout", "-q", "unigen/a.py"), ("apply", str(diff))):
        subprocess.run(["git", "-C", str(checkout), *words], check=True)
    assert (checkout / "unigen/a.py").read_text() == "x = 2\n"


def test_the_diff_is_of_what_runs_and_new_files_are_named(checkout, tmp_path):
    told = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    (checkout / "a.ipynb").write_text("{}\n")
    for words in (("add", "."), (*told, "commit", "-qm", "two")):
        subprocess.run(["git", "-C", str(checkout), *words], check=True)
    (checkout / "a.ipynb").write_text("secret\n" * 300_000)  # sorts before what runs
    (checkout / "unigen/a.py").write_text("x = 2\n")
    (checkout / "unigen/.gitignore").write_text("ignored.py\n")
    (checkout / "conf").mkdir()
    new = {"unigen/b.py": b"y = 1\n", "conf/c.yaml": b"z: 1\n"}
    for name, data in {
        **new,
        "unigen/ignored.py": b"",
        "unigen/notes.txt": b"",
        "d.py": b"",
    }.items():
        (checkout / name).write_bytes(data)
    git = json.loads(record(tmp_path, {}, 1, checkout=checkout).read_text())["git"]
    assert git["changed"] == [" M unigen/a.py"]
    assert git["untracked"] == {name: hashlib.sha256(x).hexdigest() for name, x in new.items()}
    diff = (tmp_path / "run.diff").read_text()
    assert "+x = 2" in diff and "secret" not in diff


def test_the_record_names_the_code_of_plugins_and_the_data(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    files = {"a_plugin.py": b"x = 1\n", "a_package/__init__.py": b"", "a_package/b.py": b"y = 1\n"}
    (tmp_path / "a_package").mkdir()
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    config = {"plugins": ["a_plugin", "a_package", "of_nobody", "of.nobody"]}
    facts = json.loads(record(tmp_path, config, 1, data="files 1f").read_text())
    sha = {str(tmp_path / name): hashlib.sha256(data).hexdigest() for name, data in files.items()}
    assert {k: v for each in facts["plugins"].values() for k, v in each.items()} == sha
    assert facts["plugins"]["of_nobody"] == facts["plugins"]["of.nobody"] == {}
    assert facts["data"] == "files 1f"


def test_a_long_diff_is_cut(checkout, tmp_path):
    (checkout / "unigen/a.py").write_text("x = 2\n" * 300_000)
    git = json.loads(record(tmp_path, {}, 1, checkout=checkout).read_text())["git"]
    assert git["diff_bytes"] > 2_000_000
    assert (tmp_path / "run.diff").stat().st_size == records.MAX_DIFF


def test_a_later_start_leaves_the_records_of_earlier_ones(checkout, tmp_path):
    (checkout / "unigen/a.py").write_text("x = 2\n")
    first = record(tmp_path, {"seed": 1}, 1, checkout=checkout)
    before = first.read_bytes(), (tmp_path / "run.diff").read_bytes()
    (checkout / "unigen/a.py").write_text("x = 3\n")
    later = [record(tmp_path, {"seed": n}, n, step=n, checkout=checkout) for n in (2, 3)]
    assert [path.name for path in (first, *later)] == ["run.json", "run-2.json", "run-3.json"]
    assert (first.read_bytes(), (tmp_path / "run.diff").read_bytes()) == before
    for n, path in enumerate(later, 2):
        facts = json.loads(path.read_text())
        assert (facts["config"], facts["processes"], facts["step"]) == ({"seed": n}, n, n)
        assert "+x = 3" in (tmp_path / facts["git"]["diff"]).read_text()


def test_weights_to_start_from_are_known_by_their_hash(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    sha = hashlib.sha256(b"weights").hexdigest()
    some, image = str(tmp_path), f"modalities.image@{tmp_path}"
    assert init_hashes([some, image, "nowhere"]) == {some: sha, image: sha, "nowhere": None}
    assert init_hashes(some) == {some: sha}
    assert len(init_hashes("embedded")["embedded"] or "") == 64


def test_a_run_that_goes_on_has_two_records(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    tiny = ["train", "model=small", "modality=[text]", "trainer.batch=4", "trainer.cache=8",
            "trainer.preview_every=0", "out=run"]  # fmt: skip
    for steps in (1, 2):
        assert cli.main([*tiny, f"trainer.steps={steps}"]) == 0
    for handler in set(root.handlers) - set(handlers):  # those that Hydra added
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    facts = [json.loads((tmp_path / "run" / f).read_text()) for f in ("run.json", "run-2.json")]
    assert [x["step"] for x in facts] == [0, 1]
    assert [x["config"]["trainer"]["steps"] for x in facts] == [1, 2]
