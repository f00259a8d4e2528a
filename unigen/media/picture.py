"""Pictures for people: PIL images from arrays, and back as files of them would be read."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unigen.media.read import read_image
from unigen.media.results import Picture

_PLAIN = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}  # modes that a PNG has


def picture(pixels: np.ndarray) -> Any:
    """Return uint8 [h, w, 3] as a `PIL.Image.Image`."""
    from PIL import Image

    return Image.fromarray(pixels)


def is_picture(value: Any) -> bool:
    """Tell whether something is a PIL image."""
    from PIL import Image

    return isinstance(value, Image.Image)


def take_picture(value: Any, size: Sequence[int] | None = None, crop: bool = False) -> Picture:
    """Return a PIL image as `read_image` reads the PNG of it."""
    image = value if value.mode in _PLAIN else value.convert("RGB")
    with tempfile.TemporaryDirectory(prefix="unigen-") as folder:
        path = Path(folder) / "given.png"
        image.save(path)
        return read_image(path, size, crop)
