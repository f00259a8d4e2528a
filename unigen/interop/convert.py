"""`unigen convert`: weights that are pickles become a pipeline folder of safetensors."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from unigen.disk import dump_json, named, real_path, staged, write_file
from unigen.errors import CheckpointError, UsageError
from unigen.interop import INDEX
from unigen.interop.codecs.network import CONFIG
from unigen.interop.hub import fetched
from unigen.interop.unidiffuser import load, original
from unigen.interop.unpickle import read_pickle
from unigen.registry import MISFIT, brief
from unigen.tensorfile import check_finite, is_pickle, read_weights, write_weights

PICKLES = (".bin", ".pth", ".pt", ".ckpt")
#: What weights may be cast to: bfloat16 takes half the disk and a third of the time of float32.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_PLAIN = (".json", ".txt", ".model")  # what else a component has: configurations and vocabularies


def run(cfg: dict) -> Path:
    """Convert as configured (conf/convert.yaml) and return the new folder."""
    if len(cfg["files"]) != 1:
        raise UsageError("convert takes one folder: unigen convert FOLDER out=NEW.")
    (source,) = cfg["files"]
    root = fetched(source, pickles=True) if cfg["download"] else source
    dtype = None if cfg["dtype"] is None else str(cfg["dtype"])
    return convert(root, cfg["out"], cfg["components"], dtype)


def convert(
    source: str | Path,
    out: str | Path,
    components: str | Path | None = None,
    dtype: str | None = None,
) -> Path:
    """Write the pipeline in `source` anew to `out`, every tensor as safetensors; return `out`.

    source: a pipeline folder of diffusers, one network of a pipeline, or a folder with the files
    of the original project (`uvit_v0.pth` or `uvit_v1.pth`, `caption_decoder.pth`,
    `autoencoder_kl.pth`). components: where the rest of a pipeline is, if not in `source`: the
    original takes CLIP and the vocabulary of GPT-2 from elsewhere. dtype: one of `DTYPES`,
    to cast all weights; a pipeline runs in that of its denoiser. Pickles are read by a restricted
    reader in a process of its own.
    Raises UsageError for a wrong path, CheckpointError for files that are not what they seem.
    """
    root, target = real_path(source), real_path(out)
    if not root.is_dir():
        raise UsageError(f"There is no folder {named(root)}; name one with weights to convert.")
    if target.exists() or target.is_relative_to(root):
        where = "exists" if target.exists() else f"lies inside {named(root)}"
        raise UsageError(f"{named(target)} {where}; choose a new folder with out=...")
    rest = None if components is None else real_path(components)
    if rest is not None and not rest.is_dir():
        raise UsageError(f"There is no folder {named(rest)}; name a pipeline as components=...")
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"dtype={dtype} is unknown; choose one of {', '.join(DTYPES)}.")
    files = original.files_in(root)
    with staged(target, _size(root)) as at:
        if files:
            _original(files, root, rest, at)
        elif (root / INDEX).is_file():
            for folder in sorted(path for path in root.iterdir() if path.is_dir()):
                _component(folder, root, at / folder.name)
            shutil.copyfile(root / INDEX, at / INDEX)
        elif (root / CONFIG).is_file():
            _component(root, root, at)
        else:
            raise CheckpointError(
                f"{named(root)} has neither {INDEX} nor {CONFIG} nor {', '.join(original.FILES)}; "
                "name the folder of a pipeline, of one network or of the original weights."
            )
        if dtype is not None:
            _cast(at, DTYPES[dtype])
    return target


def _cast(at: Path, dtype: torch.dtype) -> None:
    """Write all weights in a folder anew, numbers that are not whole in another dtype."""
    for path in sorted(at.rglob("*.safetensors")):
        tensors, _ = read_weights(path, at, foreign=True)
        path.unlink()
        cast = {k: v.to(dtype) if v.is_floating_point() else v for k, v in tensors.items()}
        write_weights(path, cast)


def _size(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def _original(files: Mapping[str, Path], root: Path, rest: Path | None, at: Path) -> None:
    """Write the three networks of the original project and copy the other components."""
    for name, make in original.COMPONENTS.items():
        try:
            config, tensors = make(_read(files[name], root))
        except (*MISFIT, RuntimeError) as error:
            raise CheckpointError(
                f"{named(files[name])} is not the {name} that was published: {brief(error)}."
            ) from error
        (at / name).mkdir()
        write_file(at / name / "config.json", dump_json(config))
        write_weights(at / name / original.WEIGHTS, tensors)
    for name, names in original.ELSEWHERE.items():
        places = [p / n for p in (root, rest) if p is not None for n in names if (p / n).is_dir()]
        if not places:
            raise CheckpointError(
                f"The original weights come without {name}; name a folder that has "
                f"{', '.join(original.ELSEWHERE)} as components=..."
            )
        _component(places[0], places[0].parent, at / name)
    (at / "scheduler").mkdir()
    write_file(at / "scheduler" / "scheduler_config.json", dump_json(original.SCHEDULER))
    write_file(at / INDEX, dump_json(original.INDEX))
    load(at)  # its sizes were read from the tensors: only whole networks have them all right


def _component(folder: Path, root: Path, at: Path) -> None:
    """Copy a component, its pickle of weights as safetensors."""
    at.mkdir(exist_ok=True)
    for path in _files(folder):
        if path.suffix in _PLAIN:
            shutil.copyfile(path, at / path.name)
            continue
        name = {"pytorch_model": "model"}.get(path.stem, path.stem)  # as the libraries call it
        made = at / f"{name}.safetensors"
        if not made.exists():
            write_weights(made, _read(path, root))


def _read(path: Path, root: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, a pickle or not, whatever its name says."""
    if path.suffix in PICKLES or is_pickle(path):
        tensors = _untied(read_pickle(path, root))
    else:
        tensors, _ = read_weights(path, root, foreign=True)
    check_finite(tensors, f"Reading {named(path)}", CheckpointError)
    return tensors


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files of a component that are of use, safetensors before pickles."""
    known = (*PICKLES, *_PLAIN, ".safetensors")
    files = (p for p in folder.iterdir() if p.suffix in known and p.is_file())
    yield from sorted(files, key=lambda p: (p.suffix in PICKLES, p.name))


def _untied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without what numbers positions: old files keep it, no model reads it."""
    return {k: v for k, v in tensors.items() if not k.endswith(".position_ids")}
