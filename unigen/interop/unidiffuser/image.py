"""Pictures of UniDiffuser: a KL autoencoder's latents, and CLIP's embedding as global token."""

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from unigen.errors import UsageError
from unigen.modalities.image import Pictures, Pixels

_PATCH = 2  # latent pixels a side of a token


class PublishedImage(Pictures):
    """Images as patches of a variational autoencoder's latents."""

    def __init__(self, vae: Any, eye: Any, processor: Any, grid: int):
        """Join the parts of the pipeline.

        vae: an `AutoencoderKL`; eye, processor: a `CLIPVisionModelWithProjection` and its
        `CLIPImageProcessor`; grid: tokens a side.
        """
        scale = 2 ** (len(vae.config.block_out_channels) - 1)
        super().__init__(
            grid * _PATCH * scale, grid, _PATCH**2 * vae.config.latent_channels,
            shared=eye.config.projection_dim,
        )  # fmt: skip
        self.vae, self.eye, self.processor = vae, eye, processor
        self.tower = torch.nn.Identity()  # CLIP looks at the pixels
        self.std.fill_(1 / vae.config.scaling_factor)

    def features(self, raw: Pixels) -> Float[Tensor, "b n c"]:
        """Return the means of the autoencoder's posterior, patch by patch."""
        z = self.vae.encode((raw * 2 - 1).to(self.vae.dtype)).latent_dist.mode()
        return rearrange(z, "b c (h p) (w q) -> b (h w) (c p q)", p=_PATCH, q=_PATCH).float()

    def restore(self, features: Float[Tensor, "b n c"]) -> Pixels:
        """Return pixels in [0, 1]."""
        z = rearrange(
            features, "b (h w) (c p q) -> b c (h p) (w q)", h=self.grid, p=_PATCH, q=_PATCH
        )
        made = self.vae.decode(z.to(self.vae.dtype)).sample
        return ((made.float() + 1) / 2).clamp(0, 1)

    def point(self, raw: Pixels, z: Float[Tensor, "b n c"]) -> Float[Tensor, "b e"]:
        """Return CLIP's projected embedding of the pixels, not normalized."""
        pixels = list((raw.cpu() * 255).round().byte())  # what a file would hold
        seen = self.processor(pixels, return_tensors="pt")
        values = seen.pixel_values.to(raw.device, self.eye.dtype)
        return self.eye(pixel_values=values).image_embeds.float()

    def codec_loss(self, front: Pixels, generator: torch.Generator | None) -> Tensor:
        """Refuse: the autoencoder is taken as it is."""
        raise UsageError("the codec of this image is published as it is; train another modality's.")
