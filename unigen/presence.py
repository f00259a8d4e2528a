"""Which clocks a training sample sees: every direction of generation is a choice of clocks."""

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unigen.flow import DECIDED, RectifiedFlow
from unigen.tokens import GLOBAL, Clocks, Positions, Tokens, modality_of, role_of

#: Usual shares of two kinds of samples; the rest has one clock for all parts (joint).
CONDITIONAL, INDEPENDENT = 0.55, 0.2
NOISY_GIVEN, PARTLY_KEPT, POINT_KEPT = 0.1, 0.3, 0.05
OFTEN = 0.9  # chance of a modality that a run asks to be given
TOGETHER = 0.1  # of the samples show ordered tokens at one clock all the same
Direction = tuple[tuple[str, ...], tuple[str, ...]]  # given, want


def directions(parts: Sequence[str]) -> list[Direction]:
    """Return every pair of disjoint, non-empty sets of parts: 50 of four parts."""
    return [(given, want) for given in subsets(parts) for want in subsets(parts)
            if not set(given) & set(want)]  # fmt: skip


def subsets(parts: Sequence[str]) -> list[tuple[str, ...]]:
    """Return every non-empty set of parts, the smallest first."""
    return [s for size in range(1, len(parts) + 1) for s in combinations(parts, size)]


def draw_clocks(
    flow: RectifiedFlow,
    x: Tokens,
    positions: Positions,
    means: Mapping[str, float],  # center of the noise levels by part
    ordered: Collection[str] = (),  # parts whose tokens are settled one after another
    generator: torch.Generator | None = None,
    conditional: float | int = CONDITIONAL,  # share of samples with something given
    given: Collection[str] = (),  # modalities that are it `OFTEN`, the others seldom
    ways: Sequence[tuple[Collection[str], float]] = (),  # what `OFTEN` is given, each with a weight
) -> Clocks:
    """Return a clock for every token.

    Conditional samples draw a random subset of the modalities, neither none nor all, as given
    (clock 0, now and then slightly noisy) and share one clock among the rest; independent samples
    draw a clock a modality (Bao et al. 2023b); the others share one. Where ways are asked for, most
    samples take one: just that is given, and where it is nothing all share a clock. Some parts, if
    not ordered, keep a region at clock 0; alone, a modality is conditional by that only. Some keep
    their point of the shared space: what is made is another thing that means the same. Else a
    modality's parts have the same clock. Of ordered tokens a share 1 - t is settled (clock 0) and
    the rest is noise, as it is when they are sampled; beside other modalities at their clock they
    wait until it is `DECIDED`.
    """
    some = next(iter(x.values()))
    b, device = len(some), some.device
    names = sorted({modality_of(part) for part in x})
    mean = {modality_of(part): m for part, m in means.items()}

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=device)

    own = torch.stack([flow.sample_t(b, mean[n], generator, device) for n in names], 1)
    often = [(OFTEN if name in given else 1 - OFTEN) if given else 0.5 for name in names]
    odds, u, kind = torch.tensor(often, device=device).expand(b, -1), rand(b, 1), rand(b, 1)
    if ways:
        asked, aimed = _aimed(ways, names, rand(b, 1))
        odds = torch.where(aimed, asked, odds)
        kind = torch.where(aimed, 1 - asked.amax(1, keepdim=True), kind)  # conditional, or joint
    pick = _weighted(1 - odds, u)
    shared = own.gather(1, pick).expand_as(own)
    rest = INDEPENDENT * (1 - conditional) / (1 - CONDITIONAL)
    t = torch.where((kind >= conditional) & (kind < conditional + rest), own, shared)
    if len(names) > 1:
        told = rand(b, len(names)) < odds
        giver = _weighted(odds.scatter(1, pick, 0.0), rand(b, 1))
        told.scatter_(1, giver, True).scatter_(1, pick, False)  # at least one either way
        level = (rand(b, len(names)) < NOISY_GIVEN) * 0.3 * rand(b, len(names))
        t = torch.where((kind < conditional) & told, level, t)
    clocks, waiting = {}, {modality_of(part) for part in ordered}
    leading = t[:, [i for i, name in enumerate(names) if name not in waiting]]
    for part, z in x.items():
        clock = t[:, names.index(modality_of(part)), None]
        beside, clock = (leading == clock).any(1), clock.expand(z.shape[:2])
        if part in ordered:
            apart = rand(b, 1) >= TOGETHER
            turn = torch.where(beside, (clock[:, 0] / DECIDED).clamp(max=1), clock[:, 0])
            clocks[part] = torch.where(apart, (~settled(turn, z.shape[1])).float(), clock)
        elif role_of(part) == GLOBAL:
            clocks[part] = torch.where(rand(b, 1) < POINT_KEPT, 0.0, clock)
        else:
            often = PARTLY_KEPT if len(names) > 1 else CONDITIONAL
            region = _region(positions[part], rand(b, 4)) & (rand(b, 1) < often)
            clocks[part] = torch.where(region, 0.0, clock)
    return clocks


def _aimed(
    ways: Sequence[tuple[Collection[str], float]], names: Sequence[str], u: Float[Tensor, "b 1"]
) -> tuple[Float[Tensor, "b n"], Bool[Tensor, "b 1"]]:
    """Return what is given (1) on the way that each sample takes, and whether it takes one."""
    given = torch.tensor([[float(name in some) for name in names] for some, _ in ways])
    chances = torch.tensor([share for _, share in ways]).to(u).expand(len(u), -1)
    way = _weighted(chances, u / OFTEN)[:, 0]
    return given.to(u)[way], u < OFTEN


def _weighted(chances: Float[Tensor, "b n"], u: Float[Tensor, "b 1"]) -> Int[Tensor, "b 1"]:
    """Return one of n by its chance, drawn with uniform numbers."""
    below = chances.cumsum(1)
    return (u * below[:, -1:] >= below).sum(1, keepdim=True).clamp(max=chances.shape[1] - 1)


def settled(t: Float[Tensor, "..."], tokens: int) -> Bool[Tensor, "... n"]:
    """Return which of some ordered tokens are settled at clock t: the first share 1 - t of them."""
    order = torch.arange(tokens, device=t.device)
    return order < ((1 - t[..., None]) * tokens + 1e-4).floor()


def _region(positions: Float[Tensor, "n 3"], draw: Float[Tensor, "b 4"]) -> Tensor:
    """Return a half space along one of the axes that the part has, [b, n]; never everything.

    Time is drawn as often as rows and columns together: what goes on is asked for most.
    """
    low, high = positions.amin(0), positions.amax(0)
    axes = (high > low).nonzero()[:, 0]
    if not len(axes):
        return torch.zeros(len(draw), len(positions), dtype=torch.bool, device=draw.device)
    bounds = torch.where(axes == 0, 2.0, 1.0).cumsum(0)
    axis = axes[torch.bucketize(draw[:, 0] * bounds[-1], bounds[:-1], right=True)]
    along = positions.T[axis]  # b n
    cut = low[axis] + draw[:, 1] * (high - low)[axis]
    inside = torch.where(draw[:, 2:3] < 0.6, along < cut[:, None], along > cut[:, None])
    return inside & ~inside.all(1, keepdim=True)
