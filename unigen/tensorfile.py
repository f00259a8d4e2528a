"""One file of tensors: safetensors, written synced, and read as copies after strict checks.

The reader looks at the header before it allocates anything and keeps no memory map, so a file
that is cut or swapped later cannot hurt the process.
"""

import hashlib
import math
import re
from collections.abc import Iterable
from io import BufferedReader
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from unigen.disk import named, parse_json, reading, sync, write_file, writing
from unigen.errors import CheckpointError, ResourceError, UsageError
from unigen.registry import shown

MAX_BYTES = 32 << 30
MAX_HEADER = 10_000_000
MAX_TENSORS = 20_000
MAX_RANK = 8
KEY = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*", re.ASCII)
DTYPES = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "I8": torch.int8,
    "U8": torch.uint8,
    "I32": torch.int32,
    "U32": torch.uint32,
    "I64": torch.int64,
    "BOOL": torch.bool,
}
_FOREIGN = (
    (rb"\x80[\x01-\x05]|\(d|\(l|c[\w.]+\n[\w.]+\n", "a pickle (unigen convert reads it)"),
    (rb"PK\x03\x04", "a zip (torch.save makes such pickles, and unigen convert reads them)"),
    (rb"\x93NUMPY", "a numpy file"),
    (rb"\x89HDF", "an HDF5 file"),
    (rb"GGUF", "a GGUF file"),
    (rb"version https://git-lfs", "a Git LFS pointer (run: git lfs pull)"),
    (rb"\s*<", "a web page"),
    (rb"\s*\{", "a JSON text"),
)


