"""Reads a video: its first frame as a picture, then which motion explains the others best."""

from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unigen.data.world import vocabulary as v
from unigen.data.world.oracles.image import Objects, find, flat_color, square, unit_areas
from unigen.data.world.oracles.reading import Reading, reading
from unigen.data.world.render import _REACH, _TEXELS, _textures
from unigen.data.world.scenes import Scenes, paths

_POINTS = 64  # where each shape is compared with the frames
_BOUNCING = v.MOTIONS.index("bouncing")
_COARSE, _FINE = 0.1, 0.01  # seconds between the bounce times that are tried
_LEAST_FLASH = 0.25  # of the way from the background to white


def read_video(raw: Float[Tensor, "b f 3 h w"]) -> Reading:
    """Read videos with values in [0, 1] whose frames span the world's seconds evenly."""
    b, f = raw.shape[:2]
    frames = square(raw.flatten(0, 1)).unflatten(0, (b, f))
    times = torch.arange(f, device=raw.device) * (v.SECONDS / f)
    objects = find(frames[:, 0])
    ground = flat_color(frames.flatten(0, 1)).unflatten(0, (b, f))  # b f 3
    motion, bounce = _follow(frames, ground, objects, times)
    event = torch.where(bounce.isnan(), _flash(ground, times), bounce)
    return reading("video", objects.found.any(1), motion=motion, event=event, **objects.codes())


def _flash(ground: Float[Tensor, "b f 3"], times: Tensor) -> Float[Tensor, " b"]:
    """Return when the background is lit, nan where it never is."""
    usual = ground.median(1).values[:, None]
    way = 1 - usual
    lit = ((ground - usual) * way).sum(-1) / way.square().sum(-1)
    strength, frame = lit.max(1)
    return torch.where(strength > _LEAST_FLASH, times[frame].double(), torch.nan)


def _follow(
    frames: Tensor, ground: Tensor, objects: Objects, times: Tensor
) -> tuple[Int[Tensor, "b 2"], Float[Tensor, " b"]]:
    """Return each object's motion, and the time of the bounce (nan where nothing bounces)."""
    row, slot = objects.found.nonzero(as_tuple=True)
    motion = torch.full(objects.found.shape, -1, device=frames.device)
    bounce = torch.full((len(frames),), torch.nan, dtype=torch.float64, device=frames.device)
    if len(row) == 0:
        return motion, bounce
    cover = _cover(frames, ground, objects.ink, row, slot)
    lo, hi = v.EVENT_RANGE
    events = torch.arange(lo, hi + _COARSE / 2, _COARSE, dtype=torch.float64, device=row.device)
    others = torch.tensor([m for m in range(len(v.MOTIONS)) if m != _BOUNCING], device=row.device)
    tried = torch.cat([others, torch.full((len(events),), _BOUNCING, device=row.device)])
    when = torch.cat([torch.ones(len(others), device=row.device), events])
    n = len(row)
    score = _score(cover, objects, row, slot, tried.expand(n, -1), when.expand(n, -1), times)
    motion[row, slot] = tried[score.argmax(1)]
    # The bounce time: tried more finely, all bouncing objects of a scene together.
    hops = (motion[row, slot] == _BOUNCING).nonzero()[:, 0]
    if len(hops):
        rows = row[hops]
        total = torch.zeros(len(frames), len(events), device=row.device, dtype=score.dtype)
        total.index_add_(0, rows, score[hops, len(others) :])
        near = torch.arange(-0.06, 0.0601, _FINE, dtype=torch.float64, device=row.device)
        fine = (events[total.argmax(1)][:, None] + near).clamp(lo, hi)  # b tries
        kind = torch.full((len(hops), len(near)), _BOUNCING, device=row.device)
        finer = _score(cover[hops], objects, rows, slot[hops], kind, fine[rows], times)
        total = torch.zeros(len(frames), len(near), device=row.device, dtype=score.dtype)
        total.index_add_(0, rows, finer)
        bounce[rows] = fine.gather(1, total.argmax(1)[:, None])[rows, 0]
    return motion, bounce


