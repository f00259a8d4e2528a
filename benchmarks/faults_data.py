"""What a run survives of its data: broken files and shards, a dead decoder, hostile tars."""

import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from bad_tars import (
    CASES,
    HOSTILE,
    Hostile,
    apart,
    crowd,
    damaged,
    hostile_member,
    huge_member,
    member,
    names_of,
    twice,
)
from faults_plugin import told
from faults_shared import TEAM, finished, here, line, logged, started
from faults_training import watched
from media_corpus_image import blank_png
from media_folder import png, spoil, txt, wav
from tiny import tiny_model

from unigen.data.check import examine
from unigen.data.feed import kinds_of
from unigen.data.folder import Folder
from unigen.data.shards import Shards, pack
from unigen.data.tars import MOST_MEMBERS
from unigen.errors import UsageError

Outcome = dict[str, Any]
SHARES = (0.001, 0.01, 0.05, 0.2)  # of broken payloads; the last is more than a run bears
CODE = ("pickle", "module", "weights")
KINDS = ("cut", "zeroed", "wrong type", "bomb", "flipped bit")


def b1(folder: Path, n: int = 1000) -> Outcome:
    """Break some of n packed samples: a run sees exactly the others, and names exactly these."""
    for i in range(n):
        make, part = ((png, "image"), (wav, "audio"))[i % 2]
        make(folder / f"media/{part}/{i:04d}.{'wav' if i % 2 else 'png'}", i)
    good, facts = 0, {}
    for share in SHARES:
        place = folder / f"{share}"
        bad = _packed(folder / "media", place, max(1, round(share * n)))
        code, steps = _trained(place, n)
        lie, records = _places(place / "shards"), broken(place / "run")
        named = {(r["name"], r["part"]) for r in records}
        right = len(records) == len(named) and all(
            r["reason"] and lie[r["name"], r["part"]] == (r["shard"], r["offset"]) for r in records
        )
        seen = {(r["read"], r["part"]) for r in told(place / "log") if "read" in r}
        if share == SHARES[-1]:
            good += code == 3 and named <= bad and right and len(logged(place / "run")) < steps
        else:
            good += code == 0 and named == bad and right and seen == lie.keys() - bad
        facts[str(share)] = {"code": code, "broken": len(bad), "named": len(named)}
    return line("B1", "broken samples", len(SHARES), good, samples=n, runs=facts)


def _places(shards: Path) -> dict[tuple[str, str], tuple[str, int]]:
    """Return the shard and the offset of every part of every item."""
    rows = [json.loads(row) for row in (shards / "index.jsonl").read_text().splitlines()[1:]]
    return {(row["name"], part): (file[0], file[2])
            for row in rows for part, file in row["parts"].items()}  # fmt: skip


def _packed(media: Path, place: Path, count: int) -> set[tuple[str, str]]:
    """Pack a copy of media with so many broken, in all KINDS in turn; return which."""
    chance = random.Random(count)
    shutil.copytree(media, place / "media")
    victims = chance.sample(sorted((place / "media").glob("*/*")), count)
    ways = [KINDS[(i + chance.randrange(5)) % len(KINDS)] for i in range(count)]
    for path, how in zip(victims, ways, strict=True):
        if how == "bomb":
            path.write_bytes(blank_png(9000, 9000))
        elif how != "flipped bit":
            spoil(path, how)
    shards = pack(Folder(str(place / "media")), place / "shards", items=400)
    places = _places(shards)
    for path, how in zip(victims, ways, strict=True):
        if how == "flipped bit":  # after the packing: only the sha256 of the index can tell
            shard, offset = places[path.stem, path.parent.name]
            at = offset + chance.randrange(path.stat().st_size)
            with (shards / shard).open("r+b") as file:
                file.seek(at)
                byte = file.read(1)[0] ^ 1 << chance.randrange(8)
                file.seek(at)
                file.write(bytes([byte]))
    return {(path.stem, path.parent.name) for path in victims}


