"""Classifier-free guidance with one weight for everything given, or one a given part.

The unconditional pass needs no null token: the given parts are left out of the sequence
(Ho and Salimans 2022; Bao et al. 2023b for the weights' meaning, where 1 is off).
"""

from collections.abc import Callable, Collection, Mapping, Sequence, Set

from jaxtyping import Float
from torch import Tensor

from unigen.errors import UsageError
from unigen.tokens import Tokens, modality_of

#: Answers of the network at one clock, one for each pair of tokens and the conditions beside them.
Ask = Callable[[Float[Tensor, ""], Sequence[tuple[Tokens, Tokens]]], list[Tokens]]


def guided(
    ask: Ask, given: Tokens, guidance: float | Mapping[str, float],
    parts: Collection[str], interval: Sequence[float] = (0.0, 1.0),
    negative: Tokens | None = None,
) -> Callable[[Tokens, Float[Tensor, ""]], Tokens]:  # fmt: skip
    """Return answers that go further in the direction of what is given.

    y = y(C) + (w - 1) (y(C) - y()) with one weight, or + sum_c (w_c - 1) (y(C) - y(C without c)).
    `negative` stands in the place of what is left out, so that answers go away from it (a negative
    prompt); `parts` are those that guidance acts on; outside of the `interval` of clocks it is off
    (Kynkaanniemi et al. 2024).
    Data, noise and velocity are affine in each other: guiding one guides all.
    """
    away = negative or {}
    weights = _weights({modality_of(p) for p in {**given, **away}}, guidance)
    if not parts:
        weights = []
    others = [
        {p: z for p, z in given.items() if modality_of(p) not in names}
        | {p: z for p, z in away.items() if modality_of(p) in names}
        for names, _ in weights
    ]

    def push(x: Tokens, t: Float[Tensor, ""]) -> Tokens:
        on = interval[0] <= float(t) <= interval[1]
        y, *without = ask(t, [(x, given), *((x, other) for other in others if on)])
        result = dict(y)
        for (_, w), y_ in zip(weights, without, strict=False):  # none of them where it is off
            result |= {p: result[p] + (w - 1) * (y[p] - y_[p]) for p in parts}
        return result

    return push


def mutual(
    answers: Callable[[Tokens, Float[Tensor, ""]], Tokens], ask: Ask,
    given: Tokens, weight: float, parts: Set[str], interval: Sequence[float] = (0.0, 1.0),
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
        own = [{p: z for p, z in x.items() if modality_of(p) == name} for name in names]
        own = [some for some in own if not parts.isdisjoint(some)]
        for alone in ask(t, [(some, given) for some in own]):
            further = {p: y[p] + (weight - 1) * (y[p] - z) for p, z in alone.items() if p in parts}
            y = {**y, **further}
        return y

    return push


def _weights(
    names: set[str], guidance: float | Mapping[str, float]
) -> list[tuple[set[str], float]]:
    """Return the groups of modalities to leave out, each with its weight, where it is not 1."""
    if isinstance(guidance, Mapping):
        if unknown := sorted(set(guidance) - names):
            raise UsageError(
                f"guidance.{unknown[0]} weighs a part that is not given; "
                f"given are {', '.join(sorted(names)) or 'none'}."
            )
        groups = [({name}, w) for name, w in guidance.items()]
    else:
        groups = [(names, guidance)]
    return [(group, w) for group, w in groups if group and w != 1]
