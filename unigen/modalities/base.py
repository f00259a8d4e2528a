"""What a kind of media must be able to do: the only abstract class of the package."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unigen.errors import UsageError
from unigen.layers import Block, norm
from unigen.lens import Lens
from unigen.tokens import noise

Raw = Any  # a batch of raw data: a tensor with batch first, or a list


class Modality(nn.Module, ABC):
    """One kind of data: read, write, encode, decode, positions, embed.

    `name` is the key of its parts; `tokens` x `channels` is the shape of its latents; `lens` is
    how the denoiser meets them, `shared` how it meets the point of the shared space.
    """

    name: str
    suffix: str  # of the files it writes
    lessons: int = 0  # raw training samples that `prepare` wants to see
    plain: bool = False  # its files are plain text, told by their suffix alone
    shape: tuple[int, ...] | None = None  # of one raw sample, where they are tensors
    ordered: bool = False  # tokens are settled one after another, as words are, not all together
    track: str | None = None  # the modality that its files can carry along, as a video its sound
    mean: Tensor  # of the latents before they are normalized, by channel
    std: Tensor

    def __init__(self, tokens: int, channels: int, shared: int = 32, noise_mean: float = 0.5):
        """Make what every modality has: latent statistics and the tower into the shared space.

        shared: width of the shared space. noise_mean: center of the training noise levels, see
        `flow.RectifiedFlow.sample_t`; redundant latents want more noise.
        """
        super().__init__()
        self.tokens, self.channels, self.noise_mean = tokens, channels, noise_mean
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.tower = Tower(tokens, channels, shared)
        self.lens, self.shared = Lens(channels), Lens(shared)

    @abstractmethod
    def read(self, path: Path) -> tuple[Raw, list[str]]:
        """Read one file: a raw batch of one, and notes on what was done to it."""

    @abstractmethod
    def write(
        self, raw: Raw, path: Path, recipe: dict, track: tuple["Modality", Raw] | None = None
    ) -> None:
        """Write a raw batch of one, with its track if it can carry one, and its recipe."""

    @abstractmethod
    def show(self, raw: Raw) -> Any:
        """Return a raw batch of one in the form that people use in Python."""

    @abstractmethod
    def features(self, raw: Raw) -> Float[Tensor, "b n c"]:
        """Return the codec's latents before they are normalized."""

    @abstractmethod
    def restore(self, features: Float[Tensor, "b n c"]) -> Raw:
        """Return raw data from latents that are no longer normalized."""

    @abstractmethod
    def positions(self) -> Float[Tensor, "n 3"]:
        """Return (second, row, column) of every token; rows and columns run from 0 to 1."""

    def prior(
        self, part: str, seeds: Sequence[int], shape: tuple[int, int]
    ) -> Float[Tensor, "b n c"]:
        """Return the noise from which one of its parts is made, of `shape` for every seed."""
        return noise(part, seeds, shape)

    def codec_loss(self, front: Any, generator: torch.Generator | None) -> Float[Tensor, ""]:
        """Return the reconstruction loss of the codec on what `front` made of a raw batch.

        Raises UsageError where the codec is taken as it is.
        """
        raise UsageError(
            f"the codec of {self.name} has nothing to learn; train another modality's."
        )

    def front(self, raw: Raw) -> Any:
        """Return raw data after the part of the codec that has nothing to learn."""
        return raw

    def log(self, writer: Any, tag: str, raw: Raw, step: int) -> None:
        """Show a raw batch of one, if it can, with a writer's add_image, add_audio or add_text."""

    def take(self, value: Any) -> tuple[Raw, list[str]]:
        """Return raw media, and notes, from what a user may give: a path or raw media.

        Raises UsageError for raw media that are no finite float tensor of this modality's shape.
        """
        if isinstance(value, str | Path):
            return self.read(Path(value))
        if self.shape is None:
            return value, []
        came = f"of type {type(value).__name__}"
        if isinstance(value, Tensor):
            came = f"{value.dtype} of shape {list(value.shape)}"
            if value.is_floating_point() and value.shape[1:] == self.shape:
                if value.isfinite().all():
                    return value, []
                came = "a tensor with values that are not finite"
        wanted = ", ".join(map(str, ("b", *self.shape)))
        raise UsageError(
            f"given.{self.name} is {came}; give a path, or a float tensor of shape [{wanted}]."
        )

    def join(self, raws: list[Raw]) -> Raw:
        """Return one raw batch from several."""
        return torch.cat(raws)

    def blank(self, raw: Raw, kept: Float[Tensor, " n"]) -> Raw:
        """Return raw media in which what is not kept tells nothing."""
        return raw

    def kept(self, region: str) -> Float[Tensor, " n"]:
        """Return 1 for the tokens inside a region that the user wrote, 0 elsewhere."""
        raise UsageError(f"keep.{self.name}={region} is not possible: {self.name} has no regions.")

    def adopt(self, spec: Mapping[str, Any]) -> None:
        """Take over what another model's spec says of this modality beside its weights."""

    def attach(self, modalities: Mapping[str, "Modality"]) -> None:
        """Meet the model's other modalities, to share what one of them owns."""

    def prepare(self, raw: Raw) -> None:
        """Learn from raw training data what no gradient teaches (a word list, say)."""

    def check(self, raw: Raw) -> list[str]:
        """Return remarks on raw input that the modality can only take in part."""
        return []

    def encode(self, raw: Raw) -> Float[Tensor, "b n c"]:
        """Return latents with zero mean and unit variance per channel."""
        return (self.features(raw) - self.mean) / self.std

    def decode(self, z: Float[Tensor, "b n c"]) -> Raw:
        """Return raw data."""
        return self.restore(z * self.std + self.mean)

    def embed(self, z: Float[Tensor, "b n c"]) -> Float[Tensor, "b e"]:
        """Return the point of the shared space, with squared norm e (unit variance)."""
        return self.tower(z)

    def point(self, raw: Raw, z: Float[Tensor, "b n c"]) -> Float[Tensor, "b e"]:
        """Return the point of raw data whose latents are z; here the latents tell it."""
        return self.embed(z)

    @property
    def told(self) -> bool:
        """Whether latents tell the point: no longer where a subclass asks the raw data for it."""
        return type(self).point is Modality.point

    @torch.no_grad()
    def calibrate(self, raw: Raw) -> None:
        """Measure the latents' mean and standard deviation per channel."""
        features = self.features(raw)
        self.mean.copy_(features.mean((0, 1)))
        self.std.copy_(features.std((0, 1)).clamp_min(1e-3))


class Tower(nn.Module):
    """From latents to the shared space: a small transformer and a mean."""

    def __init__(self, tokens: int, channels: int, shared: int, width: int = 96, depth: int = 2):
        """Build the tower."""
        super().__init__()
        self.embed = nn.Linear(channels, width)
        self.place = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.blocks = nn.Sequential(*(Block(width, 3) for _ in range(depth)))
        self.out = nn.Sequential(norm(width), nn.Linear(width, shared))

    def forward(self, z: Float[Tensor, "b n c"]) -> Float[Tensor, "b e"]:
        """Return one vector a sample on the sphere of radius sqrt(e)."""
        e = self.out(self.blocks(self.embed(z) + self.place).mean(1)).float()
        return e / e.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-6)
