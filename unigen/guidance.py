"""Classifier-free guidance with one weight for everything given, or one a given part.

The unconditional pass needs no null token: the given parts are left out of the sequence
(Ho and Salimans 2022; Bao et al. 2023b for the weights' meaning, where 1 is off).
"""

from collections.abc import Callable, Mapping

from jaxtyping import Float
from torch import Tensor

from unigen.errors import UsageError
from unigen.sampler import Denoise
from unigen.tokens import Tokens, modality_of

INTERVAL = (0.1, 0.9)  # clocks between which guidance acts (Kynkaanniemi et al. 2024)


def guided(
    denoise: Callable[..., Tokens], given: Tokens, guidance: float | Mapping[str, float]
) -> Denoise:
    """Return a denoiser that goes further in the direction of what is given.

    x = x(C) + (w - 1) (x(C) - x()) with one weight, or + sum_c (w_c - 1) (x(C) - x(C without c)).
    `denoise(x, t, fixed)` predicts the data with some conditions.
    """
    weights = _weights(given, guidance)
    if not weights:
        return lambda x, t: denoise(x, t, given)

    def predict(x: Tokens, t: Float[Tensor, ""]) -> Tokens:
        x0 = denoise(x, t, given)
        if not INTERVAL[0] <= float(t) <= INTERVAL[1]:
            return x0
        result = dict(x0)
        for parts, w in weights:
            without = denoise(x, t, {p: z for p, z in given.items() if p not in parts})
            result = {p: result[p] + (w - 1) * (x0[p] - without[p]) for p in x0}
        return result

    return predict


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
