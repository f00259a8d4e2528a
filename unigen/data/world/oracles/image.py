"""Reads a picture: background, then up to two blobs with their color, shape, size and place."""

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unigen.data.world import vocabulary as v
from unigen.data.world.oracles.reading import Reading, reading
from unigen.data.world.render import _REACH, _coverage, _textures

_LARGEST_SIDE = 96  # larger pictures are averaged down to this many pixels
_SMALLEST_AREA = 0.0045  # of a blob that counts as an object: a third of the smallest star
_NEARER = 1.5  # how a squared distance to the background counts: 45 % of the way to a color
_PALEST = 0.6  # of the way from the background to a color: less is a stain, not an object
_INK_SHARE = 0.004  # of the picture: how many of an object's clearest pixels tell its color


@dataclass(frozen=True)
class Objects:
    """What stands in a picture; slots are sorted from left to right. Lengths in sides."""

    found: Bool[Tensor, "b 2"]
    background: Int[Tensor, " b"]
    shape: Int[Tensor, "b 2"]
    color: Int[Tensor, "b 2"]
    ink: Float[Tensor, "b 2 3"]  # the color as it was measured
    center: Float[Tensor, "b 2 2"]  # x, y
    radius: Float[Tensor, "b 2"]

    def codes(self) -> dict[str, Tensor]:
        """Return the attributes of a reading, -1 where no object was found."""
        size = nearest(self.radius.log()[..., None], torch.tensor(v.RADII).log()[:, None])
        grid = torch.tensor(v.GRID)[:, None]
        column, row = (nearest(self.center[..., i, None], grid) for i in range(2))
        told = {"shape": self.shape, "color": self.color, "size": size}
        told["position"] = 3 * row + column
        told = {name: torch.where(self.found, code, -1) for name, code in told.items()}
        count = self.found.sum(1)
        return told | {"background": self.background, "count": torch.where(count > 0, count, -1)}


def read_image(raw: Float[Tensor, "b 3 h w"]) -> Reading:
    """Read pictures with values in [0, 1]."""
    objects = find(square(raw))
    return reading("image", objects.found.any(1), **objects.codes())


