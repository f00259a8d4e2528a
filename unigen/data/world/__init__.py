"""The world: procedural scenes as image, video, audio and caption, a function of (seed, index)."""

import torch
from torch import Tensor

from unigen.data.world import vocabulary
from unigen.data.world.captions import describe
from unigen.data.world.render import draw_frames
from unigen.data.world.scenes import SPLITS, Scenes, sample_scenes, uniforms
from unigen.data.world.sound import sing
from unigen.errors import UsageError

__all__ = ["Scenes", "World", "vocabulary"]


class World:
    """An endless data set of scenes with one or two sounding, moving objects."""

    parts = ("image", "text", "video", "audio")

    def __init__(
        self,
        seed: int = 0,  # scenes of different seeds are different
        split: str = "train",  # train | held_out | all
        two: float = 0.4,  # share of scenes with two objects
        size: int = 64,  # pixels a side
        frames: int = 16,  # video frames in the 2 s
        rate: int = 16_000,  # audio samples a second
        full: bool = False,  # captions that say everything
        anytime: bool = False,  # images of any moment, a quarter of the event: for image codecs
        novel: float = 0.0,  # share of objects with a color, and with a motion, not seen otherwise
        device: str = "cpu",
    ):
        """Describe the world; nothing is drawn before it is asked for."""
        if split not in SPLITS:
            raise UsageError(f"data.split={split} is unknown; choose one of {', '.join(SPLITS)}.")
        self.seed, self.split, self.two, self.full = seed, split, two, full
        self.anytime, self.novel = anytime, novel
        self.size, self.frames, self.rate, self.device = size, frames, rate, device

    def scenes(self, index: Tensor) -> Scenes:
        """Return the attributes of some scenes."""
        return sample_scenes(self.seed, index.to(self.device), self.split, self.two, self.novel)

    def batch(self, index: Tensor, parts: tuple[str, ...] | list[str] = parts) -> dict:
        """Return raw media of some scenes by part name.

        image [b, 3, h, w] and video [b, f, 3, h, w] in [0, 1], audio [b, samples], text a list.
        """
        index = index.to(self.device)
        scenes = self.scenes(index)
        make = {
            "image": lambda: self._frames(scenes, self._moments(index, scenes))[:, 0],
            "video": lambda: self._frames(scenes, self._times()),
            "audio": lambda: sing(self.seed, index, scenes, self.rate),
            "text": lambda: describe(self.seed, index, scenes, self.full),
        }
        return {part: make[part]() for part in parts}

    def order(self, seed: int, step: int, batch: int) -> Tensor:
        """Return the scenes of a training step: always new ones."""
        return torch.arange(step * batch, (step + 1) * batch)

    def _frames(self, scenes: Scenes, times: Tensor) -> Tensor:
        return draw_frames(scenes, times, self.size, vocabulary.SECONDS / self.frames)

    def _moments(self, index: Tensor, scenes: Scenes) -> Tensor:
        """Return when each scene's picture is taken, [b, 1] in seconds: at 0, or at any frame."""
        if not self.anytime:
            return self._times()[:1]
        draw = uniforms(self.seed, index, -4, 2)
        nearest = (scenes.event / vocabulary.SECONDS * self.frames).round()
        frame = torch.where(draw[:, 0] < 0.25, nearest, (draw[:, 1] * self.frames).floor())
        return frame[:, None] * (vocabulary.SECONDS / self.frames)

    def _times(self) -> Tensor:
        return torch.arange(self.frames, device=self.device) * (vocabulary.SECONDS / self.frames)
