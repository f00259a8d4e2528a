"""Alignment: contrastive training of the shared space, in two regimes.

dynamic: every tower moves. frozen anchor: one modality's tower stands still and the others are
pulled to it (Girdhar et al. 2023 with text as the anchor). The loss is the pairwise sigmoid of
Zhai et al. 2023.
"""

from itertools import combinations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Similarity(nn.Module):
    """The temperature and bias of the sigmoid loss (Zhai et al. 2023, algorithm 1)."""

    def __init__(self):
        """Start at the paper's values."""
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())
        self.bias = nn.Parameter(torch.tensor(-10.0))

    def forward(
        self, a: Float[Tensor, "b e"], b: Float[Tensor, "b e"], same: Float[Tensor, "b b"]
    ) -> Float[Tensor, ""]:
        """Return the loss of pairs, `same` = 1 where a_i and b_j belong together."""
        cosine = F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T
        sign = 2 * same - 1
        return -F.logsigmoid(sign * (self.log_scale.exp() * cosine + self.bias)).sum() / len(a)


def contrastive(
    points: dict[str, Float[Tensor, "b e"]], similarity: Similarity, anchor: str | None = None
) -> dict[str, Float[Tensor, ""]]:
    """Return the loss of every pair of modalities, or of the pairs with the anchor only."""
    some = next(iter(points.values()))
    same = torch.eye(len(some), device=some.device)
    pairs = [p for p in combinations(sorted(points), 2) if anchor is None or anchor in p]
    return {f"{a}-{b}": similarity(points[a], points[b], same) for a, b in pairs}


def recall(a: Float[Tensor, "n e"], b: Float[Tensor, "n e"]) -> float:
    """Return recall@1 of finding b_i from a_i among all b."""
    scores = F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T
    return (scores.argmax(1) == torch.arange(len(a), device=a.device)).float().mean().item()
