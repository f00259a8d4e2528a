"""The patch autoencoder that image, video and audio share as a class, not as weights.

Patches are embedded, mixed, merged in runs of neighbors, mixed again and squeezed to a few
channels. The latents carry unit-norm information plus a little noise, so that the decoder learns
to absorb what a denoiser leaves behind.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from unigen.layers import Block
from unigen.share import draw, share_of


class PatchCodec(nn.Module):
    """Autoencoder from patches [b, n * merge, p] to latents [b, n, c] and back."""

    def __init__(
        self,
        patch: int,  # numbers in a patch
        tokens: int,  # latent tokens n
        merge: int,  # neighboring patches that become one token
        channels: int = 32,  # latent channels c
        width: tuple[int, int] | list[int] = (128, 192),  # before and after merging
        depth: tuple[int, int] | list[int] = (1, 2),  # blocks before and after merging
        head: int = 32,  # width of an attention head
    ):
        """Build encoder and decoder as mirror images."""
        super().__init__()
        (fine, coarse), (shallow, deep) = width, depth
        self.merge = merge

        def stack(width: int, depth: int) -> nn.Sequential:
            return nn.Sequential(*(Block(width, width // head) for _ in range(depth)))

        def place(tokens: int, width: int) -> nn.Parameter:
            return nn.Parameter(0.02 * torch.randn(tokens, width))

        self.embed, self.place_in = nn.Linear(patch, fine), place(tokens * merge, fine)
        self.fine_in, self.coarse_in = stack(fine, shallow), stack(coarse, deep)
        self.fold, self.squeeze = nn.Linear(merge * fine, coarse), nn.Linear(coarse, channels)
        self.expand, self.place_out = nn.Linear(channels, coarse), place(tokens, coarse)
        self.coarse_out, self.fine_out = stack(coarse, deep), stack(fine, shallow)
        self.unfold, self.place_fine = nn.Linear(coarse, merge * fine), place(tokens * merge, fine)
        self.paint = nn.Sequential(nn.LayerNorm(fine), nn.Linear(fine, patch))

    @property
    def back(self) -> nn.ModuleDict:
        """Return the layers from the latents back to patches."""
        names = ("expand", "coarse_out", "unfold", "fine_out", "paint")
        return nn.ModuleDict({name: getattr(self, name) for name in names})

    def encode(self, patches: Float[Tensor, "b m p"]) -> Float[Tensor, "b n c"]:
        """Return latents whose channels have mean 0 and variance 1 within each token."""
        x = self.fine_in(self.embed(patches) + self.place_in)
        x = self.fold(rearrange(x, "b (n m) d -> b n (m d)", m=self.merge))
        z = self.squeeze(self.coarse_in(x))
        return F.layer_norm(z.float(), z.shape[-1:])

    def decode(self, z: Float[Tensor, "b n c"]) -> Float[Tensor, "b m p"]:
        """Return patches."""
        x = self.coarse_out(self.expand(z) + self.place_out)
        x = rearrange(self.unfold(x), "b n (m d) -> b (n m) d", m=self.merge)
        return self.paint(self.fine_out(x + self.place_fine)).float()


class MotionCodec(nn.Module):
    """Autoencoder from runs of stills' latents [b, n, p] to latents [b, n, c] and back."""

    def __init__(self, patch: int, tokens: int, channels: int, width: int, depth: int):
        """patch: numbers in a run; depth: blocks on either side."""
        super().__init__()

        def stack() -> nn.Sequential:
            return nn.Sequential(*(Block(width, width // 32) for _ in range(depth)))

        self.embed, self.squeeze = nn.Linear(patch, width), nn.Linear(width, channels)
        self.expand, self.paint = nn.Linear(channels, width), nn.Linear(width, patch)
        self.place_in = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.place_out = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.encoder, self.decoder = stack(), stack()

    @property
    def back(self) -> nn.ModuleDict:
        """Return the layers from the latents back to runs."""
        return nn.ModuleDict({name: getattr(self, name) for name in ("expand", "decoder", "paint")})

    def encode(self, runs: Float[Tensor, "b n p"]) -> Float[Tensor, "b n c"]:
        """Return latents whose channels have mean 0 and variance 1 within each token."""
        z = self.squeeze(self.encoder(self.embed(runs) + self.place_in))
        return F.layer_norm(z.float(), z.shape[-1:])

    def decode(self, z: Float[Tensor, "b n c"]) -> Float[Tensor, "b n p"]:
        """Return runs of stills' latents."""
        return self.paint(self.decoder(self.expand(z) + self.place_out)).float()


def perturb(
    z: Float[Tensor, "b n c"], generator: torch.Generator | None, floor: float = 0.1
) -> Float[Tensor, "b n c"]:
    """Add the noise under which decoders train: `floor` always, up to 0.4 for half the samples."""
    share = share_of(generator)
    some = torch.rand(2, len(z) * share.of, generator=generator, device=z.device)
    sigma = torch.where(some[0] < 0.5, floor, floor + (0.4 - floor) * some[1])
    sigma, eps = share.rows(sigma), draw(torch.randn, z.shape, generator, z.device)
    return z + sigma[:, None, None] * eps


def weighted_error(
    made: Float[Tensor, "*s"],
    real: Float[Tensor, "*s"],
    weight: Float[Tensor, "*t"],
    generator: torch.Generator | None = None,  # of a share, to weigh as in the whole batch
) -> Float[Tensor, ""]:
    """Return the weighted mean of absolute plus squared error."""
    error = made - real
    error = (weight * (error.abs() + error.square())).mean()
    return error / share_of(generator).mean(weight.mean())


def salience(raw: Float[Tensor, "... 3 h w"], foreground: float) -> Float[Tensor, "... 1 h w"]:
    """Return 1 where a pixel has its picture's median color, 1 + `foreground` elsewhere."""
    sparse = raw[..., 1::4, 1::4]  # enough to find the background
    median = sparse.flatten(-2).median(-1).values[..., None, None]
    return 1 + foreground * ((raw - median).abs().amax(-3, keepdim=True) > 0.1).float()