def square(frames: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 s s"]:
    """Return float pictures in [0, 1], square and at most `_LARGEST_SIDE` pixels a side."""
    height, width = frames.shape[-2:]
    side = min(max(height, width), _LARGEST_SIDE)
    frames = frames.float().clamp(0, 1)
    if frames.isnan().any():
        frames = frames.nan_to_num()
    return frames if height == width == side else F.interpolate(frames, (side, side), mode="area")


def nearest(values: Float[Tensor, "*n c"], choices: Float[Tensor, "k c"]) -> Int[Tensor, "*n"]:
    """Return which choice is nearest to each value."""
    return (values[..., None, :] - choices.to(values)).square().sum(-1).argmin(-1)


def palette(rgb: tuple, like: Tensor) -> Float[Tensor, "k 3"]:
    """Return colors of the vocabulary in [0, 1]."""
    return torch.tensor(rgb, device=like.device) / 255


def flat_color(frames: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n 3"]:
    """Return the color of the background: the median pixel, for objects cover less than half."""
    return frames[..., ::2, ::2].flatten(2).median(-1).values


def find(frames: Float[Tensor, "b 3 s s"]) -> Objects:
    """Find up to two objects in square pictures."""
    b, _, _, side = frames.shape
    background = flat_color(frames)
    offset = frames - background[..., None, None]
    blobs, found = _blobs(_stands_out(frames, offset), offset.square().sum(1))
    # The color: the median of each blob's pixels that differ most from the background.
    contrast = (offset.square().sum(1)[:, None] * blobs).flatten(2)  # b 2 pixels
    clearest = contrast.topk(max(4, round(_INK_SHARE * side**2))).indices
    pixels = frames.flatten(2)[:, None].expand(-1, 2, -1, -1)
    ink = pixels.gather(3, clearest[:, :, None].expand(-1, -1, 3, -1)).median(-1).values  # b 2 3
    # Coverage of the pixels around each blob; the shape is the best of six templates that have
    # the same area and centroid.
    wide = F.max_pool2d(blobs.float(), 5, 1, 2) > 0
    ground = blobs | (wide & ~wide.flip(1))
    step = ink - background[:, None]
    length = step.square().sum(-1) + 1e-6
    cover = torch.einsum("bchw,bkc->bkhw", offset, step) / length[..., None, None]
    cover = cover.clamp(-0.2, 1.2) * ground
    mass = cover.sum((2, 3)).clamp(min=1)
    # A codec that blurs colors more than brightness keeps their sum.
    total = torch.einsum("bchw,bkhw->bkc", offset, ground.float())
    ink = background[:, None] + total / mass[..., None]
    color, found = _color(ink, background, found)
    pixel = (torch.arange(side, device=frames.device) + 0.5) / side
    center = torch.stack([(cover.sum(2) * pixel).sum(-1), (cover.sum(3) * pixel).sum(-1)], -1)
    center = center / mass[..., None]
    shape, radius = torch.zeros_like(found, dtype=torch.long), torch.ones_like(mass)
    if found.any():
        shape[found], radius[found] = _shape(cover[found], mass[found] / side**2, center[found])
    order = torch.where(found, center[..., 0], torch.inf).argsort(dim=1, stable=True)
    values = (found, shape, color, ink, center, radius)
    found, shape, color, ink, center, radius = (
        x.gather(1, order.reshape(b, 2, *[1] * (x.ndim - 2)).expand_as(x)) for x in values
    )
    code = nearest(background, palette(v.BACKGROUND_RGB, background))
    return Objects(found, code, shape, color, ink, center, radius)


def _color(ink: Tensor, background: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nearest colors, and which objects to keep: a second one must not be pale."""
    colors = palette(v.COLOR_RGB, ink)
    code = nearest(ink, colors)
    full = colors[code] - background[:, None]
    strength = ((ink - background[:, None]) * full).sum(-1) / full.square().sum(-1)
    strong = strength > _PALEST
    strong[:, 0] = True
    return code, found & strong


def _stands_out(frames: Tensor, offset: Tensor) -> Bool[Tensor, "b s s"]:
    """Tell which pixels are nearer to some object's color than (about) to the background."""
    ink = palette(v.COLOR_RGB, frames)
    to_ink = torch.einsum("bchw,kc->bkhw", frames, -2 * ink) + ink.square().sum(1)[:, None, None]
    return to_ink.amin(1) + frames.square().sum(1) < _NEARER * offset.square().sum(1)


def _blobs(
    mask: Bool[Tensor, "b s s"], contrast: Float[Tensor, "b s s"]
) -> tuple[Bool[Tensor, "b 2 s s"], Bool[Tensor, "b 2"]]:
    """Return the two connected components of most contrast, and whether each is large enough."""
    b, side, _ = mask.shape
    label = torch.arange(1, side**2 + 1, dtype=torch.int16, device=mask.device)
    label = label.reshape(side, side) * mask
    while True:
        before = label
        for _ in range(8):
            for axis in (1, 2):
                a, z = label.narrow(axis, 0, side - 1), label.narrow(axis, 1, side - 1)
                spread = label.clone()
                spread.narrow(axis, 1, side - 1).copy_(torch.maximum(a, z))
                first = spread.narrow(axis, 0, side - 1)
                first.copy_(torch.maximum(first, z))
                label = spread * mask
        if torch.equal(before, label):
            break
    flat = label.flatten(1).long()
    total = torch.zeros(b, side**2 + 1, device=mask.device)
    areas = total.scatter_add(1, flat, mask.flatten(1).float())
    contrasts = total.scatter_add(1, flat, contrast.flatten(1))
    large = areas >= _SMALLEST_AREA * side**2
    names = (contrasts * large).topk(2).indices
    found = large.gather(1, names)
    return (label[:, None] == names[..., None, None]) & found[..., None, None], found


@lru_cache
def unit_areas(device: str) -> Float[Tensor, " shapes"]:
    """Return the area of each shape of radius 1."""
    return (_textures(device) < 0).double().mean(1) * (2 * _REACH) ** 2


def _shape(cover: Tensor, area: Tensor, center: Tensor) -> tuple[Tensor, Tensor]:
    """Return the shape and radius of objects, [n], from their coverage [n, s, s]."""
    n, side, _ = cover.shape
    kinds = len(v.SHAPES)
    radius = (area[:, None].double() / unit_areas(str(cover.device))).sqrt()  # n kinds
    kind = torch.arange(kinds, device=cover.device).repeat(n)
    places = center.double().repeat_interleave(kinds, 0)[:, None]
    drawn = _coverage(kind, places, radius.reshape(-1, 1), side)[:, 0].unflatten(0, (n, kinds))
    soft = F.avg_pool2d(drawn, 3, 1, 1, count_include_pad=False)  # as a codec may blur it
    seen = cover.flatten(1)[..., None]
    errors = [d.square().sum((2, 3)) - 2 * (d.flatten(2) @ seen)[..., 0] for d in (drawn, soft)]
    best = torch.minimum(*errors).argmin(1)
    return best, radius.gather(1, best[:, None])[:, 0].float()
