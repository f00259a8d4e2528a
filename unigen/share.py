"""Shares of a batch: what one process, or one pass of several, sees of a training step.

The random numbers of a share are its rows of those drawn for the whole batch, and a loss is such
that its mean over the shares is the loss of the whole batch. So it does not matter how many
processes take a step, or in how many passes.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from unigen.errors import UsageError


class Share:
    """One of `of` equal shares of a batch, taken by a process that is alone."""

    def __init__(self, index: int = 0, of: int = 1):
        """`index`: which share, from 0."""
        self.index, self.of = index, of

    def rows(self, whole: Tensor) -> Tensor:
        """Return this share's rows; UsageError where the batch has no such equal shares."""
        count, rest = divmod(len(whole), self.of)
        if rest:
            raise UsageError(
                f"{len(whole)} samples a step do not split into {self.of} equal shares; make "
                "trainer.batch (and trainer.cache) a multiple of processes x trainer.accumulate."
            )
        return whole[self.index * count : (self.index + 1) * count]

    def whole(self, rows: Tensor) -> Tensor:
        """Return a tensor with the whole batch's shape: the first row again and again."""
        return rows[:1].expand(len(rows) * self.of, *rows.shape[1:])

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all shares, with gradient; UsageError where they come one by one."""
        if self.of != 1:
            raise UsageError(
                "alignment compares all samples of a step, and trainer.accumulate shows a few at "
                "a time; type trainer.accumulate=1."
            )
        return rows

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a number over the shares that are taken at the same time."""
        return value


class Draws(torch.Generator):
    """A generator of random numbers that knows whose rows it draws."""

    def __new__(cls, share: Share, device: torch.device | str = "cpu") -> "Draws":
        """Make the generator on a device."""
        return super().__new__(cls, device)  # pyright: ignore[reportCallIssue]

    def __init__(self, share: Share, device: torch.device | str = "cpu"):
        """`share`: whose rows."""
        self.share = share


def share_of(generator: torch.Generator | None) -> Share:
    """Return whose rows a generator draws; any other generator draws for the whole batch."""
    return generator.share if isinstance(generator, Draws) else Share()


def draw(
    kind: Callable[..., Tensor],  # torch.rand or torch.randn
    shape: tuple[int, ...] | torch.Size,
    generator: torch.Generator | None,
    device: torch.device | str,
) -> Tensor:
    """Return random numbers for the rows of a share, shape[0] of them."""
    share = share_of(generator)
    size = (shape[0] * share.of, *shape[1:])
    return share.rows(kind(size, generator=generator, device=device))
