"""Captions of the world's media after they have become ordinary files.

    python benchmarks/real_files.py
    python benchmarks/real_files.py --split seen --n 256

A picture becomes a JPEG of 640 x 480 pixels, quality 85. A clip becomes an mp4 (H.264, crf 23) of
640 x 480 pixels and 5 s at 30 frames a second: every frame is the nearest of the world's, and the
last one is held. Pictures are stretched, as the reader squashes them. A sound becomes a stereo MP3
at 44.1 kHz and 128 kbit/s. The files are given by path, so they take the reader's way.

A caption is held against what the clean medium tells of its scene, as `unigen evaluate` does. The
rows "tensor" are the same media without a file, with the same seeds. mean: over the attributes;
what a caption leaves out does not count. all: the share of captions with everything right. parses:
the share of captions that are sentences of the grammar. same: the share that is word for word the
caption of the tensor. Scenes have one object. Lines carry intervals and numbers of scenes.
"""

import argparse
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import torch
import torchaudio
from PIL import Image
from table import line, machine, scored, table
from torch import Tensor

import unigen
from unigen import metrics
from unigen.data.world import vocabulary
from unigen.data.world.oracles import Reading, join, read, truth
from unigen.metrics import Draws
from unigen.reference import BATCH, Setting, scenes_of, shared, sizes_of

SIZE, QUALITY = (640, 480), 85  # of pictures: width and height in pixels, JPEG's quality
FPS, SECONDS, CRF = 30, 5, "23"  # of clips
RATE, BITS = 44_100, 128_000  # of sounds, a second
COLUMNS = (
    "count", "background", "shape", "color", "size", "motion", "position", "sound",
    "mean", "all", "parses", "same",
)  # fmt: skip


def large(pixels: Tensor) -> Image.Image:
    """Return pixels [3, h, w] in [0, 1] as a picture of `SIZE`."""
    small = pixels.mul(255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(small).resize(SIZE, Image.Resampling.BICUBIC)


def write_jpeg(pixels: Tensor, path: Path, rate: int) -> None:
    """Write a picture [3, h, w]."""
    large(pixels).save(path, quality=QUALITY)


def write_mp4(frames: Tensor, path: Path, rate: int) -> None:
    """Write a clip [f, 3, h, w] that spans the world's seconds."""
    pictures = [av.VideoFrame.from_image(large(pixels)) for pixels in frames]
    times = torch.arange(FPS * SECONDS) / FPS
    nearest = (times * (len(frames) / vocabulary.SECONDS)).round().long()
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FPS, options={"crf": CRF})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.thread_count = 1
        for number, i in enumerate(nearest.clamp(max=len(frames) - 1).tolist()):
            pictures[i].pts, pictures[i].time_base = number, Fraction(1, FPS)
            out.mux(stream.encode(pictures[i]))
        out.mux(stream.encode())


def write_mp3(wave: Tensor, path: Path, rate: int) -> None:
    """Write a sound [samples] at `rate` with both channels alike."""
    channels = torchaudio.functional.resample(wave, rate, RATE).expand(2, -1).contiguous()
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libmp3lame", rate=RATE, layout="stereo")
        stream.bit_rate = BITS
        frame = av.AudioFrame.from_ndarray(channels.numpy(), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        out.mux(stream.encode(frame))
        out.mux(stream.encode())


FILES = {"image": (write_jpeg, ".jpg"), "video": (write_mp4, ".mp4"), "audio": (write_mp3, ".mp3")}


def captions(model, part: str, media: Tensor | list[Path], seeds: Sequence[int]) -> list[str]:
    """Return a caption of each medium."""
    return [made["text"][0] for made in model.generate(["text"], {part: media}, seeds=seeds)]


def both(model, world, index: Tensor, part: str) -> tuple[list[str], list[str], Reading]:
    """Return captions of tensors and of files, and what the oracle reads from the tensors."""
    (write, suffix), plain, filed, clean = FILES[part], [], [], []
    for chunk in index.split(BATCH):
        raw, seeds = world.batch(chunk, [part])[part], chunk.tolist()
        clean.append(read(part, raw, world.rate))
        plain += captions(model, part, raw, seeds)
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / f"{seed}{suffix}" for seed in seeds]
            for medium, path in zip(raw, files, strict=True):
                write(medium, path, world.rate)
            filed += captions(model, part, files, seeds)
    return plain, filed, join(clean)


def score(sentences: list[str], plain: list[str], reference: Reading) -> dict[str, Draws]:
    """Return what is right of captions, by attribute and on the whole."""
    said = read("text", sentences)
    same = torch.tensor([a == b for a, b in zip(sentences, plain, strict=True)])
    every = torch.ones_like(same)
    shares = metrics.score([metrics.compare(said, reference)])
    return shares | {"parses": metrics.ratio(said.ok, every), "same": metrics.ratio(same, every)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a folder; the embedded model if left out")
    parser.add_argument("--split", choices=("held_out", "seen"), default="held_out")
    parser.add_argument("--n", type=int, default=32, help="scenes of a medium")
    args = parser.parse_args()
    model = unigen.load(args.model)
    about = {"benchmark": "real_files", "model": model.hash, "split": args.split, "n": args.n}
    line(about | machine())
    world, index, rows = Setting(args.split, 1).world(**sizes_of(model)), scenes_of(0, args.n), []
    scene = truth(world.scenes(index))
    for part, (_, suffix) in FILES.items():
        plain, filed, clean = both(model, world, index, part)
        for name, sentences in (("tensor", plain), (suffix[1:], filed)):
            shares = score(sentences, plain, shared(scene, [clean]))
            rows.append(scored({"given": part, "as": name}, shares, COLUMNS))
    table(rows)


if __name__ == "__main__":
    main()
