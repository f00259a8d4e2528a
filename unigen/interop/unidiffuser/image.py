"""Pictures of UniDiffuser: a KL autoencoder's latents, and CLIP's embedding as global token."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unigen.errors import UsageError
from unigen.interop.codecs.image import CodecImage
from unigen.interop.codecs.network import Network
from unigen.modalities.image import Pixels, Sides

_PATCH = 2  # latent pixels a side of a token


class PublishedImage(CodecImage):
    """Images as patches of a variational autoencoder's latents, with CLIP's view of them."""

    crop = True  # as the authors do

    def __init__(self, vae: Network, eye: Network, processor: Any, size: Sides):
        """Join the parts of the pipeline.

        vae: an `AutoencoderKL`; eye, processor: a `CLIPVisionModelWithProjection` and its
        `CLIPImageProcessor`; size: pixels a side, or height and width.
        """
        super().__init__(vae, size, _PATCH, shared=eye.config.projection_dim)
        self.eye, self.processor = eye, processor
        self.tower = torch.nn.Identity()  # CLIP looks at the pixels

    @property
    def spec(self) -> dict:
        """Refuse: a pipeline is kept as its folder, not as a model of this package."""
        raise UsageError(
            "a pipeline of UniDiffuser is not saved anew; unigen convert FOLDER out=NEW copies it, "
            "in another dtype with dtype=bfloat16."
        )

    def point(self, raw: Pixels, z: Float[Tensor, "b n c"]) -> Float[Tensor, "b e"]:
        """Return CLIP's projected embedding of the pixels, not normalized."""
        pixels = list((raw.cpu() * 255).round().byte())  # what a file would hold
        seen = self.processor(pixels, return_tensors="pt")
        values = seen.pixel_values.to(raw.device, self.eye.net.dtype)
        return self.eye.net(pixel_values=values).image_embeds.float()
