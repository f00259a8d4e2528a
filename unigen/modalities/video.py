"""Video: short clips. Every frame goes through the codec of stills; four frames become a token.

The codec of stills is the image modality's own, frozen and shared; what is learned here is how
its latents move, 4 frames x 4 x 4 places at a time.
"""

from collections.abc import Mapping
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
from unigen.modalities.codec import MotionCodec, perturb
from unigen.modalities.regions import box_or_mask, flatten_outside, stretch
from unigen.share import share_of

Frames = Float[Tensor, "b f 3 h w"]  # in [0, 1]


class Clips(Modality):
    """Short clips as files and as what a user gives, whatever becomes of them."""

    name, suffix, track = "video", ".mp4", "audio"

    def __init__(
        self,
        size: int,  # pixels a side
        grid: int,  # tokens a side of a step of time
        spans: list[int],  # frames of every step of time
        seconds: float,
        channels: int,
        reader: str = "pyav",  # pyav | decord
        **common,  # shared, noise_mean: see Modality
    ):
        """Describe clips of sum(spans) frames and len(spans) times grid^2 tokens."""
        super().__init__(len(spans) * grid**2, channels, **common)
        self.size, self.grid, self.frames, self.seconds = size, grid, sum(spans), seconds
        self.shape = (self.frames, 3, size, size)
        self.ends, self.reader = torch.tensor(spans).cumsum(0), reader
        self.starts = self.ends - torch.tensor(spans)

    @property
    def times(self) -> Float[Tensor, " f"]:
        """Return the seconds at which the frames are shown."""
        return torch.arange(self.frames) * (self.seconds / self.frames)

    def positions(self) -> Float[Tensor, "n 3"]:
        """Place the tokens at their centers, in seconds and fractions of the side."""
        axes = [(self.starts + self.ends) / 2 * (self.seconds / self.frames)]
        axes += [(torch.arange(self.grid) + 0.5) / self.grid] * 2
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)

    def kept(self, region: str) -> Float[Tensor, " n"]:
        """Keep a stretch `from:to` in seconds, a box, or the white part of a mask file."""
        if ":" not in region:
            return box_or_mask(region, self.positions(), self.name)
        starts, ends = (edge * (self.seconds / self.frames) for edge in (self.starts, self.ends))
        return stretch(region, starts, ends, self.name).repeat_interleave(self.grid**2)

    def blank(self, raw: Frames, kept: Float[Tensor, " n"]) -> Frames:
        """Hold the nearest kept frame; within a frame, paint over what is not kept."""
        kept = kept.reshape(-1, self.grid, self.grid)
        whole = kept.flatten(1).any(1).nonzero()[:, 0]  # steps of time with something kept
        if len(whole) == 0:
            return torch.zeros_like(raw)
        first, last = int(self.starts[whole[0]]), int(self.ends[whole[-1]]) - 1
        held = raw[:, torch.arange(self.frames).clamp(first, last)]
        seen = kept[whole].amax(0)
        return held if seen.all() else flatten_outside(held, seen)

    def read(self, path: Path) -> tuple[Frames, list[str]]:
        """Read the first seconds of a clip, resized, one frame for each time."""
        size = (self.size, self.size)
        clip = media.read_video(path, self.times.numpy(), size, self.reader, self.seconds)
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


class Video(Clips):
    """Clips of `frames` pictures over `seconds`, of the size of the modality of stills."""

    still: Modality  # whose codec every frame goes through

    def __init__(
        self,
        still: str = "image",  # the modality whose codec every frame goes through
        size: int = 64,  # pixels a side
        grid: int = 4,  # latent tokens a side of a still
        frames: int = 16,
        seconds: float = 2.0,
        span: int = 4,  # frames of a token
        channels: int = 32,  # of a still's latents and of the clip's
        width: int = 192,
        depth: int = 2,  # blocks on either side
        foreground: float = 4.0,  # loss weight of the places where something is or moves
        **common,  # reader: see Clips; shared, noise_mean: see Modality
    ):
        """Build the codec of motion; latents are frames / span times grid^2 tokens.

        Raises UsageError for frames that are not made of whole tokens.
        """
        if frames % span:
            raise UsageError(
                f"frames={frames} is no multiple of span={span}, the frames of a token; choose "
                "one that is."
            )
        super().__init__(size, grid, [span] * (frames // span), seconds, channels, **common)
        self.still_name, self.span, self.foreground = still, span, foreground
        self.codec = MotionCodec(span * channels, self.tokens, channels, width, depth)

    def attach(self, modalities: Mapping[str, Modality]) -> None:
        """Take the modality of stills to work with; its weights stay its own.

        Raises UsageError where there is none, or one whose stills are not the frames of this one.
        """
        if self.still_name not in modalities:
            raise UsageError(
                f"video needs the modality {self.still_name!r}, whose codec it shares; "
                f"add it to modality=[...]."
            )
        still = modalities[self.still_name]
        made = (still.shape, still.tokens, still.channels)
        if made != ((3, self.size, self.size), self.grid**2, self.channels):
            raise UsageError(
                f"{self.still_name} makes {still.tokens} tokens of {still.channels} channels from "
                f"a still of {still.shape}, {self.name} expects {self.grid}x{self.grid} of "
                f"{self.channels} from {self.size}x{self.size} pixels; set size, grid and "
                f"channels of modalities.{self.name} to what fits."
            )
        object.__setattr__(self, "still", still)  # not a submodule

    @torch.no_grad()
    def front(self, raw: Frames) -> Float[Tensor, "b f p c"]:
        """Return the latents of every frame."""
        z = self.still.encode(rearrange(raw, "b f c h w -> (b f) c h w"))
        return rearrange(z, "(b f) p c -> b f p c", f=self.frames)

    def features(self, raw: Frames) -> Float[Tensor, "b n c"]:
        """Return the latents before normalization."""
        return self.codec.encode(self._fold(self.front(raw)))

    def restore(self, features: Float[Tensor, "b n c"]) -> Frames:
        """Return pixels in [0, 1]."""
        z = self._unfold(self.codec.decode(features))
        frames = self.still.decode(rearrange(z, "b f p c -> (b f) p c"))
        return rearrange(frames, "(b f) c h w -> b f c h w", f=self.frames)

    def codec_loss(
        self, front: Float[Tensor, "b f p c"], generator: torch.Generator | None
    ) -> Float[Tensor, ""]:
        """Return the error of the frames' latents, heavier where they differ from the usual."""
        z = self.codec.encode(self._fold(front))
        made = self._unfold(self.codec.decode(perturb(z, generator)))
        usual = front.flatten(1, 2).median(1).values[:, None, None]
        stands_out = ((front - usual).square().mean(-1) > 0.1).float()
        weight = 1 + self.foreground * stands_out
        whole = share_of(generator).mean(weight.mean())
        return ((made - front).square().mean(-1) * weight).mean() / whole

    def _fold(self, stills: Float[Tensor, "b f p c"]) -> Float[Tensor, "b n sc"]:
        return rearrange(stills, "b (t s) p c -> b (t p) (s c)", s=self.span)

    def _unfold(self, tokens: Float[Tensor, "b n sc"]) -> Float[Tensor, "b f p c"]:
        return rearrange(tokens, "b (t p) (s c) -> b (t s) p c", p=self.grid**2, s=self.span)
