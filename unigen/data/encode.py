"""Codecs at work once: every item of a source to latents, in memory or in shards on disk.

An item with several captions has a row of latents for each. What is broken is named and lacks
that part. A shard that is finished stays when the work is killed.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from unigen.data.files import Files
from unigen.data.rows import INDEX, Rows, codec_of
from unigen.data.tables import read_json
from unigen.disk import dump_json, named, put, sweep_stages, writing
from unigen.errors import MediaError, UsageError
from unigen.model import UniGen
from unigen.tensorfile import write_weights

Encode = Callable[[str, Any], Tensor]  # part, raw batch -> [rows, n, c]
KEPT = {"bf16": torch.bfloat16, "fp16": torch.float16}
CHUNK = 64  # rows that go through a codec together


class Chunk(NamedTuple):
    """The latents of some items: rows by part, and how many of them each item has."""

    rows: dict[str, Tensor]
    counts: dict[str, list[int]]


@torch.no_grad()
def encoded(source: Files, items: range, encode: Encode, parts: list[str]) -> Chunk:
    """Read some items and encode all their parts."""
    rows, counts = {}, {}
    for part in parts:
        column, found = source.parts.index(part), []
        counts[part] = [0] * len(items)
        for place, item in enumerate(items):
            if source.has[item, column]:
                raws = _readings(source, item, part)
                counts[part][place] = len(raws)
                found += raws
        if found:
            groups = [found[i : i + CHUNK] for i in range(0, len(found), CHUNK)]
            rows[part] = torch.cat([encode(part, source.join(part, group)) for group in groups])
    return Chunk(rows, counts)


def _readings(source: Files, item: int, part: str) -> list[Any]:
    """Read a part in all its forms; nothing where it is broken."""
    source.bad.seen(item)
    try:
        return source.readings(item, part)
    except MediaError as error:
        source.bad.add(item, part, source.record(item, part, str(error)))
        return []


def in_memory(source: Files, encode: Encode, parts: list[str], device: str) -> Rows:
    """Encode a whole source and keep it on a device; MediaError where all of it is broken."""
    found: dict[str, list[Tensor]] = {part: [] for part in parts}
    places: dict[str, list[tuple[int, int]]] = {part: [] for part in parts}
    totals = dict.fromkeys(parts, 0)
    with _bar(len(source)) as bar:
        for span in _spans(range(len(source)), CHUNK):
            chunk = encoded(source, span, encode, parts)
            for part in parts:
                if part in chunk.rows:
                    found[part].append(chunk.rows[part].bfloat16().to(device))
                for count in chunk.counts[part]:
                    places[part].append((totals[part], count))
                    totals[part] += count
            bar.update(len(span))
    store = {part: torch.cat(rows) for part, rows in found.items() if rows}
    if not store:
        (item, _), reason = next(iter(source.bad.reasons.items()))
        raise MediaError(
            f"all {len(source)} items are broken, such as {source.describe(item)!r} ({reason}); "
            "unigen data check names them all"
        )
    places = {part: places[part] for part in store}
    made = Rows(source.names, places, lambda p, row: store[p][row], source.seed, source.bad.most)
    made.bad = source.bad
    return made


def on_disk(
    source: Files, model: UniGen, out: str | Path, items: int = 1000, dtype: str = "bf16",
    device: str = "cpu",
) -> Path:  # fmt: skip
    """Encode a source into a folder of shards, going on where a killed run of it stopped.

    Raises UsageError where the folder holds other latents.
    """
    if dtype not in KEPT:
        raise UsageError(f"dtype={dtype} is unknown; type bf16 or fp16.")
    out = Path(out).absolute()
    parts = [part for part in source.parts if part in model.modalities]
    codecs = {part: codec_of(model.modality(part)) for part in parts}
    facts = {"source": source.spec, "codecs": codecs, "dtype": dtype, "items": items}
    key = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    model.to(device).eval()

    def encode(part: str, raw: Any) -> Tensor:
        return model.modality(part).encode(on(raw, device)).to("cpu", KEPT[dtype])

    shards = []
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    sweep_stages(out, r"index\.json|latents-\d+\.json")  # of a run that was killed
    with _bar(len(source)) as bar:
        for number, span in enumerate(_spans(range(len(source)), items)):
            place = out / f"latents-{number:05d}.json"
            if not place.exists():
                chunks = []
                for some in _spans(span, CHUNK):
                    chunks.append(encoded(source, some, encode, parts))
                    bar.update(len(some))
                names = [source.describe(item) for item in span]
                _write(place, {"key": key, "names": names}, chunks, parts)
            shards.append(_finished(place, key))
            bar.update(span.stop - bar.n)
    put(out / INDEX, dump_json({"version": 1, **facts, "shards": shards}))
    return out


def _write(place: Path, facts: dict[str, Any], chunks: list[Chunk], parts: list[str]) -> None:
    """Write the latents of a shard, then the JSON that says that they are whole."""
    counts = {part: [n for chunk in chunks for n in chunk.counts[part]] for part in parts}
    made = {part: [c.rows[part] for c in chunks if part in c.rows] for part in parts}
    tensors = {part: torch.cat(rows) for part, rows in made.items() if rows}
    path, stage = place.with_suffix(".safetensors"), place.with_suffix(".part")
    stage.unlink(missing_ok=True)
    write_weights(stage, tensors)
    stage.replace(path)
    with path.open("rb") as file:
        sha = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    tables = {}
    for part in tensors:
        begin, _ = header[part]["data_offsets"]
        table = {"dtype": header[part]["dtype"], "shape": header[part]["shape"]}
        tables[part] = {**table, "offset": 8 + length + begin, "counts": counts[part]}
    put(place, dump_json({**facts, "file": path.name, "sha256": sha, "parts": tables}))


def _finished(place: Path, key: str) -> dict[str, Any]:
    """Return the facts of a finished shard; UsageError where it is of other items or codecs."""
    facts = read_json(place)
    if not isinstance(facts, dict) or facts.pop("key", None) != key:
        raise UsageError(
            f"{named(place)} is of other items, codecs or options than these; give out= a new "
            "folder."
        )
    return facts


def _spans(items: range, most: int) -> Iterator[range]:
    """Yield items in spans of so many at most."""
    return (items[i : i + most] for i in range(0, len(items), most))


def _bar(items: int) -> tqdm:
    """Return a progress bar that counts items."""
    return tqdm(total=items, desc="encoding", unit="item", file=sys.stderr, mininterval=1.0)


def on(raw: Any, device: Any) -> Any:
    """Return raw data on a device, if it is a tensor."""
    return raw.to(device) if isinstance(raw, Tensor) else raw
