"""What a user gives: paths, sentences or raw media become raw media, with notes and sources."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unigen.errors import UsageError
from unigen.tokens import Tokens


def taken(
    model, given: Mapping[str, Any], count: int, key: str = "given"
) -> tuple[dict[str, Any], list[str], dict[str, list[Any]]]:
    """Return raw media by part, notes, and by part what the recipe says of each sample."""
    raw, notes, sources = {}, [], {}
    for part, value in given.items():
        name = f"{key}.{part}"
        raw[part], remarks, sources[part] = _take(model.modality(part), name, value, count)
        notes += [f"{part if key == 'given' else name}: {remark}" for remark in remarks]
    return raw, notes, sources


def encoded(model, raw: Mapping[str, Any], rows: slice, count: int) -> Tokens:
    """Return the latents of some samples."""
    some = {p: on(_rows(value, rows, count), model.device) for p, value in raw.items()}
    n = len(range(count)[rows])
    return {p: z.expand(n, -1, -1) for p, z in model.encode(some).items()}


def whose(sources: Mapping[str, list[Any]], i: int) -> dict[str, Any]:
    """Return what the recipe says of one sample."""
    return {part: some[min(i, len(some) - 1)] for part, some in sources.items()}


def _take(modality, name: str, value: Any, count: int) -> tuple[Any, list[str], list[Any]]:
    """Return raw media, notes, and what the recipe says of each sample."""
    many = isinstance(value, list | tuple)
    values = value if many else [value]
    if not values:
        raise UsageError(f"{name} is empty; give one sample or one a seed.")
    pieces = [modality.take(v) for v in values]
    raws = [raw for raw, _ in pieces]
    raw = raws[0] if len(raws) == 1 else modality.join(raws)
    if len(raw) not in (1, count):
        raise UsageError(f"{name} has {len(raw)} samples for {count} seeds; give 1 or {count}.")
    notes = list(dict.fromkeys(note for _, remarks in pieces for note in remarks))
    origins = [v for v, some in zip(values, raws, strict=True) for _ in range(len(some))]
    sources = [_source(v, raw[i : i + 1]) for i, v in enumerate(origins)]
    return raw, notes, sources


def _source(value: Any, raw: Any) -> Any:
    """Describe an input for the recipe: text as it is, a file by path and hash, else a hash."""
    if isinstance(raw, list):
        return raw[0]
    if isinstance(value, str | Path):
        digest = hashlib.sha256(Path(value).read_bytes()).hexdigest()
        return {"file": str(Path(value).absolute()), "sha256": digest}
    return {"sha256": hashlib.sha256(raw.contiguous().numpy().tobytes()).hexdigest()}


def on(value: Tensor | list, device: torch.device | str) -> Tensor | list:
    """Return raw media on a device; sentences are nowhere."""
    return value.to(device) if isinstance(value, Tensor) else value


def _rows(value: Tensor | list, rows: slice, count: int) -> Tensor | list:
    return value if len(value) != count or count == 1 else value[rows]
