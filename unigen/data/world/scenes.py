"""Which scene stands behind (seed, index): counter-based random numbers, attributes, paths.

A scene is a pure function of (seed, index): integer hashing in 64 bits gives the same numbers on
every device, whatever the batch. The first object is the one farther left.
"""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unigen.data.world import vocabulary as v

SPLITS = ("train", "held_out", "all")
_OBJECT_DRAWS = 7  # shape, color, size, motion, position, jitter x, jitter y
_GOLDEN = -7046029254386353131  # 2^64 / golden ratio, as a signed integer


def _mix(x: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """Scramble 64-bit integers (the finalizer of SplitMix64, Steele et al. 2014)."""
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return x ^ ((x >> 31) & ((1 << 33) - 1))


def uniforms(seed: int, index: Int[Tensor, " b"], stream: int, count: int) -> Float[Tensor, "b n"]:
    """Return `count` numbers in [0, 1) per index, float64, independent of batch and device."""
    key = _mix(torch.tensor(seed * 1_000_003 + stream, device=index.device) * _GOLDEN)
    counters = torch.arange(1, count + 1, device=index.device) * _GOLDEN
    bits = _mix(_mix(index.long() * _GOLDEN + key)[:, None] + counters)
    return ((bits >> 11) & ((1 << 53) - 1)).double() / (1 << 53)


@dataclass(frozen=True)
class Scenes:
    """A batch of scenes; attributes are codes into the tuples of `vocabulary`."""

    count: Int[Tensor, " b"]  # objects in the scene, 1 or 2
    background: Int[Tensor, " b"]
    event: Float[Tensor, " b"]  # seconds
    shape: Int[Tensor, "b 2"]
    color: Int[Tensor, "b 2"]
    size: Int[Tensor, "b 2"]
    motion: Int[Tensor, "b 2"]
    position: Int[Tensor, "b 2"]  # 3 * row + column
    jitter: Float[Tensor, "b 2 2"]  # x, y

    def __len__(self) -> int:
        """Return the number of scenes."""
        return len(self.count)

    def __getitem__(self, rows) -> "Scenes":
        """Return the scenes of some rows."""
        return Scenes(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @property
    def present(self) -> Tensor:
        """Tell which objects exist, [b, 2]."""
        return torch.arange(2, device=self.count.device) < self.count[:, None]

    @property
    def bounces(self) -> Tensor:
        """Tell where the event is a bounce (otherwise it is a flash), [b]."""
        return ((self.motion == v.MOTIONS.index("bouncing")) & self.present).any(1)


def paths(scenes: Scenes, times: Float[Tensor, "*b f"]) -> tuple[Tensor, Tensor]:
    """Return the objects' centers [b, 2, f, 2] as (x, y) and their radii [b, 2, f], float64.

    times: seconds, the same for all scenes or [b, f].
    """
    t = times.double().expand(len(scenes), -1)[:, None]  # b 1 f
    u = t / v.SECONDS
    grid = torch.tensor(v.GRID, device=t.device, dtype=torch.float64)
    start = torch.stack([grid[scenes.position % 3], grid[scenes.position // 3]], -1) + scenes.jitter
    event = scenes.event[:, None, None]
    after = ((t - event) / (v.SECONDS - event)).clamp(0, 1)
    fall = torch.where(
        t < event, v.FALL * (t / event) ** 2, v.FALL - v.REBOUND * (1 - (1 - after) ** 2)
    )
    turn = 2 * torch.pi * u
    still = torch.zeros_like(fall)
    moves = {  # motion: (dx, dy, radius factor)
        "left": (-v.TRAVEL * u, still, 1), "right": (v.TRAVEL * u, still, 1),
        "up": (still, -v.TRAVEL * u, 1), "down": (still, v.TRAVEL * u, 1),
        "bouncing": (still, fall, 1),
        "circling": (v.ORBIT * turn.sin(), v.ORBIT * (1 - turn.cos()), 1),
        "swaying": (v.SWAY * (2 * turn).sin(), still, 1),
        "growing": (still, still, 1 + v.GROWTH * u),
        "shrinking": (still, still, 1 - v.SHRINKAGE * u),
    }  # fmt: skip
    dx, dy, factor = (torch.zeros_like(fall).expand(-1, 2, -1).clone() for _ in range(3))
    factor += 1
    for name, (x, y, f) in moves.items():
        mine = (scenes.motion == v.MOTIONS.index(name)).double()[..., None]
        dx, dy, factor = dx + mine * x, dy + mine * y, factor + mine * (f - 1)
    centers = start[:, :, None] + torch.stack([dx, dy], -1)
    radii = torch.tensor(v.RADII, device=t.device, dtype=torch.float64)[scenes.size]
    return centers, radii[..., None] * factor


def sample_scenes(
    seed: int,
    index: Int[Tensor, " b"],
    split: str = "train",
    two: float = 0.4,
    novel: float = 0.0,
) -> Scenes:
    """Return the scenes at (seed, index).

    `split`: "train" has no held-out pair, "held_out" has one in some object, "all" is both.
    `two`: the share of scenes with two objects, 0..1; they never touch. `novel`: of objects with
    the novel color, and likewise of those with the novel motion.
    """
    head = uniforms(seed, index, 0, 3)
    lo, hi = v.EVENT_RANGE
    count = 1 + (head[:, 0] < two).long()
    background = (head[:, 1] * len(v.BACKGROUNDS)).long()
    event = lo + (hi - lo) * head[:, 2]

    def draw(some: Tensor, attempt: int) -> Scenes:
        draws = uniforms(seed, index[some], attempt, 2 * _OBJECT_DRAWS + 2 + 2 * len(v.NOVEL))
        return _candidate(draws, count[some], background[some], event[some], split, novel)

    done, attempt = draw(torch.arange(len(index), device=index.device), 1), 1
    pending = (~_valid(done, split)).nonzero()[:, 0]
    while len(pending):
        attempt += 1
        tried = draw(pending, attempt)
        for f in fields(Scenes):
            getattr(done, f.name)[pending] = getattr(tried, f.name)
        pending = pending[~_valid(tried, split)]
    return done


def _candidate(
    draws: Tensor, count: Tensor, background: Tensor, event: Tensor, split: str, novel: float
) -> Scenes:
    sizes = (2 * _OBJECT_DRAWS, 2, *(2 for _ in v.NOVEL))
    drawn, planted, *chances = draws.split(sizes, 1)
    objects = drawn.reshape(-1, 2, _OBJECT_DRAWS)
    codes = {
        name: (objects[..., i] * (len(values) - (name in v.NOVEL))).long()
        for i, (name, values) in enumerate(v.OBJECT_ATTRIBUTES.items())
    }
    for (name, value), chance in zip(v.NOVEL.items(), chances, strict=True):
        codes[name][chance < novel] = v.OBJECT_ATTRIBUTES[name].index(value)
    if split == "held_out":  # plant one of the ten pairs in one object
        pairs = [(s, "color", c) for s, c in v.HELD_OUT_COLORS]
        pairs += [(s, "motion", m) for s, m in v.HELD_OUT_MOTIONS]
        pick = (planted[:, 0] * len(pairs)).long()
        slot = torch.minimum((planted[:, 1] * 2).long(), count - 1)
        for i, (shape, name, value) in enumerate(pairs):
            rows = (pick == i).nonzero()[:, 0]
            codes["shape"][rows, slot[rows]] = v.SHAPES.index(shape)
            codes[name][rows, slot[rows]] = v.OBJECT_ATTRIBUTES[name].index(value)
    jitter = (2 * objects[..., 5:7] - 1) * v.JITTER
    return Scenes(count.clone(), background.clone(), event.clone(), **codes, jitter=jitter)


def held_out(scenes: Scenes) -> Tensor:
    """Tell which scenes hold a pair that training never sees, [b]."""
    hit = torch.zeros_like(scenes.present)
    for name, pairs in (("color", v.HELD_OUT_COLORS), ("motion", v.HELD_OUT_MOTIONS)):
        for shape, value in pairs:
            same = scenes.shape == v.SHAPES.index(shape)
            hit |= same & (getattr(scenes, name) == v.OBJECT_ATTRIBUTES[name].index(value))
    return (hit & scenes.present).any(1)


def _valid(scenes: Scenes, split: str) -> Tensor:
    ok = ~held_out(scenes) if split == "train" else torch.ones_like(scenes.bounces)
    times = torch.linspace(0, v.SECONDS, 17, device=ok.device)
    centers, radii = paths(scenes, times)
    apart = (centers[:, 0] - centers[:, 1]).norm(dim=-1) > v.EXTENT * radii.sum(1) + 0.01
    ordered = scenes.position[:, 0] % 3 < scenes.position[:, 1] % 3
    return ok & ((scenes.count == 1) | (ordered & apart.all(1)))
