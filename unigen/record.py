"""The record of a run: what each of its starts was told, and what code and weights it ran with.

The first start writes `run.json`, later ones `run-2.json` and so on; none is written over. Changes
of what runs in the checkout that are in no commit lie beside it, as `run.diff` or `run-2.diff`.
"""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from unigen.checkpoint import WEIGHTS, digest
from unigen.disk import put
from unigen.model import EMBEDDED
from unigen.precision import native

PACKAGES = ("unigen", "torch", "torchaudio", "diffusers", "transformers", "peft", "safetensors",
            "numpy", "hydra-core", "av", "soundfile")  # fmt: skip
MAX_DIFF = 1_000_000  # bytes; what is more is cut, and the record says so
CHECKOUT = Path(__file__).resolve().parents[1]
RUNS = ("unigen", "conf", "setup.py", "pyproject.toml")  # of a checkout


def record(
    out: Path,
    config: dict,
    processes: int,
    step: int = 0,
    data: Any = None,
    checkout: Path = CHECKOUT,
) -> Path:
    """Write and return the record of a start that goes on after a step.

    It holds the resolved configuration, hashes of the weights to start from and of plugins,
    versions, the state of the checkout, the machine and the processes. Call it with the run locked.
    data: what names the items and their state, where the source can tell.
    """
    path, number = out / "run.json", 1
    while path.exists():
        number += 1
        path = out / f"run-{number}.json"
    git, diff = checkout_state(checkout)
    if git is not None and diff:
        git |= {"diff": path.with_suffix(".diff").name, "diff_bytes": len(diff)}
        put(path.with_suffix(".diff"), diff[:MAX_DIFF])
    facts = {
        "config": config,
        "step": step,
        "processes": processes,
        "init": init_hashes(config.get("init") or ()),
        "plugins": {name: plugin_hashes(name) for name in config.get("plugins") or ()},
        "data": data,
        "versions": {"python": platform.python_version(), **versions()},
        "git": git,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "bf16": native(config.get("device") or "cpu"),  # what trainer.bf16=null meant
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    put(path, (json.dumps(facts, indent=2, default=str) + "\n").encode())
    return path


def versions() -> dict[str, str]:
    """Return the versions of the packages that a run depends on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # an extra, or a bare checkout
            found[name] = "not installed"
    return found


def init_hashes(init: str | Sequence[str | Path]) -> dict[str, str | None]:
    """Return the sha256 of the weights that each entry of init= names; None where there are none.

    What is wrong with an entry is said where it is loaded.
    """
    found = {}
    for entry in map(str, [init] if isinstance(init, str) else init):
        folder = entry.rpartition("@")[2]
        path = Path(EMBEDDED if folder == "embedded" else folder) / WEIGHTS
        found[entry] = digest(path) if path.is_file() else None
    return found


def plugin_hashes(name: str) -> dict[str, str]:
    """Return the sha256 of every Python file of a module or package; none of one not found."""
    found = None
    with suppress(ImportError, ValueError):
        found = find_spec(name)
    if found is None:
        return {}
    folders = [Path(folder) for folder in found.submodule_search_locations or ()]
    files = [path for folder in folders for path in folder.rglob("*.py")]
    if not folders and found.has_location:
        files = [Path(str(found.origin))]
    return {str(path): digest(path) for path in sorted(files)}


def checkout_state(checkout: Path) -> tuple[dict[str, Any] | None, bytes]:
    """Return the state of what runs in a git checkout, and its diff; None for anything else.

    The diff is that of tracked files against the commit. Python and YAML files that git does not
    know run, too: they are named with their sha256.
    """
    if not (checkout / ".git").exists():
        return None, b""

    def ask(*words: str) -> bytes:
        command = ["git", "-C", str(checkout), *words]
        return subprocess.run(command, capture_output=True, check=True, timeout=10).stdout

    try:
        commit = ask("rev-parse", "HEAD").decode().strip()
        changed = os.fsdecode(ask("status", "--porcelain", "-uno", "--", *RUNS)).splitlines()
        diff = ask("diff", "--no-color", "--no-ext-diff", "HEAD", "--", *RUNS) if changed else b""
        others = os.fsdecode(ask("ls-files", "--others", "--exclude-standard", "-z", "--", *RUNS))
        untracked = {name: digest(checkout / name) for name in others.split("\0")
                     if name.endswith((".py", ".yaml"))}  # fmt: skip
    except (OSError, subprocess.SubprocessError):  # no git, no commit, or a folder too slow
        return None, b""
    return {"commit": commit, "changed": changed[:50], "untracked": untracked}, diff
