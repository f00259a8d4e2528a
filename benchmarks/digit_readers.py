"""Read a digit from a picture and from a recording, independently of the model.

Both are support vector machines of scikit-learn that have seen the training split alone: one 8 x 8
brightness, one MFCC.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchaudio
from digit_media import RATE, WORDS
from jaxtyping import Float
from torch import Tensor

LENGTH, COEFFICIENTS = 24, 16  # steps of time that every word is stretched to; of the MFCC


class Readers:
    """A classifier of pictures and one of recordings, by part."""

    def __init__(self, pictures: Tensor, sounds: Tensor, shown: list[int], said: list[int]):
        """Learn from real media of the training split and the digits in them."""
        from sklearn.pipeline import make_pipeline  # optional: pip install 'unigen[digits]'
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import SVC

        self.machines = {
            "image": SVC(C=10).fit(brightness(pictures), shown),
            "audio": make_pipeline(StandardScaler(), SVC(C=10)).fit(cepstra(sounds), said),
        }

    def read(self, part: str, raw: Any) -> list[int]:
        """Return the digits in raw media: those of a clip are read from its last frame.

        A text that is no word for a digit is -1.
        """
        if part == "text":
            return [WORDS.index(word) if word in WORDS else -1 for word in raw]
        if part == "video":
            return self.read("image", raw[:, -1])
        seen = brightness(raw) if part == "image" else cepstra(raw)
        return self.machines[part].predict(seen).tolist()


def brightness(pixels: Float[Tensor, "b 3 h w"]) -> Float[np.ndarray, "b 64"]:
    """Return the mean brightness of 8 x 8 fields."""
    return F.adaptive_avg_pool2d(pixels.mean(1, keepdim=True), 8).flatten(1).numpy()


def cepstra(waves: Float[Tensor, "b samples"]) -> Float[np.ndarray, "b k"]:
    """Return the MFCC of the sounding part, stretched to the same length, and how long it is.

    What is constant over the word (the voice, the loudness) is taken away, and what is 40 dB below
    the loudest band counts as silence.
    """
    mel = torchaudio.transforms.MelSpectrogram(RATE, 512, hop_length=160, n_mels=40, f_max=7000.0)
    dct, found = torchaudio.functional.create_dct(COEFFICIENTS, 40, "ortho"), []
    for wave in waves:
        bands = mel(wave)
        loud = bands.sum(0)
        heard = (loud > 0.003 * loud.max()).nonzero()[:, 0]
        first, last = (int(heard[0]), int(heard[-1]) + 1) if len(heard) else (0, len(loud))
        level = (bands[:, first:last] / bands.max().clamp_min(1e-9) + 1e-4).log()
        word = F.interpolate((dct.T @ level)[None, 1:], LENGTH, mode="linear", align_corners=True)
        word = (word - word.mean(2, keepdim=True)).flatten()
        found.append(torch.cat([word, torch.tensor([(last - first) / 10.0])]))
    return torch.stack(found).numpy()


def label_of(path: Path) -> int:
    """Return the digit of an item, from its text file."""
    return WORDS.index(path.read_text(encoding="utf-8").strip())
