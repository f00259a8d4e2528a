"""Classifier-free guidance with one weight for everything given, or one a given part.

The unconditional pass needs no null token: the given parts are left out of the sequence
(Ho and Salimans 2022; Bao et al. 2023b for the weights' meaning, where 1 is off).
"""

from collections.abc import Callable, Collection, Mapping

from jaxtyping import Float
from torch import Tensor

from unigen.errors import UsageError
from unigen.tokens import Tokens, modality_of

#: Clocks between which guidance acts (Kynkaanniemi et al. 2024). Latents of few tokens are decided
#: above 0.8, where nothing but the condition tells them; below 0.4 nothing is left to guide.
INTERVAL = (0.4, 1.0)


def guided(
    answer: Callable[..., Tokens], given: Tokens, guidance: float | Mapping[str, float],
    parts: Collection[str],
) -> Callable[[Tokens, Float[Tensor, ""]], Tokens]:  # fmt: skip
    """Return answers that go further in the direction of what is given.

    y = y(C) + (w - 1) (y(C) - y()) with one weight, or + sum_c (w_c - 1) (y(C) - y(C without c)).
    `answer(x, t, fixed)` is what the network says with some conditions; `parts` are those that
    guidance acts on. Data, noise and velocity are affine in each other: guiding one guides all.
    """
    weights = _weights(given, guidance)
    if not weights or not parts:
        return lambda x, t: answer(x, t, given)

    def push(x: Tokens, t: Float[Tensor, ""]) -> Tokens:
        y = answer(x, t, given)
        if not INTERVAL[0] <= float(t) <= INTERVAL[1]:
            return y
        result = dict(y)
        for names, w in weights:
            without = answer(x, t, {p: z for p, z in given.items() if p not in names})
            further = {p: result[p] + (w - 1) * (y[p] - without[p]) for p in parts}
            result = {**result, **further}
        return result

    return push


def _weights(
    given: Tokens, guidance: float | Mapping[str, float]
) -> list[tuple[frozenset[str], float]]:
    """Return the groups of given parts to leave out, each with its weight, where it is not 1."""
    if isinstance(guidance, Mapping):
        names = {modality_of(p) for p in given}
        if unknown := sorted(set(guidance) - names):
            raise UsageError(
                f"guidance.{unknown[0]} weighs a part that is not given; "
                f"given are {', '.join(sorted(names)) or 'none'}."
            )
        groups = [(frozenset(p for p in given if modality_of(p) == n), w)
                  for n, w in guidance.items()]  # fmt: skip
    else:
        groups = [(frozenset(given), guidance)]
    return [(parts, w) for parts, w in groups if parts and w != 1]
