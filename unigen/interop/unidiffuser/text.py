"""Sentences of UniDiffuser: CLIP reads them, GPT-2 says them."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unigen.errors import UsageError
from unigen.interop.codecs.text import ClipText
from unigen.tokens import noise


class PublishedText(ClipText):
    """Text without a point in a shared space: CLIP's text encoder is not that of its pictures."""

    def __init__(self, *networks, prefixed: bool = False, **common):
        """prefixed: sentences are made from noise that looks like one to the prefix encoder, as
        diffusers draws it, instead of normal noise. The rest: see `ClipText`.
        """
        super().__init__(*networks, **common)
        self.tower, self.prefixed = torch.nn.Identity(), prefixed

    def prior(
        self, part: str, seeds: Sequence[int], shape: tuple[int, int]
    ) -> Float[Tensor, "b n c"]:
        """Return normal noise, or what the caption decoder's prefix encoder makes of it."""
        if not self.prefixed:
            return super().prior(part, seeds, shape)
        wide = noise(part, seeds, (shape[0], self.encoder.config.hidden_size))
        return self.decoder.encode(wide.to(self.decoder.encode_prefix.weight)).float()

    def embed(self, z: Float[Tensor, "b n c"]) -> Float[Tensor, "b e"]:
        """Refuse: this text was read by another CLIP than the one that looks at pictures."""
        raise UsageError(
            "the text of this model has no point in a shared space; embed pictures, or use "
            "another model."
        )
