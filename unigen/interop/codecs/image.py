"""Pictures through an autoencoder that others have trained."""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from unigen.errors import UsageError
from unigen.interop.codecs.network import Network
from unigen.modalities.base import Modality
from unigen.modalities.image import Pictures, Pixels, Sides, sides

PROBE = 64  # pixels a side of what an autoencoder is asked for its sizes with

Maps = Float[Tensor, "b k h w"]  # latents on a grid


class CodecImage(Pictures):
    """Images as patches of an autoencoder's latents: `AutoencoderKL`, `-DC` or `-Tiny`."""

    def __init__(self, codec: Network, size: Sides = 512, patch: int = 2, **common):
        """codec: the autoencoder. size: pixels a side, or height and width. patch: latent pixels
        a side of a token.

        common: shared, noise_mean: see Modality. Raises UsageError for a size that does not fit.
        """
        with torch.no_grad():
            z = codec.encode(torch.zeros(1, 3, PROBE, PROBE))
        grid = [tokens_a_side(side, z, patch) for side in sides(size)]
        super().__init__(size, grid, patch**2 * z.shape[1], **common)
        self.codec, self.patch = codec, patch
        settle(self, codec, patch**2)

    def features(self, raw: Pixels) -> Float[Tensor, "b n c"]:
        """Return the latents, patch by patch, before they are normalized."""
        return fold(self.codec.encode(raw * 2 - 1), self.patch)

    def restore(self, features: Float[Tensor, "b n c"]) -> Pixels:
        """Return pixels in [0, 1]."""
        made = self.codec.decode(unfold(features, self.grid, self.patch))
        return ((made + 1) / 2).clamp(0, 1)


def fold(z: Maps, patch: int) -> Float[Tensor, "b n c"]:
    """Return the patches of latents on a grid, row by row."""
    return rearrange(z, "b c (h p) (w q) -> b (h w) (c p q)", p=patch, q=patch)


def unfold(tokens: Float[Tensor, "b n c"], grid: Sequence[int], patch: int) -> Maps:
    """Return latents on a grid from their patches; grid: rows and columns of these."""
    return rearrange(tokens, "b (h w) (c p q) -> b c (h p) (w q)", h=grid[0], p=patch, q=patch)


def tokens_a_side(size: int, z: Tensor, patch: int) -> int:
    """Return how many tokens a side a picture has; z: the latents of one of `PROBE` pixels a side.

    Raises UsageError for a size of which a token covers no whole part.
    """
    pixels = PROBE // z.shape[-1] * patch
    if size % pixels:
        raise UsageError(
            f"size={size} is no multiple of {pixels}, the pixels a side of a token with "
            f"patch={patch}; choose one that is."
        )
    return size // pixels


def settle(modality: Modality, codec: Network, repeat: int) -> None:
    """Set the latent statistics of a modality to its codec's; a token holds `repeat` latents."""
    for own, value in zip(
        (modality.mean, modality.std), codec.statistics(modality.channels // repeat), strict=True
    ):
        own.copy_(value.repeat_interleave(repeat))
