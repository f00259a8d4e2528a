"""Turns: parts that are wanted together may be made one after another, each knowing the former.

p(image, sound, clip | text) is p(image | text) p(sound | image, text) p(clip | image, sound, text):
one denoiser has all of the factors. Many parts together tell each other what they show when they
are nearly pure noise still, where the network is least exact about how common each thing is.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple


class Turn(NamedTuple):
    """Parts that walk together, and in how many steps."""

    parts: list[str]
    steps: int


def turns(
    want: Sequence[str],
    steps: int,
    order: Sequence[str] = (),
    kept: Collection[str] = (),
    ordered: Collection[str] = (),
) -> list[Turn]:
    """Return who walks when: each part of the order alone, then the rest; all at once without it.

    kept: parts of which something stays; they come first, for the others are to go with it.
    ordered: parts whose tokens settle one after another, a step a token. A turn of ordered parts
    alone has all the steps, any other turn of several has half of them: it decides less (LOG.md).
    """
    if not order:
        return [Turn([*want], steps)]
    first = [part for part in want if part in kept]
    alone = [part for part in order if part in want and part not in first]
    rest = [part for part in want if part not in first + alone]
    groups = [group for group in (first, *([part] for part in alone), rest) if group]
    if len(groups) == 1:
        return [Turn(groups[0], steps)]
    half = (steps + 1) // 2
    return [Turn(group, steps if set(group) <= set(ordered) else half) for group in groups]
