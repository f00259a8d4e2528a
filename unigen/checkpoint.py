"""Model folders: `config.json` says what to build, `model.safetensors` holds its tensors.

Both are data. Nothing in them runs, imports or names a path; whatever is not exactly as this
module writes it is refused with one sentence. The configuration is
`{"format": "unigen", "version": 1, "model": {spec}, "card": {notes}, "hash": sha256 of weights}`.
"""

import errno
import hashlib
import re
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unigen.disk import (
    dump_json,
    named,
    parse_json,
    reading,
    real_path,
    staged,
    write_file,
    writing,
)
from unigen.errors import CheckpointError, ResourceError, UnigenError, UsageError
from unigen.registry import MAX_DEPTH, nearest, plain, shown
from unigen.tensorfile import MAX_BYTES, check_finite, read_weights, size_of, write_weights

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMAT, VERSION = "unigen", 1
MAX_CONFIG = 1_000_000
MAX_SHOWN = 5
_FIELDS = ("format", "version", "model", "card", "hash")
_REMOTE = ("auto_map", "custom_pipeline", "trust_remote_code")  # keys that ask to run code
_HINT = "; unigen convert FOLDER out=NEW makes them of UniDiffuser's pickles"
_PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")
_hashes: dict[tuple, str] = {}


def save_folder(folder: str | Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    """Write a model folder in one step and return its path.

    `config` holds `model` (a spec) and may hold `card`; format, version and hash are set here.
    An older model in `folder` is replaced whole. Raises `UsageError` for a folder with other
    files, `ResourceError` for a full disk or NaN weights; the folder then stays as it was.
    """
    target = real_path(folder)
    config = {"format": FORMAT, "version": VERSION, **config, "hash": "0" * 64}
    check_config(config, "The configuration", UsageError)
    with writing(target):
        names = {path.name for path in target.iterdir()} if target.is_dir() else set()
    if others := sorted(names - {CONFIG, WEIGHTS}):
        raise UsageError(
            f"{named(target)} holds {shown(others[0])}, which is no part of a model; choose a new "
            "or empty folder."
        )
    _check_zeros(tensors, "The model", UsageError)
    with staged(target, size_of(tensors.values()) + MAX_CONFIG) as stage:
        write_weights(stage / WEIGHTS, tensors)
        config["hash"] = digest(stage / WEIGHTS)
        write_file(stage / CONFIG, dump_json(config))
    return target


def load_folder(
    folder: str | Path,
    max_bytes: int = MAX_BYTES,
    *,
    root: str | Path | None = None,
    allow_nonfinite: bool = False,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a model folder: its checked configuration and its tensors, copied to CPU memory.

    Links must stay under `root` (default: the folder). Raises `UsageError` where the folder does
    not exist, `CheckpointError` for any fault inside, `ResourceError` for memory and permission.
    """
    folder, root = _open_folder(folder, root)
    with reading(folder / CONFIG, root, MAX_CONFIG) as (file, _):
        raw = file.read(MAX_CONFIG + 1)
    config = parse_json(raw, named(folder / CONFIG))
    check_config(config, named(folder / CONFIG), CheckpointError)
    tensors, sha = read_weights(folder / WEIGHTS, root, max_bytes=max_bytes)
    what = named(folder / WEIGHTS)
    if config.get("hash", sha) != sha:
        raise CheckpointError(
            f"{what} is not the file that {CONFIG} was written for; copy both again."
        )
    if not allow_nonfinite:
        check_finite(tensors, f"Loading {what}", CheckpointError)
    _check_zeros(tensors, what, CheckpointError)
    return config, tensors


def check_config(config: Any, what: str, error: type[UnigenError]) -> None:
    """Raise `error` where a configuration is not one that this version writes."""
    config = plain(config, error, what, depth=MAX_DEPTH + 2)
    if not isinstance(config, dict):
        raise error(f'{what} is {shown(config)}; a dict with a "model" was wanted.')
    for key in config:
        if key not in _FIELDS and key not in _REMOTE:
            raise error(f"{what} has an unknown field {shown(key)}{nearest(key, _FIELDS)}.")
    _refuse_remote(config, what, error)
    if config.get("format") != FORMAT:
        raise error(f'{what} has format {shown(config.get("format"))}; "{FORMAT}" was wanted.')
    if type(config.get("version")) is not int or config["version"] != VERSION:
        raise error(
            f"{what} has version {shown(config.get('version'))}, and this unigen reads {VERSION}; "
            "upgrade unigen or save the model again."
        )
    if not isinstance(config.get("model"), dict) or "class" not in config["model"]:
        raise error(f'{what} has no spec: "model" must be a dict with a "class".')
    if "hash" in config and not (
        isinstance(config["hash"], str) and re.fullmatch("[0-9a-f]{64}", config["hash"])
    ):
        raise error(f"{what} has hash {shown(config['hash'])}; 64 hex digits were wanted.")


def match(
    module: nn.Module, tensors: dict[str, Tensor], what: str, most: int | None = MAX_SHOWN
) -> None:
    """Copy tensors into a module whose state has exactly these names and shapes.

    Raises `CheckpointError` naming what is missing, extra or misshapen in `what`: at most so many
    of each, all of them for None.
    """
    state = module.state_dict()
    both = [name for name in state if name in tensors]
    shapes = [
        f"{name} {_form(tensors[name])} for {_form(state[name])}"
        for name in both
        if state[name].shape != tensors[name].shape
        or state[name].is_floating_point() != tensors[name].is_floating_point()
    ]
    faults = [
        f"{word} {_some(names, most)}"
        for word, names in (
            ("lacks", [name for name in state if name not in tensors]),
            ("has unknown", [name for name in tensors if name not in state]),
            ("misfits in", shapes),
        )
        if names
    ]
    if faults:
        raise CheckpointError(
            f"{what} does not fit the model it names: it {' and '.join(faults)}; use the "
            "configuration it was saved with."
        )
    if any(value.is_meta for value in state.values()):
        raise ValueError("match() copies values, and a module on the meta device keeps none")
    module.load_state_dict(tensors, strict=True)


def folder_hash(folder: str | Path, *, root: str | Path | None = None) -> str:
    """Return 16 hex digits that name a model: the sha256 of its configuration and weights."""
    folder, root = _open_folder(folder, root)
    key, total = [str(folder)], hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        with reading(folder / name, root, MAX_BYTES):
            facts = (folder / name).stat()
        key += [facts.st_mtime_ns, facts.st_size, facts.st_ino]
    if tuple(key) not in _hashes:
        for name in (CONFIG, WEIGHTS):
            with reading(folder / name, root, MAX_BYTES) as (file, _):
                total.update(hashlib.file_digest(file, "sha256").digest())
        _hashes[tuple(key)] = total.hexdigest()[:16]
    return _hashes[tuple(key)]


def digest(path: Path) -> str:
    """Return the sha256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open_folder(folder: str | Path, root: str | Path | None) -> tuple[Path, Path]:
    """Resolve a model folder and its root, and say what else the path may be."""
    path = real_path(folder)
    try:
        path.lstat()
        names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else None
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(
            f"There is no model folder {named(folder)}; check the path, or type download=true for "
            "a repository of the Hugging Face hub."
        ) from error
    except OSError as error:
        kind = UsageError if error.errno == errno.ENAMETOOLONG else ResourceError
        raise kind(f"Cannot read the folder {named(folder)}: {error.strerror}.") from error
    if names is None:
        raise CheckpointError(
            f"{named(folder)} is a file{' that may be a pickle' if _is_pickle(path) else ''}, and "
            f"unigen loads a folder with {CONFIG} and {WEIGHTS} only{_HINT}."
        )
    if f"{WEIGHTS}.index.json" in names:
        raise CheckpointError(f"{named(folder)} is sharded, and unigen loads one {WEIGHTS} only.")
    pickles = [name for name in names if name.endswith(_PICKLES)]
    if WEIGHTS not in names and pickles:
        raise CheckpointError(
            f"{named(folder)} holds {shown(pickles[0])}, which is a pickle; unigen loads "
            f"safetensors only{_HINT}."
        )
    return path, path if root is None else Path(root)


def _is_pickle(path: Path) -> bool:
    """Tell whether a file's name is one that pickles go by."""
    return path.suffix in _PICKLES


def _refuse_remote(node: Any, what: str, error: type[UnigenError]) -> None:
    """Raise `error` where a configuration asks to run code, at any depth."""
    for item in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _refuse_remote(item, what, error)
    for key in _REMOTE if isinstance(node, dict) else ():
        if key in node:
            raise error(f"{what} has {shown(key)}, which asks to run code; unigen never does that.")


def _check_zeros(tensors: dict[str, Tensor], what: str, error: type[UnigenError]) -> None:
    """Raise `error` where there is no tensor, or every value of every tensor is zero."""
    if not any(bool(tensor.float().any()) for tensor in tensors.values()):
        raise error(f"{what} holds nothing but zeros; train or save it again.")


def _form(tensor: Tensor) -> str:
    """Return a shape with its dtype, such as [3, 4] float32."""
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _some(names: list[str], most: int | None) -> str:
    """Return at most so many names and how many more there are."""
    more = f" and {len(names) - most} more" if most is not None and len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"
