"""What data costs: encoding against its two halves, training from shards against from memory.

    python benchmarks/data.py --items 256 --steps 40

Encoding is reading (the isolated worker included) and codecs, measured together and each alone
over the same items: `share` is the sum of the two alone over the whole. "encode all to disk" is
what `unigen data encode` does, all parts and the writing of shards. The peak memory of that, the
worker included, is measured for some items and for four times as many, each in a process of its
own: a chunk of 64 items or more, so that nothing is small only because a chunk is not full, in
shards as large as a chunk. Training takes the same steps from shards of latents and from latents
in memory, in turns: `ratio` is the time a step in memory takes over the time from shards. The
media are scenes of the world, written as PNG, WAV, MP4 and text in a folder of the benchmark's own.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import torch
from table import line, machine, table

from unigen.data.encode import CHUNK, encoded, in_memory, on_disk
from unigen.data.feed import Feed, encode, kinds_of
from unigen.data.folder import Folder
from unigen.data.rows import LatentShards
from unigen.data.world import World
from unigen.model import load
from unigen.objectives import Denoise
from unigen.trainer import Trainer


def write(model: Any, root: Path, count: int) -> None:
    """Write scenes of the world as files."""
    world = World(split="all")
    for part, modality in kinds_of(model).items():
        (root / part).mkdir(parents=True)
        for i in range(count):
            raw = world.batch(torch.tensor([i]), [part])[part]
            modality.write(raw, root / part / f"{i:06d}{modality.suffix}", {})
    for sidecar in root.rglob("*.json"):
        sidecar.unlink()


def opened(media: Path, model: Any) -> Folder:
    """Return a folder of media as a source of what the model knows."""
    source = Folder(str(media))
    source.attach(kinds_of(model))
    return source


def again(media: Path, root: Path, times: int) -> int:
    """Fill a folder with links to media, each under several names; return how many items it has."""
    count = 0
    for folder in media.iterdir():
        (root / folder.name).mkdir(parents=True)
        for path in folder.iterdir():
            for i in range(times):
                os.link(path, root / folder.name / f"{path.stem}-{i}{path.suffix}")
        count = times * len(list(folder.iterdir()))
    return count


def peak(pid: int | str) -> float:
    """Return the most memory that a process has held so far, in megabytes; Linux tells it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def held(media: Path, out: Path) -> tuple[float, float]:
    """Encode to disk; return this process's peak before, and after with its worker's, in MB."""
    model = load()
    source, before = opened(media, model), peak("self")
    on_disk(source, model, out, items=CHUNK)
    workers = [pid for path in Path("/proc/self/task").glob("*/children")
               for pid in path.read_text().split()]  # fmt: skip
    return before, peak("self") + sum(peak(pid) for pid in workers)


def alone(call: Any, *given: Any) -> Any:
    """Return what a call returns in a new process, which ends with it."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(call, *given).result()


def seconds(call: Any) -> tuple[float, Any]:
    """Return how long a call takes, and what it returns."""
    start = time.perf_counter()
    made = call()
    return time.perf_counter() - start, made


@torch.no_grad()
def halves(source: Folder, model: Any, part: str) -> tuple[float, float]:
    """Return the seconds to read a part alone, and to encode it alone as shards are."""
    modality = model.modality(part)
    reading, raws = seconds(lambda: [source.readings(i, part)[0] for i in range(len(source))])
    groups = [raws[i : i + CHUNK] for i in range(0, len(raws), CHUNK)]
    coding, _ = seconds(lambda: [modality.encode(source.join(part, each)) for each in groups])
    return reading, coding


def row(what: str, items: int, taken: list[tuple[float, float, float]]) -> dict:
    """Print and return the turn whose share is in the middle: reading, codec, both at once."""
    shares = sorted(((read + code) / whole, read, code, whole) for read, code, whole in taken)
    share, read, code, whole = shares[len(shares) // 2]
    made = {"what": what, "items_per_s": items / whole, "read_s": read, "codec_s": code,
            "whole_s": whole, "share": share}  # fmt: skip
    line(made)
    return made


def memory(media: Path, root: Path, times: int) -> dict:
    """Measure the peaks of encoding media once, and each of them several times."""
    few, many = again(media, root / "few", 1), again(media, root / "many", times)
    before, once = alone(held, root / "few", root / "few_latents")
    _, more = alone(held, root / "many", root / "many_latents")
    made = {"what": "memory of encoding to disk", "items": few, "more_items": many,
            "before_mb": before, "peak_mb": once, "more_peak_mb": more,
            "ratio": more / once}  # fmt: skip
    line(made)
    return made


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=256)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--turns", type=int, default=3)
    asked = parser.parse_args()
    line(machine())
    model, objective = load(), Denoise()
    parts = list(model.modalities)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write(model, root / "media", asked.items)
        source = opened(root / "media", model)

        def work(part: str, raw: Any) -> torch.Tensor:
            return encode(model, objective, part, raw, "cpu")

        def read(part: str) -> list[Any]:
            return [source.readings(item, part)[0] for item in range(asked.items)]

        def codec(part: str, raws: list[Any]) -> list[torch.Tensor]:
            groups = [raws[i : i + CHUNK] for i in range(0, len(raws), CHUNK)]
            return [work(part, source.join(part, group)) for group in groups]

        chunks = [range(i, min(i + CHUNK, asked.items)) for i in range(0, asked.items, CHUNK)]
        for part in parts:
            codec(part, read(part))  # the worker and the codec are warm now
            taken = []
            for _ in range(asked.turns):
                reading, raws = seconds(lambda part=part: read(part))
                coding, _ = seconds(lambda part=part, raws=raws: codec(part, raws))
                whole, _ = seconds(
                    lambda part=part: [encoded(source, span, work, [part]) for span in chunks]
                )
                taken.append((reading, coding, whole))
            rows.append(row(f"encode {part}", asked.items, taken))
        taken = []
        for turn in range(asked.turns):
            each = [halves(source, model, part) for part in parts]
            whole, _ = seconds(lambda turn=turn: on_disk(source, model, root / f"latents{turn}"))
            read_s, codec_s = (sum(x) for x in zip(*each, strict=True))
            taken.append((read_s, codec_s, whole))
        rows.append(row("encode all to disk", asked.items, taken))
        shards = LatentShards(str(root / "latents0"))
        shards.attach(kinds_of(model))
        kept = in_memory(source, work, parts, "cpu")
        options = {"steps": 10**6, "batch": asked.batch, "workers": 0}
        trainers = {
            name: Trainer(model, objective, Feed(model, objective, data), **options)
            for name, data in (("memory", kept), ("shards", shards))
        }
        times: dict[str, list[float]] = {name: [] for name in trainers}
        for _ in range(asked.steps):
            for name, trainer in trainers.items():
                times[name].append(seconds(trainer.train_step)[0])
        ratio = median(times["memory"]) / median(times["shards"])
        rows.append({"what": "train from shards", "memory_s": median(times["memory"]),
                     "shards_s": median(times["shards"]), "ratio": ratio})  # fmt: skip
        line(rows[-1])
        least = root / "media"
        if asked.items < CHUNK:
            least = root / "chunk"
            again(root / "media", least, -(-CHUNK // asked.items))
        rows.append(memory(least, root, 4))
    table(rows[:-2])
    table(rows[-2:-1])
    table(rows[-1:])


if __name__ == "__main__":
    main()
