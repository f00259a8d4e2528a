"""Training checkpoints: one folder a step, complete or absent, with a manifest that proves it.

`run/checkpoints/step-00000123/` holds one safetensors file a group (model, ema, optimizer),
`meta.json`, and `manifest.json` with every size and sha256, written last. A run whose processes
share the rows of its tensors writes a file a group and process, `ema-00001-of-00008.safetensors`:
the tensors in the last of them are sharded by rows, what only the first one has is whole.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unigen.checkpoint import digest
from unigen.disk import (
    dump_json,
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
from unigen.team import ALONE, Team
from unigen.tensorfile import MAX_BYTES, read_weights, size_of, write_weights

MANIFEST, META = "manifest.json", "meta.json"
MAX_META = 64_000_000
_STEP = re.compile(r"step-(\d{8,18})")
_NOTES = r"run(-\d+)?\.(json|diff)|(losses|validation)\.jsonl|wandb\.id"  # beside checkpoints
_GROUP = re.compile(r"[a-z][a-z0-9_]{0,40}")
_FILE = re.compile(r"[a-z][a-z0-9_]{0,40}(-\d{5}-of-\d{5})?\.(safetensors|json)")


class Latest(NamedTuple):
    """The newest good checkpoint of a run, or None where it has none, and what was passed over."""

    folder: Path | None
    notes: list[str]

    @property
    def step(self) -> int:
        """Return the step that it was written after, 0 where there is none."""
        found = None if self.folder is None else _STEP.fullmatch(self.folder.name)
        return int(found[1]) if found else 0


def save_step(
    run: str | Path,
    step: int,
    tensors: dict[str, dict[str, Tensor]],
    meta: dict[str, Any],
    keep: int = 2,
    team: Team = ALONE,
    sharded: bool = False,
) -> Path:
    """Write the checkpoint of a step, drop older ones beyond `keep`, and return its folder.

    `tensors` maps a group, such as model, ema or optimizer, to named tensors; `meta` is JSON. Every
    process of the `team` calls this; if the state is `sharded`, each with its rows of it. A
    kill at any moment leaves every older checkpoint good. Raises `ResourceError` for a full disk
    (1.2 times the size must be free) or a NaN; nothing is left behind then.
    """
    if keep < 1 or step < 0 or not all(_GROUP.fullmatch(g) and g != "manifest" for g in tensors):
        raise ValueError(f"step {step}, keep {keep}, groups {list(tensors)} make no checkpoint")
    text = dump_json(meta)
    target = real_path(run) / "checkpoints" / f"step-{step:08d}"
    size = sum(team.hear(sum(size_of(group.values()) for group in tensors.values()))) + len(text)
    suffix = f"-{team.rank + 1:05d}-of-{team.size:05d}" if sharded and team.size > 1 else ""
    with team.together(), _stage(team, target, size) as stage:
        own = [stage / f"{name}{suffix}.safetensors" for name in tensors]
        with team.together():
            for path, group in zip(own, tensors.values(), strict=True):
                write_weights(path, group)
            if team.rank == 0:
                write_file(stage / META, text)
                own.append(stage / META)
            facts = {p.name: {"size": p.stat().st_size, "sha256": digest(p)} for p in own}
        files = {name: fact for each in team.hear(facts) for name, fact in sorted(each.items())}
        if team.rank == 0:
            sync(stage)
            write_file(stage / MANIFEST, _seal({"version": 1, "step": step, "files": files}))
    older = [folder for number, folder in _steps(run) if number <= step]
    for folder in older[:-keep] if team.rank == 0 else ():
        _drop(folder)
    return target


@contextmanager
def _stage(team: Team, target: Path, size: int) -> Iterator[Path]:
    """Give all processes the folder to fill that process 0 makes and puts in its place."""
    with ExitStack() as stack:
        stage = None
        with team.together():
            if team.rank == 0:
                stage = stack.enter_context(staged(target, size))
        yield Path(team.tell(stage))


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


def load_step(
    folder: str | Path, rank: int = 0, size: int = 1
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Read one checkpoint, verifying every byte; return its groups of tensors and its meta.

    Sharded tensors come whole, or as the rows of process `rank` where just `size` wrote them.
    """
    folder = real_path(folder)
    if not folder.is_dir():
        raise UsageError(f"There is no checkpoint {named(folder)}; check the path.")
    files = _read_manifest(folder)

    def read(name: str) -> dict[str, Tensor]:
        tensors, sha = read_weights(folder / name, folder, allow_empty=True)
        _check_file(folder / name, files[name], (folder / name).stat().st_size, sha)
        return tensors

    tensors = {
        group: _join([partial(read, name) for name in names], rank, size)
        for group, names in _groups(files).items()
    }
    with reading(folder / META, folder, MAX_META) as (file, size):
        raw = file.read(size)
    _check_file(folder / META, files[META], len(raw), hashlib.sha256(raw).hexdigest())
    return tensors, parse_json(raw, named(folder / META))


def _groups(files: Iterable[str]) -> dict[str, list[str]]:
    """Return the tensor files of every group, in the order of the processes that wrote them."""
    groups: dict[str, list[str]] = {}
    for name in sorted(files):
        if name.endswith(".safetensors"):
            groups.setdefault(re.split(r"[-.]", name)[0], []).append(name)
    return groups


def _join(shards: list[Callable[[], dict[str, Tensor]]], rank: int, size: int) -> dict[str, Tensor]:
    """Return the tensors of a group: whole, or the rows of one process of just as many."""
    first = shards[0]()
    if len(shards) == 1:
        return first
    if len(shards) == size:
        return {**first, **shards[rank]()}
    rest = [shard() for shard in shards[1:]]
    return {
        name: torch.cat([tensor, *(other[name] for other in rest)]) if name in rest[-1] else tensor
        for name, tensor in first.items()
    }


def sweep(run: str | Path) -> list[Path]:
    """Delete what killed saves and records left behind; return the paths. The run is locked."""
    run = real_path(run)
    return sweep_stages(run / "checkpoints", r"step-\d+") + sweep_stages(run, _NOTES)


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
