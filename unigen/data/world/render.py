"""Pictures of scenes: anti-aliased shapes on a flat background.

Coverage is read from one signed-distance texture per shape. A texture's row depends on the
pixel's row alone and its column on the pixel's column alone, so that the only work per pixel is
one look-up and one blend.
"""

import math
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from unigen.data.world import vocabulary as v
from unigen.data.world.scenes import Scenes, paths

_TEXELS, _REACH = 512, 1.6  # texture side, half its width in radii


def _polygon(points: list[tuple[float, float]], x: Tensor, y: Tensor) -> Tensor:
    """Return the signed distance to a polygon, negative inside."""
    distance, inside = torch.full_like(x, torch.inf), torch.zeros_like(x, dtype=torch.bool)
    for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1], strict=True):
        ex, ey = bx - ax, by - ay
        along = (((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey)).clamp(0, 1)
        distance = torch.minimum(distance, torch.hypot(x - ax - along * ex, y - ay - along * ey))
        if ay != by:
            inside ^= ((ay > y) != (by > y)) & (x < ax + (y - ay) * ex / ey)
    return torch.where(inside, -distance, distance)


def _spokes(radii: list[float], first: float = -math.pi / 2) -> list[tuple[float, float]]:
    step = 2 * math.pi / len(radii)
    return [(r * math.cos(first + i * step), r * math.sin(first + i * step))
            for i, r in enumerate(radii)]  # fmt: skip


@lru_cache
def _textures(device: str) -> Float[Tensor, "shapes texels"]:
    """Return one flattened signed-distance texture per shape, in radii."""
    axis = (torch.arange(_TEXELS, dtype=torch.float64) + 0.5) / _TEXELS * 2 * _REACH - _REACH
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    radius, arm = torch.hypot(x, y), 0.32
    cross = [(-arm, -1.0), (arm, -1.0), (arm, -arm), (1.0, -arm), (1.0, arm), (arm, arm),
             (arm, 1.0), (-arm, 1.0), (-arm, arm), (-1.0, arm), (-1.0, -arm),
             (-arm, -arm)]  # fmt: skip
    distance = {
        "circle": radius - 0.95,
        "square": _polygon([(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)], x, y),
        "triangle": _polygon(_spokes([v.EXTENT] * 3), x, y),
        "star": _polygon(_spokes([v.EXTENT, 0.48] * 5), x, y),
        "cross": _polygon(cross, x, y),
        "ring": (radius - 0.775).abs() - 0.225,
    }
    return torch.stack([distance[s].flatten() for s in v.SHAPES]).float().to(device)


def draw_frames(
    scenes: Scenes, times: Float[Tensor, "*b f"], size: int = 64, shown: float = 0.125
) -> Float[Tensor, "b f 3 h w"]:
    """Draw the scenes in `size` x `size` pixels, values in [0, 1].

    times: seconds, the same for all scenes or [b, f]. shown: seconds that a frame stands for; the
    one nearest to a flash is lit.
    """
    device = scenes.count.device
    background, color = (
        torch.tensor(rgb, device=device) / 255 for rgb in (v.BACKGROUND_RGB, v.COLOR_RGB)
    )
    times = times.expand(len(scenes), -1)
    lit = ((times - scenes.event[:, None]).abs() <= shown / 2) & ~scenes.bounces[:, None]
    shade = background[scenes.background][:, None]  # b 1 3
    shade = torch.where(lit[..., None], shade + (1 - shade) * v.FLASH, shade)  # b f 3
    frames = shade[..., None, None].expand(-1, -1, -1, size, size).contiguous()
    centers, radii = paths(scenes, times)
    for i in range(2):
        rows = scenes.present[:, i].nonzero()[:, 0]
        if len(rows) == 0:
            continue
        cover = _coverage(scenes.shape[rows, i], centers[rows, i], radii[rows, i], size)
        ink = color[scenes.color[rows, i]][:, None, :, None, None]
        if len(rows) == len(scenes):
            frames.lerp_(ink, cover[:, :, None])
        else:
            frames[rows] = frames[rows].lerp_(ink, cover[:, :, None])
    return frames


def _coverage(shape: Tensor, center: Tensor, radius: Tensor, size: int) -> Tensor:
    """Return how much of each pixel one object covers, [b, f, h, w]."""
    pixel = (torch.arange(size, device=shape.device, dtype=torch.float64) + 0.5) / size
    offset = (pixel - center[..., None]) / radius[..., None, None]  # b f 2 side
    texel = ((offset / _REACH + 1) * (_TEXELS / 2)).floor().clamp(0, _TEXELS - 1).int()
    place = texel[:, :, 1, :, None] * _TEXELS + texel[:, :, 0, None, :]
    place += (shape.int() * _TEXELS**2)[:, None, None, None]
    distance = _textures(str(shape.device)).flatten()[place]
    return (0.5 - distance * (radius.float() * size)[..., None, None]).clamp_(0, 1)
