"""Clips through an autoencoder that others have trained, of clips or of stills."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from unigen.errors import UsageError
from unigen.interop.codecs.image import PROBE, fold, settle, tokens_a_side, unfold
from unigen.interop.codecs.network import Network
from unigen.modalities.video import Clips, Frames

Steps = Float[Tensor, "b t k u v"]  # latents on grids, one a step of time


class CodecFrames(Clips):
    """Clips frame by frame through an autoencoder of stills, such as `AutoencoderKL`."""

    def __init__(
        self,
        codec: Network,
        size: int = 256,  # pixels a side
        frames: int = 16,
        seconds: float = 2.0,
        patch: int = 2,  # latent pixels a side of a token
        **common,  # reader: see Clips; shared, noise_mean: see Modality
    ):
        """Ask the autoencoder for its sizes. Raises UsageError for clips that it cannot divide."""
        with torch.no_grad():
            z = self.encoded(codec, torch.zeros(1, frames, 3, PROBE, PROBE))
            spans = self.spans(codec, frames, z)
        grid, channels = tokens_a_side(size, z, patch), z.shape[2] * patch**2
        super().__init__(size, grid, spans, seconds, channels, **common)
        self.codec, self.patch = codec, patch
        settle(self, codec, patch**2)

    @staticmethod
    def spans(codec: Network, frames: int, z: Steps) -> list[int]:
        """Return how many frames every step of time holds."""
        return [1] * frames

    @staticmethod
    def encoded(codec: Network, raw: Frames) -> Steps:
        """Return the autoencoder's latents."""
        z = codec.encode(rearrange(raw * 2 - 1, "b f c h w -> (b f) c h w"))
        return rearrange(z, "(b f) c h w -> b f c h w", f=raw.shape[1])

    @staticmethod
    def decoded(codec: Network, z: Steps) -> Frames:
        """Return what the autoencoder makes of latents, from -1 to 1."""
        made = codec.decode(rearrange(z, "b f c h w -> (b f) c h w"))
        return rearrange(made, "(b f) c h w -> b f c h w", f=z.shape[1])

    def features(self, raw: Frames) -> Float[Tensor, "b n c"]:
        """Return the latents before they are normalized."""
        z = self.encoded(self.codec, raw)
        return rearrange(fold(z.flatten(0, 1), self.patch), "(b t) n c -> b (t n) c", b=len(raw))

    def restore(self, features: Float[Tensor, "b n c"]) -> Frames:
        """Return pixels in [0, 1]."""
        steps = rearrange(features, "b (t n) c -> (b t) n c", n=self.grid**2)
        z = unfold(steps, [self.grid] * 2, self.patch)
        made = self.decoded(self.codec, rearrange(z, "(b t) c h w -> b t c h w", b=len(features)))
        return ((made + 1) / 2).clamp(0, 1)


class CodecVideo(CodecFrames):
    """Clips as an autoencoder of clips has them: `AutoencoderKLLTXVideo` or `AutoencoderKLWan`.

    The first frame is a step of time of its own; every further step holds as many frames as the
    autoencoder joins.
    """

    def __init__(self, codec: Network, frames: int = 17, patch: int = 1, **options):
        """frames: one more than a multiple of what a step of time joins; options: CodecFrames."""
        super().__init__(codec, frames=frames, patch=patch, **options)

    @staticmethod
    def spans(codec: Network, frames: int, z: Steps) -> list[int]:
        """Return how many frames every step of time holds."""
        steps = z.shape[1] - 1
        back = CodecVideo.decoded(codec, z).shape[1]
        if back != frames:
            raise UsageError(
                f"frames={frames} does not fit this autoencoder, which gives {back} back; set it "
                f"to {back}."
            )
        return [1] + [(frames - 1) // steps] * steps

    @staticmethod
    def encoded(codec: Network, raw: Frames) -> Steps:
        """Return the autoencoder's latents."""
        z = codec.encode(rearrange(raw * 2 - 1, "b f c h w -> b c f h w"))
        return rearrange(z, "b c t h w -> b t c h w")

    @staticmethod
    def decoded(codec: Network, z: Steps) -> Frames:
        """Return what the autoencoder makes of latents, from -1 to 1."""
        clean = z.new_zeros(len(z)) if codec.config.get("timestep_conditioning") else None
        made = codec.decode(rearrange(z, "b t c h w -> b c t h w"), clean)
        return rearrange(made, "b c f h w -> b f c h w")
