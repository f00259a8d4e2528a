"""The package's world with one more part: the depth map of the still picture."""

from dataclasses import replace

import torch
from torch import Tensor

from unigen.data.world import World, vocabulary
from unigen.data.world.render import draw_frames
from unigen.data.world.scenes import Scenes

NEARNESS = (0.4, 0.65, 0.9)  # of small, medium and large objects; what is behind them has 0


def depth_maps(scenes: Scenes, side: int) -> Tensor:
    """Return how near every pixel is, [b, side, side] in [0, 1]: large objects stand in front."""
    white = torch.full_like(scenes.color, vocabulary.COLORS.index("white"))
    black = torch.full_like(scenes.background, vocabulary.BACKGROUNDS.index("black"))
    alone = {"count": torch.ones_like(scenes.count), "color": white, "background": black}
    near = torch.tensor(NEARNESS)
    result = torch.zeros(len(scenes), side, side)
    for i in range(2):
        slot = {name: getattr(scenes, name).roll(-i, 1)
                for name in ("shape", "size", "motion", "position", "jitter")}  # fmt: skip
        drawn = draw_frames(replace(scenes, **alone, **slot), torch.zeros(1), side)[:, 0, 0]
        low, high = (rgb[0] / 255 for rgb in (vocabulary.BACKGROUND_RGB[0], (250,)))
        cover = (drawn - low) / (high - low) * scenes.present[:, i, None, None]
        result = torch.maximum(result, cover * near[scenes.size[:, i], None, None])
    return result


class DepthWorld(World):
    """Depth beside other parts of the same scenes."""

    def __init__(self, parts: tuple[str, ...] | list[str] = (*World.parts, "depth"), **options):
        """parts: what a run is to learn from. options: see World."""
        super().__init__(**options)
        self.parts = tuple(parts)

    def batch(self, index: Tensor, parts: tuple[str, ...] | list[str] = ("depth",)) -> dict:
        """Return raw media of some scenes by part name; depth is [b, h, w] in [0, 1]."""
        made = super().batch(index, [part for part in parts if part != "depth"])
        if "depth" in parts:
            made["depth"] = depth_maps(self.scenes(index), self.size)
        return {part: made[part] for part in parts}
