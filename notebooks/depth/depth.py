"""Depth maps: one number a pixel, 0 far, 1 near. The whole modality is this class and a YAML.

Its codec needs no training: a map in false colors is a picture, and the image codec knows pictures.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unigen import media
from unigen.modalities.base import Modality

Map = Float[Tensor, "b h w"]  # nearness in [0, 1]
#: Nearness and its color, with colors between them by straight lines.
COLORS = ((0.0, (10, 10, 10)), (0.4, (150, 50, 200)), (0.65, (250, 140, 30)),
          (0.9, (250, 250, 250)), (1.0, (255, 255, 255)))  # fmt: skip


class Depth(Modality):
    """Depth maps of the size of the model's pictures."""

    name, suffix = "depth", ".png"
    still: Any  # the modality of pictures; its weights stay its own

    def __init__(self, size: int = 64, tokens: int = 16, channels: int = 32, **common):
        """size: pixels a side; tokens, channels: those of the pictures. common: see Modality."""
        super().__init__(tokens, channels, **common)
        self.shape = (size, size)
        near, colors = zip(*COLORS, strict=True)
        steps = torch.linspace(0, 1, 101)
        after = torch.bucketize(steps, torch.tensor(near)).clamp_min(1)
        low, high = torch.tensor(near)[after - 1], torch.tensor(near)[after]
        part = ((steps - low) / (high - low))[:, None]
        ends = torch.tensor(colors) / 255
        scale = ends[after - 1].lerp(ends[after], part)
        self.register_buffer("scale", scale, persistent=False)  # color of every hundredth

    def attach(self, modalities: Mapping[str, Modality]) -> None:
        """Take the modality of pictures to work with."""
        object.__setattr__(self, "still", modalities["image"])  # not a submodule

    def features(self, raw: Map) -> Float[Tensor, "b n c"]:
        """Return the latents of the maps in false colors."""
        scale = self.get_buffer("scale")
        return self.still.encode(scale[(raw * 100).round().long()].permute(0, 3, 1, 2))

    def restore(self, features: Float[Tensor, "b n c"]) -> Map:
        """Return the nearness whose color is nearest to each pixel's."""
        pixels = self.still.decode(features).permute(0, 2, 3, 1)
        away = torch.cdist(pixels.flatten(0, 2), self.get_buffer("scale"))
        return away.argmin(1).reshape(pixels.shape[:3]) / 100

    def positions(self) -> Float[Tensor, "n 3"]:
        """Place the tokens where the picture has its own."""
        return self.still.positions()

    def read(self, path: Path) -> tuple[Map, list[str]]:
        """Read a picture file: the brighter, the nearer."""
        picture = media.read_image(path, self.shape)
        return torch.tensor(picture.pixels).float().mean(-1)[None] / 255, list(picture.notes)

    def write(self, raw: Map, path: Path, recipe: dict, track: Any = None) -> None:
        """Write a gray PNG."""
        media.write_image(path, self._gray(raw), recipe)

    def show(self, raw: Map) -> Any:
        """Return a PIL image."""
        return media.picture(self._gray(raw))

    def _gray(self, raw: Map) -> Any:
        return raw[0, ..., None].expand(-1, -1, 3).mul(255).round().byte().numpy()
