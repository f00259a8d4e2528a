"""Video: short clips in patches of 4 frames x 8 x 8 pixels, latents on a 4 x 4 x 4 grid."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from unigen import media
from unigen.modalities.base import Modality
from unigen.modalities.codec import PatchCodec, perturb, salience, weighted_error
from unigen.modalities.regions import box_or_mask, flatten_outside, stretch

Frames = Float[Tensor, "b f 3 h w"]  # in [0, 1]


class Video(Modality):
    """Clips of `frames` pictures over `seconds`, `size` x `size` pixels each."""

    name, suffix, track = "video", ".mp4", "audio"

    def __init__(
        self,
        size: int = 64,  # pixels a side
        frames: int = 16,
        seconds: float = 2.0,
        span: int = 4,  # frames of a patch
        patch: int = 8,  # pixels a side of a patch
        merge: int = 2,  # patches a side of a token
        channels: int = 32,
        width: tuple[int, int] | list[int] = (128, 192),
        depth: tuple[int, int] | list[int] = (1, 2),
        foreground: float = 6.0,  # loss weight of what differs from a frame's median color
        reader: str = "pyav",  # pyav | decord
        **common,  # shared, noise_mean: see Modality
    ):
        """Build the codec; latents are frames / span times (size / patch / merge)^2 tokens."""
        self.grid = size // patch // merge
        super().__init__(frames // span * self.grid**2, channels, **common)
        self.size, self.frames, self.seconds, self.span = size, frames, seconds, span
        self.patch, self.merge, self.foreground, self.reader = patch, merge, foreground, reader
        self.codec = PatchCodec(
            3 * span * patch**2, self.tokens, merge**2, channels, width=width, depth=depth
        )

    @property
    def times(self) -> Float[Tensor, " f"]:
        """Return the seconds at which the frames are shown."""
        return torch.arange(self.frames) * (self.seconds / self.frames)

    def features(self, raw: Frames) -> Float[Tensor, "b n c"]:
        """Return the latents before normalization."""
        return self.codec.encode(self._patches(raw))

    def restore(self, features: Float[Tensor, "b n c"]) -> Frames:
        """Return pixels in [0, 1]."""
        return self._pixels(self.codec.decode(features)).clamp(0, 1)

    def codec_loss(self, raw: Frames, generator: torch.Generator | None) -> Float[Tensor, ""]:
        """Return the error of the reconstruction, heavier on what stands out in its frame."""
        made = self.codec.decode(perturb(self.features(raw), generator))
        return weighted_error(self._pixels(made), raw, salience(raw, self.foreground))

    def positions(self) -> Float[Tensor, "n 3"]:
        """Place the tokens at their patches' centers, in seconds and fractions of the side."""
        steps = self.frames // self.span
        axes = [(torch.arange(steps) + 0.5) * (self.seconds / steps)]
        axes += [(torch.arange(self.grid) + 0.5) / self.grid] * 2
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)

    def kept(self, region: str) -> Float[Tensor, " n"]:
        """Keep a stretch `from:to` in seconds, a box, or the white part of a mask file."""
        if ":" in region:
            return stretch(region, self.positions(), self.seconds / (self.frames // self.span),
                           self.name)  # fmt: skip
        return box_or_mask(region, self.positions(), self.name)

    def read(self, path: Path) -> tuple[Frames, list[str]]:
        """Read the first seconds of a clip, resized, one frame for each time."""
        clip = media.read_video(path, self.times.numpy(), (self.size, self.size), self.reader)
        frames = torch.from_numpy(np.ascontiguousarray(clip.frames)).float() / 255
        return rearrange(frames, "f h w c -> 1 f c h w"), list(clip.notes)

    def write(
        self, raw: Frames, path: Path, recipe: dict, track: tuple[Modality, Any] | None = None
    ) -> None:
        """Write an mp4, silent or with its sound."""
        sound = {} if track is None else {"samples": track[1][0].numpy(), "rate": track[0].rate}
        media.write_video(path, self.show(raw), self.frames / self.seconds, recipe, **sound)

    def log(self, writer: Any, tag: str, raw: Frames, step: int) -> None:
        """Show the frames side by side."""
        writer.add_image(tag, rearrange(raw[0], "f c h w -> c h (f w)"), step)

    def show(self, raw: Frames) -> np.ndarray:
        """Return uint8 [f, h, w, 3]."""
        return rearrange(raw[0], "f c h w -> f h w c").mul(255).round().byte().numpy()

    def blank(self, raw: Frames, kept: Float[Tensor, " n"]) -> Frames:
        """Hold the nearest kept frame; within a frame, paint over what is not kept."""
        kept = kept.reshape(-1, self.grid, self.grid)
        whole = kept.flatten(1).any(1).nonzero()[:, 0]  # time patches with something kept
        if len(whole) == 0:
            return torch.zeros_like(raw)
        first, last = int(whole[0]) * self.span, int(whole[-1] + 1) * self.span - 1
        held = raw[:, torch.arange(self.frames).clamp(first, last)]
        seen = kept[whole].amax(0)
        return held if seen.all() else flatten_outside(held, seen)

    def _patches(self, raw: Frames) -> Tensor:
        return rearrange(
            raw * 2 - 1, "b (gt s) c (gh mh p) (gw mw q) -> b (gt gh gw mh mw) (s c p q)",
            s=self.span, mh=self.merge, mw=self.merge, p=self.patch, q=self.patch,
        )  # fmt: skip

    def _pixels(self, patches: Tensor) -> Frames:
        pixels = rearrange(
            patches, "b (gt gh gw mh mw) (s c p q) -> b (gt s) c (gh mh p) (gw mw q)",
            gh=self.grid, gw=self.grid, mh=self.merge, mw=self.merge,
            s=self.span, p=self.patch, q=self.patch,
        )  # fmt: skip
        return (pixels + 1) / 2
