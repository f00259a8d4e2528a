"""Small media on disk: what a user's folder holds, whole and broken in known ways."""

import wave
from pathlib import Path

import numpy as np
from PIL import Image

from unigen.media import write_video

BREAKS = ("cut", "zeroed", "wrong type", "text renamed", "empty")


def png(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def wav(path: Path, seed: int, seconds: float = 0.1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).integers(-9000, 9000, int(8000 * seconds), dtype=np.int16)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(samples.tobytes())
    return path


def mp4(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.random.default_rng(seed).integers(0, 255, (4, 16, 16, 3), dtype=np.uint8)
    write_video(path, frames, 2.0, {})
    path.with_name(f"{path.name}.json").unlink()
    return path


def txt(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


MAKE = {"image": (png, ".png"), "audio": (wav, ".wav"), "video": (mp4, ".mp4")}


def mixed(root: Path, count: int, clips: int = 3) -> list[Path]:
    """Make `count` items of five kinds, `clips` of them with a clip; return the media files."""
    files = []
    for i in range(count):
        parts = [("image",), ("image", "audio"), ("audio",), ("image",), ("image", "audio")][i % 5]
        if i < clips:
            parts = ("image", "audio", "video")
        for part in parts:
            make, suffix = MAKE[part]
            files.append(make(root / part / f"{i:04d}{suffix}", i))
        if i % 5 in (0, 1, 2):
            txt(root / "text" / f"{i:04d}.txt", "a small red circle drifts left", "a blue star")
    return files


def spoil(path: Path, how: str) -> None:
    """Break a file in one way."""
    data = path.read_bytes()
    path.write_bytes(
        {
            "cut": data[: len(data) * 3 // 5],
            "zeroed": bytes(len(data)),
            "wrong type": b"%PDF-1.4 " + data[:200],
            "text renamed": b"no picture and no sound, but words\n" * 4,
            "empty": b"",
        }[how]
    )
