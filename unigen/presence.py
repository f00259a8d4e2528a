"""Which clocks a training sample sees: every direction of generation is a choice of clocks."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from unigen.flow import RectifiedFlow
from unigen.tokens import Clocks, Positions, Tokens, modality_of

#: Shares of the three kinds of samples; the rest has one clock for all parts (joint).
CONDITIONAL, INDEPENDENT = 0.55, 0.2
NOISY_GIVEN, PARTLY_KEPT = 0.1, 0.1


def draw_clocks(
    flow: RectifiedFlow,
    x: Tokens,
    positions: Positions,
    means: Mapping[str, float],  # center of the noise levels by part
    generator: torch.Generator | None = None,
) -> Clocks:
    """Return a clock for every token.

    Conditional samples draw a random proper subset of the modalities as given (clock 0, now and
    then slightly noisy) and share one clock among the rest; independent samples draw a clock a
    modality (Bao et al. 2023b); the others share one. Some parts keep a region at clock 0.
    A modality's parts have the same clock.
    """
    some = next(iter(x.values()))
    b, device = len(some), some.device
    names = sorted({modality_of(part) for part in x})
    mean = {modality_of(part): m for part, m in means.items()}

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=device)

    own = torch.stack([flow.sample_t(b, mean[n], generator, device) for n in names], 1)
    pick = (rand(b, 1) * len(names)).long()
    shared = own.gather(1, pick).expand_as(own)
    kind = rand(b, 1)
    t = torch.where((kind >= CONDITIONAL) & (kind < CONDITIONAL + INDEPENDENT), own, shared)
    if len(names) > 1:
        given = rand(b, len(names)) < 0.5
        given.scatter_(1, pick, False)  # at least one is wanted
        level = (rand(b, len(names)) < NOISY_GIVEN) * 0.3 * rand(b, len(names))
        t = torch.where((kind < CONDITIONAL) & given, level, t)
    clocks = {}
    for part, z in x.items():
        clock = t[:, names.index(modality_of(part)), None].expand(z.shape[:2])
        region = _region(positions[part], rand(b, 4)) & (rand(b, 1) < PARTLY_KEPT)
        clocks[part] = torch.where(region, 0.0, clock)
    return clocks


def _region(positions: Float[Tensor, "n 3"], draw: Float[Tensor, "b 4"]) -> Tensor:
    """Return a random half space along a random axis, [b, n] of bool; never everything."""
    low, high = positions.amin(0), positions.amax(0)
    axis = (draw[:, 0] * 3).long()
    along = positions.T[axis]  # b n
    cut = low[axis] + draw[:, 1] * (high - low)[axis]
    inside = torch.where(draw[:, 2:3] < 0.6, along < cut[:, None], along > cut[:, None])
    return inside & ~inside.all(1, keepdim=True)
