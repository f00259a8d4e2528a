"""Training checkpoints: one folder a step, complete or absent, with a manifest that proves it.

`run/checkpoints/step-00000123/` holds one safetensors file a group (model, ema, optimizer),
`meta.json`, and `manifest.json` with every size and sha256, written last.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from torch import Tensor

from unigen.checkpoint import digest
from unigen.disk import (
    FOLDER_MODE,
    dump_json,
    held,
    named,
    parse_json,
    reading,
    real_path,
    staged,
    sweep_stages,
    sync,
    write_file,
    writing,
)
from unigen.errors import CheckpointError, UsageError
from unigen.tensorfile import MAX_BYTES, read_weights, size_of, write_weights

MANIFEST, META = "manifest.json", "meta.json"
MAX_META = 64_000_000
_STEP = re.compile(r"step-(\d{8,18})")
_GROUP = re.compile(r"[a-z][a-z0-9_]{0,40}")
_FILE = re.compile(r"[a-z][a-z0-9_]{0,40}\.(safetensors|json)")
_LOGGED = re.compile(rb'\{"step": (\d+)[,}]')


class Latest(NamedTuple):
    """The newest good checkpoint of a run, or None where it has none, and what was passed over."""

    folder: Path | None
    notes: list[str]


@contextmanager
def lock(run: str | Path) -> Iterator[None]:
    """Hold a run folder for this process; `UsageError` where another process holds it."""
    run = real_path(run)
    with ExitStack() as stack:
        with writing(run):
            run.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            try:
                stack.enter_context(held(run / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW))
            except BlockingIOError as error:
                raise UsageError(
                    f"{named(run)} is used by another run; wait for it, or choose another folder."
                ) from error
        yield


def save_step(
    run: str | Path,
    step: int,
    tensors: dict[str, dict[str, Tensor]],
    meta: dict[str, Any],
    keep: int = 2,
) -> Path:
    """Write the checkpoint of a step, drop older ones beyond `keep`, and return its folder.

    `tensors` maps a group, such as model, ema or optimizer, to named tensors; `meta` is JSON. A
    kill at any moment leaves every older checkpoint good. Raises `ResourceError` for a full disk
    (1.2 times the size must be free) or a NaN; nothing is left behind then.
    """
    if keep < 1 or step < 0 or not all(_GROUP.fullmatch(g) and g != "manifest" for g in tensors):
        raise ValueError(f"step {step}, keep {keep}, groups {list(tensors)} make no checkpoint")
    text = dump_json(meta)
    target = real_path(run) / "checkpoints" / f"step-{step:08d}"
    size = sum(size_of(group.values()) for group in tensors.values()) + len(text)
    with staged(target, size) as stage:
        for name, group in tensors.items():
            write_weights(stage / f"{name}.safetensors", group)
        write_file(stage / META, text)
        sync(stage)
        files = {
            path.name: {"size": path.stat().st_size, "sha256": digest(path)}
            for path in sorted(stage.iterdir())
        }
        write_file(stage / MANIFEST, _seal({"version": 1, "step": step, "files": files}))
    older = [folder for number, folder in _steps(run) if number <= step]
    for folder in older[:-keep]:
        _drop(folder)
    return target


def latest_step(run: str | Path) -> Latest:
    """Find the newest checkpoint whose every byte is as written.

    Damaged newer ones are passed over, each with a note naming the file. Raises
    `CheckpointError` where there are checkpoints and none is good.
    """
    notes = []
    for _, folder in reversed(_steps(run)):
        try:
            for name, facts in _read_manifest(folder).items():
                with reading(folder / name, folder, MAX_BYTES) as (file, size):
                    sha = hashlib.file_digest(file, "sha256").hexdigest()
                _check_file(folder / name, facts, size, sha)
            return Latest(folder, notes)
        except CheckpointError as error:
            notes.append(f"Passed over {named(folder)}: {error}")
    if notes:
        raise CheckpointError(f"No checkpoint of {named(run)} is good. {' '.join(notes)}")
    return Latest(None, notes)


def load_step(folder: str | Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Read one checkpoint, verifying every byte; return its groups of tensors and its meta."""
    folder = real_path(folder)
    if not folder.is_dir():
        raise UsageError(f"There is no checkpoint {named(folder)}; check the path.")
    files = _read_manifest(folder)
    tensors = {}
    for name, facts in files.items():
        path = folder / name
        if name.endswith(".safetensors"):
            group, sha = read_weights(path, folder, allow_empty=True)
            _check_file(path, facts, path.stat().st_size, sha)
            tensors[path.stem] = group
    with reading(folder / META, folder, MAX_META) as (file, size):
        raw = file.read(size)
    _check_file(folder / META, files[META], len(raw), hashlib.sha256(raw).hexdigest())
    return tensors, parse_json(raw, named(folder / META))


def sweep(run: str | Path) -> list[Path]:
    """Delete what killed saves left behind; return the paths. Call it with the run locked."""
    return sweep_stages(real_path(run) / "checkpoints", "step-")


def journal(path: Path, step: int) -> TextIO:
    """Open a log of JSON lines, each beginning with its step, to go on after a step.

    Lines of later steps are dropped, for the run takes those steps again; so is half a line that
    a kill left at the end.
    """
    with writing(path):
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        good = [x for x in lines if x.endswith(b"\n") and not _later(x, step)]
        if good != lines:
            stage = path.with_name(f"{path.name}.tmp-{os.urandom(8).hex()}")
            write_file(stage, b"".join(good))
            stage.replace(path)
        return path.open("a")


def _later(line: bytes, step: int) -> bool:
    """Tell whether a line of a log belongs to a later step."""
    found = _LOGGED.match(line)
    return found is not None and int(found[1]) > step


def _steps(run: str | Path) -> list[tuple[int, Path]]:
    """List the finished checkpoints of a run, oldest step first."""
    folder = real_path(run) / "checkpoints"
    found = (
        [(_STEP.fullmatch(path.name), path) for path in folder.iterdir()] if folder.is_dir() else []
    )
    return sorted((int(name[1]), path) for name, path in found if name and path.is_dir())


def _drop(folder: Path) -> None:
    """Delete a checkpoint: first its name, in one step, then its bytes."""
    with writing(folder):
        gone = folder.rename(folder.with_name(f"{folder.name}.tmp-{os.urandom(8).hex()}"))
        shutil.rmtree(gone)


def _seal(manifest: dict[str, Any]) -> bytes:
    """Return a manifest as bytes, ending with the sha256 of all the rest."""
    text = json.dumps(manifest, sort_keys=True, indent=2)
    return dump_json({**manifest, "digest": hashlib.sha256(text.encode()).hexdigest()})


def _read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the files of a checkpoint with their sizes and sha256, or say what is wrong."""
    path = folder / MANIFEST
    with reading(path, folder, MAX_META) as (file, size):
        raw = file.read(size)
    manifest = parse_json(raw, named(path))
    manifest.pop("digest", None)
    files = manifest.get("files")
    if raw != _seal(manifest) or not isinstance(files, dict) or not _listed(files):
        raise CheckpointError(f"{named(path)} was changed after it was written; use an older one.")
    return files


def _listed(files: dict[str, Any]) -> bool:
    """Tell whether a manifest lists plain file names only."""
    return META in files and all(_FILE.fullmatch(name) for name in files)


def _check_file(path: Path, facts: dict[str, Any], size: int, sha: str) -> None:
    """Raise `CheckpointError` where a file is not the one that the manifest lists."""
    if facts != {"size": size, "sha256": sha}:
        raise CheckpointError(f"{named(path)} was changed after it was written; use an older one.")