def write_weights(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write named tensors as one new synced safetensors file of mode 0640 less the umask.

    Keys must be dotted plain names and dtypes those of `DTYPES` (`UsageError`); a NaN or Inf is a
    `ResourceError`, because a diverged model must not replace a good one.
    """
    ready, storages = {}, set()
    for name, tensor in tensors.items():
        if not is_key(name):
            raise UsageError(
                f"Tensor name {shown(name)} is not made of letters, digits, _ and dots."
            )
        if tensor.dtype not in DTYPES.values():
            raise UsageError(
                f"Tensor {name} is {tensor.dtype}, which unigen does not save; cast it."
            )
        tensor = tensor.detach().to("cpu").contiguous()
        storage = tensor.untyped_storage().data_ptr()
        ready[name] = tensor.clone() if storage in storages else tensor  # tied weights, views
        storages.add(storage)
    check_finite(ready, f"Saving {named(path)}", ResourceError)
    with writing(path, size_of(ready.values())):
        write_file(path, b"")
        mode = path.stat().st_mode & 0o777
        try:
            save_file(ready, path)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        path.chmod(mode)
        sync(path)


def read_weights(
    path: Path,
    root: Path | None = None,
    *,
    max_bytes: int = MAX_BYTES,
    foreign: bool = False,
    allow_empty: bool = False,
) -> tuple[dict[str, Tensor], str]:
    """Read a safetensors file that lies under `root` (default: its folder).

    Returns the tensors as copies on the CPU and the sha256 of the file in hex. `foreign` accepts
    metadata other than this package's own, unread. Raises `CheckpointError` for any fault.
    """
    what, sha = named(path), hashlib.sha256()
    with reading(path, path.parent if root is None else root, max_bytes) as (file, size):
        entries = _read_header(file, size, what, foreign, sha)
        if not entries and not allow_empty:
            raise CheckpointError(f"{what} holds no tensors; save the model again.")
        tensors = {}
        for name, dtype, shape, length in entries:
            data = bytearray(length)
            if file.readinto(data) != length:
                raise CheckpointError(f"{what} ends inside tensor {name}; copy it again.")
            sha.update(data)
            flat = torch.frombuffer(data, dtype=dtype) if length else torch.empty(0, dtype=dtype)
            tensors[name] = flat.reshape(shape)
        if file.read(1):
            raise CheckpointError(f"{what} grew beyond its {size} bytes while it was read.")
    return tensors, sha.hexdigest()


def dtypes_of(path: Path, root: Path | None = None) -> dict[str, torch.dtype]:
    """Return the dtypes of a safetensors file by tensor, its header checked as when it is read."""
    with reading(path, path.parent if root is None else root, MAX_BYTES) as (file, size):
        entries = _read_header(file, size, named(path), True, hashlib.sha256())
    return {name: dtype for name, dtype, *_ in entries}


def is_pickle(path: Path) -> bool:
    """Tell whether a file is one of `torch.save`, whatever its name says."""
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] != b"{" and re.match(rb"PK\x03\x04|\x80[\x01-\x05]", head) is not None


def _read_header(
    file: BufferedReader, size: int, what: str, foreign: bool, sha
) -> list[tuple[str, torch.dtype, list[int], int]]:
    """Check the header whole; return name, dtype, shape and bytes of each tensor, in order."""
    head = file.read(64)
    length = int.from_bytes(head[:8], "little")
    if len(head) < 10 or head[8:9] != b"{" or length > size - 8:
        kinds = (kind for magic, kind in _FOREIGN if re.match(magic, head))
        kind = next(kinds, "no safetensors file, or a cut one")
        raise CheckpointError(f"{what} is {kind}; unigen loads safetensors only.")
    if length > MAX_HEADER:
        raise CheckpointError(
            f"{what} has a header of {length} bytes, and at most {MAX_HEADER} are read."
        )
    file.seek(0)
    raw = file.read(8 + length)
    if len(raw) != 8 + length:
        raise CheckpointError(f"{what} ends inside its header; copy it again.")
    sha.update(raw)
    if max(raw.count(b"{"), raw.count(b"[") // 2) > MAX_TENSORS + 2:
        raise CheckpointError(f"{what} names more than {MAX_TENSORS} tensors.")
    header = parse_json(raw[8:], f"The header of {what}")
    metadata = header.pop("__metadata__", {})
    if not foreign and metadata not in ({}, {"format": "pt"}):
        first = next(iter(metadata)) if isinstance(metadata, dict) else metadata
        raise CheckpointError(
            f"{what} carries metadata ({shown(first)}), and unigen's files carry none; save the "
            "tensors without it."
        )
    entries = [_entry(name, value, what) for name, value in header.items()]
    entries.sort(key=lambda entry: entry[:2])
    end = 0
    for (begin, stop), name, *_ in entries:
        if begin != end or stop < begin:
            raise CheckpointError(f"{what} places tensor {name} over a gap or another tensor.")
        end = stop
    if 8 + length + end != size:
        raise CheckpointError(
            f"{what} has {size} bytes where its header asks for {8 + length + end}; copy it again."
        )
    return [(name, dtype, shape, stop - begin) for (begin, stop), name, dtype, shape in entries]


def _entry(name: str, value, what: str) -> tuple[tuple[int, int], str, torch.dtype, list[int]]:
    """Check one tensor of a header; return its offsets, name, dtype and shape."""
    if not is_key(name):
        raise CheckpointError(f"{what} names a tensor {shown(name)}, which no model has.")
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{what} describes tensor {shown(name)} in an unknown way.")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise CheckpointError(
            f"{what} stores {shown(name)} as {shown(dtype)}; wanted one of {', '.join(DTYPES)}."
        )
    if not _sizes(shape, MAX_RANK) or not _sizes(offsets, 2) or len(offsets) != 2:
        raise CheckpointError(f"{what} gives tensor {shown(name)} an impossible shape or place.")
    if offsets[1] - offsets[0] != math.prod(shape) * DTYPES[dtype].itemsize:
        raise CheckpointError(f"{what} gives tensor {shown(name)} a place of the wrong size.")
    return (offsets[0], offsets[1]), name, DTYPES[dtype], shape


def _sizes(value, most: int) -> bool:
    """Tell whether a value is a list of at most `most` numbers that a file can hold."""
    return (
        isinstance(value, list)
        and len(value) <= most
        and all(type(item) is int and 0 <= item < 1 << 48 for item in value)
    )


def is_key(name) -> bool:
    """Tell whether a tensor name is dotted plain ASCII names, none beginning with `__`."""
    return (
        isinstance(name, str)
        and len(name) <= 500
        and KEY.fullmatch(name) is not None
        and not any(part.startswith("__") for part in name.split("."))
    )


def check_finite(tensors: dict[str, Tensor], what: str, error: type[Exception]) -> None:
    """Raise `error` naming the first tensor that holds NaN or Inf."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            wide = tensor.float() if tensor.dtype == torch.float8_e4m3fn else tensor
            if not torch.isfinite(wide).all():
                raise error(f"{what} stopped: tensor {name} holds NaN or Inf.")


def size_of(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of all tensors together."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
