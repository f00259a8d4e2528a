"""What a read returns: plain numpy arrays, and notes in words about what was done to them."""

from typing import NamedTuple

import numpy as np

from unigen.media.sniff import in_words

NOUNS = {"image": "image", "video": "video", "audio": "sound"}  # of a kind, in a sentence


class Picture(NamedTuple):
    """An image.

    pixels: uint8 [height, width, 3], RGB.
    notes: what was done, in words ("resized 640x480 to 64x64").
    """

    pixels: np.ndarray
    notes: list[str]


class Clip(NamedTuple):
    """Frames of a video, one for each asked time.

    frames: uint8 [frames, height, width, 3], RGB.
    notes: what was done, in words; a note that starts with "degraded" tells of damage.
    """

    frames: np.ndarray
    notes: list[str]


class Sound(NamedTuple):
    """A stretch of sound.

    samples: float32 [samples, channels], finite, nominally in [-1, 1].
    rate: samples a second.
    notes: what was done, in words; a note that starts with "degraded" tells of damage.
    """

    samples: np.ndarray
    rate: int
    notes: list[str]


class Probe(NamedTuple):
    """What a file really is, by its content.

    kind: "image", "video" or "audio".
    facts: image: format, width, height, frames; video: container, codec, width, height, fps,
        seconds, frames (0 where not declared), sound (bool); audio: container, codec, rate,
        channels, seconds.
    """

    kind: str
    facts: dict

    @property
    def words(self) -> str:
        """Name it: "a PNG image", "an MP4 video", "a WAV sound"."""
        name = self.facts.get("format") or self.facts["container"]
        return in_words(NOUNS[self.kind], name)
