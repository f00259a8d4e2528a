"""The tasks behind `unigen data check`, `unigen data shard` and `unigen data encode`."""

import sys
from collections.abc import Iterator
from pathlib import Path

from unigen import media
from unigen.configure import build
from unigen.data import check as checks
from unigen.data.encode import on_disk
from unigen.data.feed import kinds_of
from unigen.data.files import Files
from unigen.data.shards import pack
from unigen.disk import named
from unigen.errors import MediaError, UsageError
from unigen.model import load
from unigen.owner import lock


def check(cfg: dict) -> Iterator[str]:
    """Yield what is in a source, line by line; raise MediaError where anything is broken."""
    report = checks.examine(_files(cfg))
    yield from checks.told(report)
    if cfg["out"] is not None:
        with media.new_folder(cfg["out"]) as folder:
            path = media.write_json(folder, "check", report)
        yield str(path)
    if report["broken"]:
        raise MediaError(
            f"{len(report['broken'])} files are broken, of {report['broken_items']} items; they "
            "are named above. Training passes over them, up to data.max_bad of what it sees."
        )


def shard(cfg: dict) -> Path:
    """Pack a source into tar shards with an index and return their folder."""
    source = _files(cfg)
    _say(source)
    return pack(source, _out(cfg), cfg["items"], cfg["megabytes"])


def encode(cfg: dict) -> Path:
    """Encode a source with a model's codecs and return the folder of latents."""
    source = _files(cfg)
    model = load(cfg["model"], cfg["plugins"])
    source.attach(kinds_of(model))
    _say(source)
    out = media.make_folder(_out(cfg))
    with lock(out):
        source.log_bad(out / "bad_samples.jsonl")
        on_disk(source, model, out, cfg["items"], cfg["dtype"], cfg["device"])
    if left := len(source.refused) + len(source.bad.reasons):
        sys.stderr.write(
            f"unigen: {left} broken or refused files are left out and named in "
            f"{named(out / 'bad_samples.jsonl')}\n"
        )
    return out


def _files(cfg: dict) -> Files:
    source = build(cfg["data"], cfg["plugins"])
    if not isinstance(source, Files):
        raise UsageError("this takes data that lies in files; type data=folder or another source.")
    return source


def _out(cfg: dict) -> str:
    if cfg["out"] is None:
        raise UsageError("out is not set; type out=... with a new folder.")
    return cfg["out"]


def _say(source: Files) -> None:
    """Say on standard error what is to be said once of a source."""
    for note in source.notes:
        sys.stderr.write(f"unigen: {note}\n")
    for name, part, reason in source.refused:
        sys.stderr.write(f"unigen: refused: {name} ({part}): {reason}\n")