def _trained(place: Path, n: int) -> tuple[int, int]:
    """Train one epoch of watched shards; return the exit code and the steps of the epoch."""
    (place / "log").mkdir()
    steps = sum(-(-len(range(k, n, 2)) // 8) for k in (0, 1))
    code = here(
        place / "run", "plugins=[faults_plugin]", "data=shards", f"data.root={place / 'shards'}",
        "data._target_=faults_plugin.WatchedShards", f"+data.log={place / 'log'}",
        "modality=[image,audio]", "trainer.cache=0", f"trainer.steps={steps}",
    )  # fmt: skip
    return code, steps


def b2(folder: Path, n: int = 7) -> Outcome:
    """Damage the structure of a shard: the index tells, and all else is read as it was."""
    for i in range(10):
        png(folder / f"media/image/{i:02d}.png", i)
        txt(folder / f"media/text/{i:02d}.txt", f"picture {i}")
    whole = attached(Folder(str(folder / "media")))
    good = 0
    for case in CASES[:n]:
        root = pack(whole, folder / case.replace(" ", "_"), items=10)
        path, (offset, size) = root / "shard-00000.tar", member(root, 5)
        path.write_bytes(damaged(path.read_bytes(), case, offset, size))
        source = attached(Shards(str(root)))
        found = {(r["name"], r["part"]) for r in examine(source)["broken"]}
        lost = {("05", "image")}
        if "cut" in case:
            lost |= {("05", "text"), *((f"{i:02d}", p) for i in range(6, 10) for p in source.parts)}
        rest = [i for i in range(10) if (f"{i:02d}", "image") not in lost]
        same = all(torch.equal(source.read(i, "image", 0), whole.read(i, "image", 0)) for i in rest)
        good += found == lost and same
    return line("B2", "damaged structure of a shard", n, good)


def broken(out: Path) -> list[dict[str, Any]]:
    """Return the samples that a run named as broken."""
    path = out / "bad_samples.jsonl"
    return [json.loads(x) for x in path.read_text().splitlines()] if path.exists() else []


def attached(source: Any) -> Any:
    """Return a source that has met the modalities of a tiny model."""
    source.attach(kinds_of(tiny_model()))
    return source


def b3(folder: Path, n: int = 5) -> Outcome:
    """Break a tenth of the samples, all of them of the second of two processes: they keep step."""
    good, slowest, steps = 0, 0.0, 10
    for i in range(n):
        media, out, log = folder / f"media{i}", folder / f"run{i}", folder / f"log{i}"
        files = [png(media / f"image/{k:02d}.png", k) for k in range(80)]
        source = Folder(str(media))
        second = torch.cat([source.order(i, step, 8)[4:] for step in range(steps)]).tolist()
        bad = random.Random(i).sample(second, 8)
        for k in bad:
            spoil(files[k], ("cut", "zeroed", "wrong type", "empty")[k % 4])
        start = time.monotonic()
        code, _ = finished(
            started(
                out, *watched(media, log), "modality=[image]", "trainer.cache=0", f"seed={i}",
                "trainer.workers=0", f"trainer.steps={steps}", "data.max_bad=0.5", team=TEAM,
            )
        )  # fmt: skip
        slowest = max(slowest, time.monotonic() - start)
        counts = [len({r["step"] for r in told(log, rank) if "step" in r}) for rank in (0, 1)]
        named = sorted(r["name"] for r in broken(out))
        first = {r["read"] for r in told(log, 0) if "read" in r}
        right = counts == [steps, steps] and named == sorted(f"{k:02d}" for k in bad)
        good += code == 0 and right and len(first) == 40 and len(logged(out)) == steps
    return line("B3", "broken samples of one process", n, good, {"slowest": (slowest, 60)})


def b4(folder: Path, n: int = 5) -> Outcome:
    """Kill and stop the decoder at n samples: they are named, and it is back at the next one."""
    names = [png(folder / f"media/image/p{i:02d}.png", i).stem for i in range(40)]
    source = Folder(str(folder / "media"))
    order = torch.cat([source.order(0, step, 8) for step in range(5)]).tolist()
    free = [names[k] for k in order[2::2] if k % 2 == 0]  # where there is a decoder to kill
    victims = random.Random(4).sample(free, n)
    ways = {name: ("SIGKILL", "SIGSTOP")[i % 2] for i, name in enumerate(victims)}
    log, out = folder / "log", folder / "run"
    log.mkdir()
    attacks = ",".join(f"{name}:{how}" for name, how in ways.items())
    code = here(
        out, "plugins=[faults_plugin]", "data=folder", f"data.root={folder / 'media'}",
        "data._target_=faults_plugin.Attacked", f"+data.log={log}", f"+data.attacks={{{attacks}}}",
        "data.max_bad=0.5", "modality=[image]", "trainer.cache=0", "trainer.workers=0",
        "trainer.steps=10",
    )  # fmt: skip
    lost = [r["lost_s"] for r in told(log) if "lost_s" in r]
    back = [r["back_s"] for r in told(log) if "back_s" in r]
    named = [r["name"] for r in broken(out)]
    good = len({*named} & {*victims}) if code == 0 and len(named) == n == len(back) else 0
    good = good if len(logged(out)) == 10 else 0
    seconds = {"lost": (max(lost, default=0), 10.5), "back": (max(back, default=0), 1)}
    return line("B4", "a dead or hung decoder", n, good, seconds)


def b5(folder: Path, n: int = 12) -> Outcome:
    """Open hostile tars: what is hostile is named, the rest is read, and nothing else happens."""
    tars, cwd = folder / "tars", folder / "cwd"
    tars.mkdir()
    with within(cwd):
        makers = [lambda p, name=name: hostile_member(p, name) for name in HOSTILE]
        code = [lambda p: hostile_member(p, *CODE), huge_member, twice, apart]
        makers = [*(make for make, name in zip(makers, HOSTILE, strict=True) if name not in CODE),
                  *code, None, lambda p: crowd(p, MOST_MEMBERS + 1)]  # fmt: skip
        good = 0
        for i, make in enumerate(makers[:n]):
            quiet = _a_pipe_is_refused() if make is None else _named(make(tars / f"{i}.tar"))
            good += quiet and not any(cwd.iterdir()) and not Path("/tmp/evil.png").exists()
            for path in tars.iterdir():
                path.unlink()
    return line("B5", "hostile tars", n, good)


def _named(case: Hostile) -> bool:
    """Whether exactly what is hostile is refused, nothing is unpacked, and the rest is read."""
    source = attached(Shards(str(case.path)))
    read = [source.read(i, "image", 0).shape for i in range(len(source))]
    named = (names_of(source.refused), source.names) == (case.refused, case.read)
    return named and read == [(1, 3, 16, 16)] * len(case.read) and case.alone()


def _a_pipe_is_refused() -> bool:
    """Whether a program is no source of data."""
    try:
        Shards("pipe:touch evil")
    except UsageError:
        return True
    return False


@contextmanager
def within(place: Path) -> Iterator[None]:
    """Work in an empty folder."""
    place.mkdir()
    before = Path.cwd()
    os.chdir(place)
    try:
        yield
    finally:
        os.chdir(before)
