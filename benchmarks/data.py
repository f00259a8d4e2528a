"""What data costs: encoding against its two halves, training from shards against from memory.

    python benchmarks/data.py --items 256 --steps 40

Encoding is reading (the isolated worker included) and codecs, measured together and each alone
over the same items: `share` is the sum of the two alone over the whole. Training takes the same
steps from shards of latents and from latents in memory, in turns: `ratio` is the time a step in
memory takes over the time from shards. The media are scenes of the world, written as PNG, WAV,
MP4 and text in a folder of the benchmark's own.
"""

import argparse
import tempfile
import time
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


def seconds(call: Any) -> tuple[float, Any]:
    """Return how long a call takes, and what it returns."""
    start = time.perf_counter()
    made = call()
    return time.perf_counter() - start, made


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
        source = Folder(str(root / "media"))
        source.attach(kinds_of(model))

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
            shares = []
            for _ in range(asked.turns):
                reading, raws = seconds(lambda part=part: read(part))
                coding, _ = seconds(lambda part=part, raws=raws: codec(part, raws))
                whole, _ = seconds(
                    lambda part=part: [encoded(source, span, work, [part]) for span in chunks]
                )
                shares.append(((reading + coding) / whole, reading, coding, whole))
            share, reading, coding, whole = sorted(shares)[len(shares) // 2]
            rows.append({"what": f"encode {part}", "items_per_s": asked.items / whole,
                         "read_s": reading, "codec_s": coding, "whole_s": whole,
                         "share": share})  # fmt: skip
            line(rows[-1])
        on_disk(source, model, root / "latents")
        shards = LatentShards(str(root / "latents"))
        shards.attach(kinds_of(model))
        memory = in_memory(source, work, parts, "cpu")
        options = {"steps": 10**6, "batch": asked.batch, "workers": 0}
        trainers = {
            name: Trainer(model, objective, Feed(model, objective, data), **options)
            for name, data in (("memory", memory), ("shards", shards))
        }
        times: dict[str, list[float]] = {name: [] for name in trainers}
        for _ in range(asked.steps):
            for name, trainer in trainers.items():
                times[name].append(seconds(trainer.train_step)[0])
        ratio = median(times["memory"]) / median(times["shards"])
        rows.append({"what": "train from shards", "memory_s": median(times["memory"]),
                     "shards_s": median(times["shards"]), "ratio": ratio})  # fmt: skip
        line(rows[-1])
    table(rows[:-1])
    table(rows[-1:])


if __name__ == "__main__":
    main()
