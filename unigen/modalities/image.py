"""Images: square RGB pictures, in patches of 8 x 8 pixels, latents on a 4 x 4 grid."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from unigen import media
from unigen.errors import UsageError
from unigen.modalities.base import Modality
from unigen.modalities.codec import PatchCodec, perturb, salience, weighted_error
from unigen.modalities.regions import box_or_mask, flatten_outside

Pixels = Float[Tensor, "b 3 h w"]  # in [0, 1]
Sides = int | Sequence[int]  # of a square, or height and width


class Pictures(Modality):
    """Still pictures as files and as what a user gives, whatever becomes of them."""

    name, suffix = "image", ".png"
    crop = False  # files are stretched to the size; True takes their middle part

    def __init__(self, size: Sides, grid: Sides, channels: int, **common):
        """size: pixels a side, or height and width. grid: tokens a side, or rows and columns.

        common: shared, noise_mean: see Modality.
        """
        self.grid, self.sides = sides(grid), sides(size)
        super().__init__(self.grid[0] * self.grid[1], channels, **common)
        self.size, self.shape = size, (3, *self.sides)

    def positions(self) -> Float[Tensor, "n 3"]:
        """Place the tokens on the unit square at second 0."""
        axes = [(torch.arange(n) + 0.5) / n for n in self.grid]
        row, column = torch.meshgrid(*axes, indexing="ij")
        return torch.stack([torch.zeros_like(row), row, column], -1).reshape(-1, 3)

    def kept(self, region: str) -> Float[Tensor, " n"]:
        """Keep a box `left,top,right,bottom` (fractions) or the white part of a mask file."""
        return box_or_mask(region, self.positions(), self.name, self.sides, self.crop)

    def read(self, path: Path) -> tuple[Pixels, list[str]]:
        """Read a picture and resize it."""
        return self._opened(media.read_image(path, self.sides, self.crop))

    def take(self, value: Any) -> tuple[Pixels, list[str]]:
        """Return pixels and notes from a path, a tensor, or a PIL image."""
        if media.is_picture(value):
            return self._opened(media.take_picture(value, self.sides, self.crop))
        return super().take(value)

    def write(self, raw: Pixels, path: Path, recipe: dict, track: Any = None) -> None:
        """Write a PNG."""
        media.write_image(path, self._bytes(raw), recipe)

    def log(self, writer: Any, tag: str, raw: Pixels, step: int) -> None:
        """Show the picture."""
        writer.add_image(tag, raw[0], step)

    def show(self, raw: Pixels) -> Any:
        """Return a PIL image."""
        return media.picture(self._bytes(raw))

    def blank(self, raw: Pixels, kept: Float[Tensor, " n"]) -> Pixels:
        """Paint what is not kept in the median color of the picture."""
        return flatten_outside(raw, kept.reshape(self.grid))

    def _opened(self, picture: media.Picture) -> tuple[Pixels, list[str]]:
        pixels = torch.from_numpy(np.ascontiguousarray(picture.pixels)).float() / 255
        return rearrange(pixels, "h w c -> 1 c h w"), list(picture.notes)

    def _bytes(self, raw: Pixels) -> np.ndarray:
        return rearrange(raw[0], "c h w -> h w c").mul(255).round().byte().numpy()


def sides(size: Sides) -> tuple[int, int]:
    """Return height and width; raises UsageError for what is neither one number nor two."""
    both = size if isinstance(size, Sequence) else [size, size]
    if len(both) != 2 or not all(type(n) is int and n > 0 for n in both):
        raise UsageError(f"size={size} is no size; type pixels a side, or [height,width].")
    return both[0], both[1]


class Image(Pictures):
    """Still pictures of `size` x `size` pixels."""

    def __init__(
        self,
        size: int = 64,  # pixels a side
        patch: int = 8,  # pixels a side of a patch
        merge: int = 2,  # patches a side of a token
        channels: int = 32,
        width: tuple[int, int] | list[int] = (128, 192),
        depth: tuple[int, int] | list[int] = (1, 2),
        foreground: float = 6.0,  # loss weight of what differs from the picture's median color
        **common,  # shared, noise_mean: see Modality
    ):
        """Build the codec; latents are (size / patch / merge) squared tokens.

        Raises UsageError for a size that is not made of whole tokens.
        """
        if size % (patch * merge):
            raise UsageError(
                f"size={size} is no multiple of patch x merge = {patch * merge} pixels, the side "
                "of a token; choose one that is."
            )
        super().__init__(size, size // patch // merge, channels, **common)
        self.patch, self.merge, self.foreground = patch, merge, foreground
        self.codec = PatchCodec(
            3 * patch**2, self.tokens, merge**2, channels, width=width, depth=depth
        )

    def features(self, raw: Pixels) -> Float[Tensor, "b n c"]:
        """Return the latents before normalization."""
        return self.codec.encode(self._patches(raw))

    def restore(self, features: Float[Tensor, "b n c"]) -> Pixels:
        """Return pixels in [0, 1]."""
        return self._pixels(self.codec.decode(features)).clamp(0, 1)

    def codec_loss(self, front: Pixels, generator: torch.Generator | None) -> Float[Tensor, ""]:
        """Return the error of the reconstruction, heavier on what stands out."""
        made = self._pixels(self.codec.decode(perturb(self.features(front), generator)))
        return weighted_error(made, front, salience(front, self.foreground), generator)

    def _patches(self, raw: Pixels) -> Tensor:
        return rearrange(raw * 2 - 1, "b c (gh mh p) (gw mw q) -> b (gh gw mh mw) (c p q)",
                         mh=self.merge, mw=self.merge, p=self.patch, q=self.patch)  # fmt: skip

    def _pixels(self, patches: Tensor) -> Pixels:
        pixels = rearrange(
            patches, "b (gh gw mh mw) (c p q) -> b c (gh mh p) (gw mw q)",
            gh=self.grid[0], mh=self.merge, mw=self.merge, p=self.patch, q=self.patch,
        )  # fmt: skip
        return (pixels + 1) / 2
