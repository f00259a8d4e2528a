"""Sentences of UniDiffuser: CLIP reads them, GPT-2 says them."""

import torch
from jaxtyping import Float
from torch import Tensor

from unigen.errors import UsageError
from unigen.interop.codecs.text import ClipText


class PublishedText(ClipText):
    """Text without a point in a shared space: CLIP's text encoder is not that of its pictures."""

    def __init__(self, *networks, **common):
        """See `ClipText`."""
        super().__init__(*networks, **common)
        self.tower = torch.nn.Identity()

    def embed(self, z: Float[Tensor, "b n c"]) -> Float[Tensor, "b e"]:
        """Refuse: this text was read by another CLIP than the one that looks at pictures."""
        raise UsageError(
            "the text of this model has no point in a shared space; embed pictures, or use "
            "another model."
        )
