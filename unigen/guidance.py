"""Classifier-free guidance with one weight for everything given, or one a given part.

The unconditional pass needs no null token: the given parts are left out of the sequence
(Ho and Salimans 2022; Bao et al. 2023b for the weights' meaning, where 1 is off).
"""

from collections.abc import Callable, Collection, Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from unigen.errors import UsageError
from unigen.tokens import Tokens, modality_of


def guided(
    answer: Callable[..., Tokens], given: Tokens, guidance: float | Mapping[str, float],
    parts: Collection[str], interval: Sequence[float] = (0.0, 1.0),
) -> Callable[[Tokens, Float[Tensor, ""]], Tokens]:  # fmt: skip
    """Return answers that go further in the direction of what is given.

    y = y(C) + (w - 1) (y(C) - y()) with one weight, or + sum_c (w_c - 1) (y(C) - y(C without c)).
    `answer(x, t, fixed)` is what the network says with some conditions; `parts` are those that
    guidance acts on; outside of the `interval` of clocks it is off (Kynkaanniemi et al. 2024).
    Data, noise and velocity are affine in each other: guiding one guides all.
    """
    weights = _weights(given, guidance)
    if not weights or not parts:
        return lambda x, t: answer(x, t, given)

    def push(x: Tokens, t: Float[Tensor, ""]) -> Tokens:
        y = answer(x, t, given)
        if not interval[0] <= float(t) <= interval[1]:
            return y
        result = dict(y)
        for names, w in weights:
            without = answer(x, t, {p: z for p, z in given.items() if p not in names})
            further = {p: result[p] + (w - 1) * (y[p] - without[p]) for p in parts}
            result = {**result, **further}
        return result

    return push


def mutual(
    answers: Callable[[Tokens, Float[Tensor, ""]], Tokens], answer: Callable[..., Tokens],
    given: Tokens, weight: float, parts: Collection[str], interval: Sequence[float] = (0.0, 1.0),
) -> Callable[[Tokens, Float[Tensor, ""]], Tokens]:  # fmt: skip
    """Return answers of parts made together that go further towards each other.

    y_m + (w - 1) (y_m(C, others) - y_m(C)) for every modality m (Bao et al. 2023b, joint
    generation); 1 is off. `answers` are those without it; the rest as in `guided`.
    """
    if weight == 1:
        return answers

    def push(x: Tokens, t: Float[Tensor, ""]) -> Tokens:
        y, names = answers(x, t), sorted({modality_of(p) for p in x})
        if len(names) < 2 or not interval[0] <= float(t) <= interval[1]:
            return y
        result = dict(y)
        for name in names:
            own = {p: z for p, z in x.items() if modality_of(p) == name}
            if pushed := [p for p in own if p in parts]:
                alone = answer(own, t, given)
                result |= {p: y[p] + (weight - 1) * (y[p] - alone[p]) for p in pushed}
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