def _cover(frames: Tensor, ground: Tensor, ink: Tensor, row: Tensor, slot: Tensor) -> Tensor:
    """Return how much each object's color covers the pixels of all frames, [n, f, pixels]."""
    offset = (frames - ground[..., None, None]).flatten(3)[row]  # n f 3 pixels
    step = (ink[row, slot][:, None] - ground[row])[..., None]  # n f 3 1
    length = step.square().sum(2).clamp(min=1e-3)  # n f 1
    cover = ((offset * step).sum(2) / length).clamp(0, 1)
    other = (offset - cover[:, :, None] * step).square().sum(2) / length  # some other color
    return cover * torch.exp(-4 * other)


@lru_cache
def _points(device: str) -> Float[Tensor, "shapes points 2"]:
    """Return evenly spread points inside each shape of radius 1, as x and y."""
    golden = torch.tensor([0.7548776662466927, 0.5698402909980532], dtype=torch.float64)
    spread = (torch.arange(1, 1000)[:, None] * golden) % 1  # Roberts' low-discrepancy sequence
    texel = (spread * _TEXELS).long()
    inside = _textures("cpu")[:, texel[:, 1] * _TEXELS + texel[:, 0]] < 0
    spread = (2 * spread - 1) * _REACH
    return torch.stack([spread[mask][:_POINTS] for mask in inside]).float().to(device)


def _score(
    cover: Float[Tensor, "n f pixels"], objects: Objects, row: Tensor, slot: Tensor,
    motion: Int[Tensor, "n k"], event: Float[Tensor, "n k"], times: Float[Tensor, " f"],
) -> Float[Tensor, "n k"]:  # fmt: skip
    """Return how well each tried motion covers what is seen of the object.

    It is the squared error that drawing the object there takes away, up to a constant: the area
    drawn, counted +1 where the object's color is and -1 where it is not.
    """
    n = len(motion)
    side = round(cover.shape[-1] ** 0.5)
    start, shape = objects.center[row, slot], objects.shape[row, slot]
    centers, radii = _paths(start, objects.radius[row, slot], motion, event, times)
    points = _points(str(cover.device))[shape]  # n points 2
    at = centers[..., None, :] + radii[..., None, None] * points[:, None, None]  # n k f points 2
    pixel = (at * side).floor()
    seen = ((pixel >= 0) & (pixel < side)).all(-1)
    pixel = pixel.clamp_(0, side - 1).long()
    frame = torch.arange(len(times), device=cover.device)[:, None] * side**2
    place = (frame + pixel[..., 1] * side + pixel[..., 0]).reshape(n, -1)
    hit = cover.flatten(1).gather(1, place).reshape(seen.shape)
    gain = ((2 * hit - 1) * seen).mean(-1) * radii.square()  # n k f
    return gain.sum(-1) * unit_areas(str(cover.device)).float()[shape][:, None]


def _paths(
    start: Tensor, radius: Tensor, motion: Tensor, event: Tensor, times: Tensor
) -> tuple[Float[Tensor, "n k f 2"], Float[Tensor, "n k f"]]:
    """Return the centers and radii of tried motions, by the formulas of the world."""
    n, k = motion.shape
    zero = torch.zeros(n * k, 2, dtype=torch.long, device=motion.device)
    jitter = (start.double() - v.GRID[0])[:, None].expand(-1, k, -1).reshape(n * k, 1, 2)
    tried = Scenes(
        count=zero[:, 0] + 1, background=zero[:, 0], event=event.reshape(-1).double(),
        shape=zero, color=zero, size=zero, position=zero, jitter=jitter.expand(-1, 2, -1),
        motion=motion.reshape(-1, 1).expand(-1, 2),
    )  # fmt: skip
    centers, radii = paths(tried, times)
    scale = radius[:, None, None] / v.RADII[0]
    return centers[:, 0].reshape(n, k, -1, 2).float(), radii[:, 0].reshape(n, k, -1).float() * scale
