"""Regions that a user keeps: stretches of time, boxes, mask files, as one number a token."""

import math
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from unigen import media
from unigen.errors import UsageError


def stretch(
    region: str, starts: Float[Tensor, " n"], ends: Float[Tensor, " n"], name: str
) -> Float[Tensor, " n"]:
    """Return 1 for the tokens that lie wholly in `from:to` seconds; either end may be empty.

    starts, ends: of what a token covers, in seconds.
    """
    low, colon, high = region.partition(":")
    try:
        start = float(low) if low.strip() else -math.inf
        end = float(high) if high.strip() else math.inf
    except ValueError:
        start = end = math.nan
    if not colon or not start < end:
        raise UsageError(f"keep.{name}={region} is no stretch; type from:to seconds, as in 0:1.")
    slack, step = 1e-6, float((ends - starts).max())
    kept = (starts >= start - slack) & (ends <= end + slack)
    return _some(kept, f"keep.{name}={region}", f"one token covers {step:g} s")


def box_or_mask(
    region: str, positions: Float[Tensor, "n 3"], name: str,
    size: tuple[int, int] = (64, 64), crop: bool = False,
) -> Float[Tensor, " n"]:  # fmt: skip
    """Return 1 for the tokens inside a box `left,top,right,bottom` (0..1) or a mask's white.

    size, crop: how the pictures are read that the mask belongs to, see `media.read_image`.
    """
    numbers = _numbers(region)
    if numbers is None:
        mask = torch.from_numpy(media.read_image(Path(region), size, crop).pixels.copy())
        bright = mask.float().mean(-1) / 255
        row, column = ((positions[:, i + 1] * n).long().clamp(0, n - 1) for i, n in enumerate(size))
        return _some(bright[row, column] > 0.5, f"keep.{name}={region}", "the mask is dark there")
    left, top, right, bottom = numbers
    row, column = positions[:, 1], positions[:, 2]
    inside = (column >= left) & (column <= right) & (row >= top) & (row <= bottom)
    return _some(inside, f"keep.{name}={region}", "the box holds the center of no token")


def flatten_outside(
    raw: Float[Tensor, "... 3 h w"], kept: Float[Tensor, "gh gw"]
) -> Float[Tensor, "... 3 h w"]:
    """Paint what lies outside the kept grid cells in the median color of the kept ones."""
    h, w = raw.shape[-2:]
    row = torch.arange(h) * kept.shape[0] // h
    column = torch.arange(w) * kept.shape[1] // w
    mask = kept[row][:, column] > 0
    color = raw[..., mask].median(-1).values[..., None, None]
    return torch.where(mask, raw, color)


def _numbers(region: str) -> list[float] | None:
    """Return the four numbers of a box, None if it is no box."""
    parts = region.strip("[]() ").split(",")
    try:
        numbers = [float(p) for p in parts]
    except ValueError:
        return None
    if len(numbers) != 4 or not (numbers[0] < numbers[2] and numbers[1] < numbers[3]):
        raise UsageError(
            f"keep={region} is no box; type left,top,right,bottom from 0 to 1, as in 0,0,0.5,1."
        )
    return numbers


def _some(kept: Tensor, what: str, why: str) -> Float[Tensor, " n"]:
    if not kept.any():
        raise UsageError(f"{what} keeps nothing: {why}; keep more, or leave keep out.")
    return kept.float()
