"""Oracles: read a scene's attributes back from a medium, by signal processing and parsing alone.

They only measure. Nothing that trains, encodes or samples may import them.
"""

from torch import Tensor

from unigen.data.world.oracles.audio import read_audio
from unigen.data.world.oracles.image import read_image
from unigen.data.world.oracles.reading import (
    OBJECTS,
    SCENE,
    TELLS,
    Reading,
    accuracy,
    join,
    matches,
    sync,
    truth,
)  # fmt: skip
from unigen.data.world.oracles.text import read_text
from unigen.data.world.oracles.video import read_video
from unigen.errors import UsageError

__all__ = [
    "OBJECTS", "ORACLES", "SCENE", "TELLS", "Reading", "accuracy", "join", "matches", "read",
    "sync", "truth",
]  # fmt: skip

ORACLES = {"image": read_image, "video": read_video, "audio": read_audio, "text": read_text}
_CHUNK = 64  # media read at once


def read(part: str, raw: Tensor | list[str], rate: int = 16_000) -> Reading:
    """Read a batch of media of one kind.

    `raw`: image [b, 3, h, w] or video [b, f, 3, h, w] in [0, 1] (the frames span the world's
    seconds), audio [b, samples] at `rate` Hz, or a list of captions. Returns a CPU reading.
    """
    if part not in ORACLES:
        raise UsageError(f"part={part} has no oracle; choose one of {', '.join(ORACLES)}.")
    if len(raw) == 0:
        raise UsageError(f"no {part} came to be read; give at least one.")
    settings = {"rate": rate} if part == "audio" else {}
    chunks = (raw[i : i + _CHUNK] for i in range(0, len(raw), _CHUNK))
    return join([ORACLES[part](chunk, **settings) for chunk in chunks])
