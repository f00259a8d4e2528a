"""Reads a depth map back: blobs, their nearness, place and outline. It measures, nothing learns.

Importing it makes depth one more kind of medium for the package's oracles and metrics.
"""

import torch
import torch.nn.functional as F
from depth.world import NEARNESS, depth_maps
from jaxtyping import Float
from torch import Tensor

from unigen.data.world import Scenes, vocabulary
from unigen.data.world.oracles import ORACLES, TELLS, Reading
from unigen.data.world.oracles.reading import reading

_EDGE = 0.2  # nearness between the background and the farthest object
_SMALLEST = 0.003  # share of the map that an object covers at least
_WINDOW, _REACH = 24, 1.2  # samples of an outline, and how far it reaches, in roots of its area


def read_depth(raw: Float[Tensor, "b h w"]) -> Reading:
    """Return count, and of the objects from left to right shape, size and position."""
    blobs = _blobs(raw > _EDGE)  # b 2 h w
    area = blobs.flatten(2).mean(2)
    found = area > _SMALLEST
    inside = (raw[:, None] * blobs).flatten(2)
    most = (area * raw[0].numel() / 4).long().clamp_min(1)  # the median of the nearer half
    level = inside.sort(2, descending=True).values.gather(2, most[..., None])
    size = (level - torch.tensor(NEARNESS)).abs().argmin(-1)
    cover = (inside / level.clamp_min(_EDGE)).clamp(0, 1).unflatten(2, raw.shape[1:])
    pixel = (torch.arange(raw.shape[1]) + 0.5) / raw.shape[1]
    mass = cover.sum((2, 3)).clamp_min(1)
    x, y = (cover.sum(2) * pixel).sum(2) / mass, (cover.sum(3) * pixel).sum(2) / mass
    grid = torch.tensor(vocabulary.GRID)
    column, row = ((place[..., None] - grid).abs().argmin(-1) for place in (x, y))
    codes = {"shape": _shape(cover, x, y, mass / raw[0].numel()), "size": size,
             "position": 3 * row + column}  # fmt: skip
    order = torch.where(found, x, torch.inf).argsort(1)
    codes = {k: torch.where(found, code, -1).gather(1, order) for k, code in codes.items()}
    count = found.sum(1)
    return reading("depth", count > 0, count=torch.where(count > 0, count, -1), **codes)


def _blobs(mask: Tensor) -> Float[Tensor, "b 2 h w"]:
    """Return the two largest connected regions."""
    b, side, _ = mask.shape
    label = torch.arange(1.0, side**2 + 1).reshape(side, side) * mask
    while True:
        spread = F.max_pool2d(label[:, None], 3, 1, 1)[:, 0] * mask
        if torch.equal(spread, label):
            break
        label = spread
    areas = torch.zeros(b, side**2 + 1).scatter_add(1, label.flatten(1).long(),
                                                    mask.flatten(1).float())  # fmt: skip
    names = areas.topk(2).indices
    return (label[:, None] == names[..., None, None]).float() * mask[:, None]


def _shape(cover: Tensor, x: Tensor, y: Tensor, area: Tensor) -> Tensor:
    """Return the shape whose outline is nearest once all have the same place and area."""
    seen = _outlines(cover.flatten(0, 1), x.flatten(), y.flatten(), area.flatten())
    return (seen[:, None] - _templates()).square().sum(2).argmin(1).reshape(x.shape)


def _outlines(cover: Tensor, x: Tensor, y: Tensor, area: Tensor) -> Float[Tensor, "n k"]:
    """Sample maps [n, h, w] around their objects."""
    axis = torch.linspace(-1, 1, _WINDOW) * _REACH
    reach = area.clamp_min(1e-4).sqrt()[:, None]
    columns, rows = x[:, None] + axis * reach, y[:, None] + axis * reach  # n k
    places = torch.stack([columns[:, None].expand(-1, _WINDOW, -1),
                          rows[:, :, None].expand(-1, -1, _WINDOW)], -1)  # fmt: skip
    return F.grid_sample(cover[:, None], 2 * places - 1, align_corners=False).flatten(1)


def _templates() -> Float[Tensor, "k n"]:
    """Return the outline of every shape."""
    kinds = len(vocabulary.SHAPES)
    one, two = torch.ones(kinds).long(), torch.ones(kinds, 2).long()
    shape = torch.arange(kinds)[:, None].expand(-1, 2)
    scenes = Scenes(one, 0 * one, one.double(), shape, 0 * two, 2 * two, 0 * two, 4 * two,
                    torch.zeros(kinds, 2, 2).double())  # fmt: skip
    maps = depth_maps(scenes, 64) / NEARNESS[2]
    half = torch.full((kinds,), 0.5)
    return _outlines(maps, half, half, maps.mean((1, 2)))


TELLS["depth"] = frozenset({"count", "shape", "size", "position"})
ORACLES["depth"] = read_depth
