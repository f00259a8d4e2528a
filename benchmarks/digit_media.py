"""The digits of scikit-learn as media: pictures, drawings as clips, spoken and written words.

The pictures are 8 x 8 in the original and are shown at 64 x 64, white on black. espeak-ng speaks
them. The folder is one that `data=folder` reads.
"""

import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from heapq import heappop, heappush
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio
from jaxtyping import Float, UInt8
from PIL import Image

from unigen.media.encode_mp4 import encode

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIZE, FRAMES, SECONDS, RATE = 64, 16, 2.0, 16_000
DRAWN = 12  # frames after which nothing is left to draw
HELD_OUT = 5  # every fifth picture
TAKES = 3  # voices that speak a picture; the first of them comes with the clip, too
VOICES = {
    "train": (
        "en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-029",
        "en-us+f1", "en-us+m3", "en-gb+f3", "en-gb+m5", "en-us-nyc+f4", "en-029+m1",
        "en-gb-scotland+f5", "en-gb-x-rp+m4", "en-us+m6", "en-gb-x-gbclan+f1",
    ),
    "held_out": ("en-gb-x-gbcwmd", "en-us+f2", "en-gb+m7", "en-us-nyc+m2"),
}  # fmt: skip

Ink = Float[np.ndarray, "h w"]  # 0 is paper, 1 is ink


def digits() -> tuple[Float[np.ndarray, "n 8 8"], list[int]]:
    """Return the 1,797 pictures of scikit-learn, 1 is ink, and the digits that they show."""
    from sklearn.datasets import load_digits  # optional: pip install 'unigen[digits]'

    found = load_digits()
    return found.images / 16, [int(label) for label in found.target]


def split_of(picture: int) -> str:
    """Return `train` or `held_out`, by the number of a picture."""
    return "held_out" if picture % HELD_OUT == 0 else "train"


def order(ink: Ink) -> Ink:
    """Return when the pen comes to every place, from 0 to 1.

    It begins in the topmost row of ink, at the left, and goes over ink faster than over paper; what
    is far from it over ink is drawn late.
    """
    ink = ink.astype(float)
    start = min(zip(*np.nonzero(ink >= 0.5 * ink.max()), strict=True))
    known, ahead = np.full(ink.shape, np.inf), [(0.0, *map(int, start))]
    while ahead:
        time, row, column = heappop(ahead)
        if time >= known[row, column]:
            continue
        known[row, column] = time
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                r, c = row + down, column + right
                if 0 <= r < ink.shape[0] and 0 <= c < ink.shape[1]:
                    cost = np.hypot(down, right) * (0.05 + (1 - ink[r, c]) ** 2)
                    heappush(ahead, (time + cost, r, c))
    last = known[ink > 0.1].max(initial=1e-9)
    return (known / last).clip(0, 1)


def picture(ink: Ink, size: int = SIZE) -> Ink:
    """Return a larger picture, smooth between the original's pixels."""
    large = Image.fromarray(ink.astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(large).clip(0, 1)


def drawing(ink: Ink, frames: int = FRAMES, size: int = SIZE) -> Float[np.ndarray, "f h w"]:
    """Return how a picture is drawn: ink only comes, and the last frames are the picture."""
    whole, when = picture(ink, size), picture(order(ink), size)
    now = np.arange(1, frames + 1) / DRAWN * FRAMES / frames
    soft = 0.15  # a stroke's edge, as a share of the time
    seen = ((now[:, None, None] * (1 + soft) - when) / soft).clip(0, 1)
    return whole * seen


def colors(ink: Float[np.ndarray, "*s h w"]) -> UInt8[np.ndarray, "*s h w 3"]:
    """Return white ink on black paper."""
    return np.repeat((ink * 255).round().astype(np.uint8)[..., None], 3, -1)


def speak(word: str, voice: str, speed: int, pitch: int, path: Path) -> None:
    """Write a word, as espeak-ng says it, to a WAV file of 16 kHz, its peak at one half."""
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "said.wav"
        how = ["-v", voice, "-s", str(speed), "-p", str(pitch), "-w", str(said)]
        subprocess.run(["espeak-ng", *how, word], check=True, capture_output=True)
        samples, rate = soundfile.read(said, dtype="float32")
    wave = torchaudio.functional.resample(torch.from_numpy(samples), rate, RATE)
    wave = wave[: int(SECONDS * RATE)]
    soundfile.write(path, (0.5 * wave / wave.abs().max().clamp_min(1e-6)).numpy(), RATE)


def cast(number: int, split: str, takes: int) -> list[tuple[str, int, int]]:
    """Return who speaks a picture: voice, words a minute, pitch; another voice each take."""
    draw = np.random.default_rng([number, len(split)])
    voices = draw.permutation(VOICES[split])[:takes]
    return [(str(v), int(draw.integers(120, 191)), int(draw.integers(30, 71))) for v in voices]


def make(root: Path, only: Sequence[int] | None = None, takes: int = TAKES) -> Path:
    """Write `<root>/<split>/<modality>/<picture>-<take>.*` and return the root.

    only: numbers of pictures; all of them if left out. A picture that is held out is spoken once,
    by a voice that is held out, too.
    """
    pictures, labels = digits()
    for split in VOICES:
        for part in ("image", "video", "audio", "text"):
            (root / split / part).mkdir(parents=True, exist_ok=True)

    def item(number: int) -> None:
        split, ink, word = split_of(number), pictures[number], WORDS[labels[number]]
        spoken = cast(number, split, takes if split == "train" else 1)
        for take, (voice, speed, pitch) in enumerate(spoken):
            place, name = root / split, f"{number:04d}-{take}_{voice}"
            Image.fromarray(colors(picture(ink))).save(place / "image" / f"{name}.png")
            (place / "text" / f"{name}.txt").write_text(f"{word}\n", encoding="utf-8")
            speak(word, voice, speed, pitch, place / "audio" / f"{name}.wav")
            if take == 0:
                clip = place / "video" / f"{name}.mp4"
                encode(clip, colors(drawing(ink)), Fraction(FRAMES) / Fraction(SECONDS), None, "")

    with ThreadPoolExecutor(2) as pool:
        torch.set_num_threads(1)
        list(pool.map(item, range(len(pictures)) if only is None else only))
    return root
