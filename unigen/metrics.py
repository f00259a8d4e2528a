"""Scores of readings with bootstrap intervals: shares, agreement, distances between marginals.

Every score is a statistic of a batch of samples. It is computed at once for the batch as it came
and for `RESAMPLES` bootstrap resamples of it, as one product with a matrix of weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from unigen.data.world import vocabulary as v
from unigen.data.world.oracles import OBJECTS, SCENE, TELLS, Reading, matches, sync

RESAMPLES = 1_000
TOLERANCE = 1 / 8  # seconds between two events that count as one
#: How many codes an attribute has; of "count", code 0 is a medium in which no object was found.
CODES = {"count": 3, "background": len(v.BACKGROUNDS), "sound": len(v.SHAPES)}
CODES |= {name: len(values) for name, values in v.OBJECT_ATTRIBUTES.items()}

Compared = Mapping[str, tuple[Tensor, Tensor]]  # (correct, valid) by attribute, [b] or [b, 2]


@dataclass(frozen=True)
class Draws:
    """A statistic: of the samples as they came, then of resamples of them; nan where undefined."""

    values: Float[Tensor, " r"]
    n: int  # samples that have a say

    def estimate(self) -> dict[str, float | int]:
        """Return value, low and high (95 %, within 0..1) and n.

        The interval is that of the resamples, moved so that its mean is the value: a distance
        grows by resampling alone, a share does not.
        """
        value, rest = self.values[0], self.values[1:]
        rest = rest[~rest.isnan()]
        rest = rest - rest.mean() + value if len(rest) else value[None]
        ends = torch.quantile(rest, torch.tensor([0.025, 0.975], dtype=rest.dtype)).clamp(0, 1)
        low, high = min(ends[0].item(), value.item()), max(ends[1].item(), value.item())
        return {"value": value.item(), "low": low, "high": high, "n": self.n}


@lru_cache(maxsize=4)
def weights(n: int) -> Float[Tensor, "r n"]:
    """Return how often each of n samples counts: once each in row 0, resampled in the others."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(n, (RESAMPLES, n), generator=generator)
    resampled = torch.zeros(RESAMPLES, n, dtype=torch.float64)
    resampled.scatter_add_(1, drawn, torch.ones_like(resampled))
    return torch.cat([torch.ones(1, n, dtype=torch.float64), resampled])


def ratio(part: Tensor, whole: Tensor) -> Draws:
    """Return sum(part) / sum(whole) over samples; both are [b] or [b, entries]."""
    part, whole = (x.double().reshape(len(x), -1).sum(1) for x in (part, whole))
    w = weights(len(part))
    return Draws((w @ part) / (w @ whole), int((whole > 0).sum()))


def constant(value: float, n: int) -> Draws:
    """Return a number that no resample changes."""
    return Draws(torch.full((1 + RESAMPLES,), value, dtype=torch.float64), n)


def average(draws: Sequence[Draws]) -> Draws:
    """Return the mean of statistics, each as heavy as the other, over those that are defined."""
    return Draws(torch.stack([d.values for d in draws]).nanmean(0), max(d.n for d in draws))


def combine(parts: Sequence[Mapping[str, Draws]]) -> dict[str, Draws]:
    """Average each attribute over parts, and add "mean", the average over attributes."""
    names = list(dict.fromkeys(name for part in parts for name in part))
    result = {name: average([part[name] for part in parts if name in part]) for name in names}
    return {**result, "mean": average(list(result.values()))} if result else {}


def compare(read: Reading, reference: Reading) -> dict[str, tuple[Tensor, Tensor]]:
    """Compare a reading with what it should be: `matches` without "all", and with the event."""
    found = {name: pair for name, pair in matches(read, reference).items() if name != "all"}
    near, both = sync(read, reference, TOLERANCE)
    return {**found, "event": (near, both & ~reference.event.isnan())}


def kept(read: Reading, reference: Reading) -> dict[str, tuple[Tensor, Tensor]]:
    """Compare as `compare` does, but what is left out is lost: for copies, not for captions."""
    result = {"event": compare(read, reference)["event"]}
    for name in (*SCENE, *OBJECTS):
        valid = (getattr(reference, name) >= 0) & (name in TELLS[read.part])
        result[name] = valid & (getattr(read, name) == getattr(reference, name)), valid
    return result


def agreement(a: Reading, b: Reading) -> dict[str, tuple[Tensor, Tensor]]:
    """Compare two readings of the same samples, in what both kinds of media tell.

    An object that only one of them shows is wrong; what a caption leaves out is not compared.
    """
    there, back = compare(a, b), compare(b, a)
    valid = {name: there[name][1] | back[name][1] for name in there}
    valid["event"] = _tells(a, "event") & _tells(b, "event") & ~(a.event.isnan() & b.event.isnan())
    right = {name: there[name][0] | back[name][0] for name in there}
    return {name: (right[name] & valid[name], valid[name]) for name in there}


def score(compared: Sequence[Compared]) -> dict[str, Draws]:
    """Return the share of correct entries by attribute, their "mean", and "all".

    compared: one comparison a part, of the same samples; each attribute is averaged over parts.
    "all" is the share of samples in which every valid entry of every part is correct.
    """
    result = combine([{name: ratio(correct, valid) for name, (correct, valid) in one.items()
                       if valid.any()} for one in compared])  # fmt: skip
    if result:
        flat = [(c.reshape(len(c), -1), x.reshape(len(x), -1)) for one in compared
                for c, x in one.values()]  # fmt: skip
        some = torch.cat([valid for _, valid in flat], 1).any(1)
        wrong = torch.cat([valid & ~correct for correct, valid in flat], 1).any(1)
        result["all"] = ratio(some & ~wrong, some)
    return result


def marginals(reading: Reading) -> dict[str, Float[Tensor, " k"]]:
    """Return how often each value of each attribute occurs, over all objects of all samples."""
    shares = {}
    for name in CODES:
        codes = _codes(reading, name)
        shares[name] = torch.bincount(codes[codes >= 0], minlength=CODES[name]).double()
    return {name: count / count.sum() for name, count in shares.items()}


def distances(
    read: Reading, data: Mapping[str, Tensor], where: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, Draws], dict[str, Draws]]:
    """Return the total variation distance of each attribute's marginal to the data's marginal.

    where: entries to look at, and with it the attributes; all by default. The second dict holds
    the distance that as many draws from the data itself would have, on average.
    """
    found, floor = {}, {}
    for name in CODES if where is None else where:
        codes = _codes(read, name)
        codes = codes if where is None else torch.where(where[name], codes, -1)
        if not _tells(read, name) or not (codes >= 0).any():
            continue
        codes = codes.reshape(len(codes), -1)
        ones = torch.nn.functional.one_hot(codes + 1, CODES[name] + 1)[..., 1:].sum(1).double()
        counts = weights(len(codes)) @ ones
        share = counts / counts.sum(1, keepdim=True)
        found[name] = Draws((share - data[name]).abs().sum(1) / 2, int(ones.any(1).sum()))
        spread = (data[name] * (1 - data[name]) * 2 / torch.pi / ones.sum()).sqrt().sum() / 2
        floor[name] = constant(min(1.0, spread.item()), found[name].n)
    return found, floor


def mentions(read: Reading) -> dict[str, Draws]:
    """Return how often captions say each attribute that they may leave out."""
    present = read.ok[:, None] & (torch.arange(2) < read.count[:, None])
    rates = {name: ratio((getattr(read, name) >= 0) & present, present)
             for name in OBJECTS if name != "shape"}  # fmt: skip
    rates["background"] = ratio((read.background >= 0) & read.ok, read.ok)
    return {name: rate for name, rate in rates.items() if rate.n}


def gap(rate: Draws, data: Draws) -> Draws:
    """Return how far a rate is from the data's rate."""
    return Draws((rate.values - data.values[0]).abs(), rate.n)


def synchrony(made: Sequence[Reading]) -> dict[str, Draws]:
    """Return how often the events of two parts coincide: of one sample, and of "shuffled" ones.

    Averaged over the pairs of parts that tell the event; empty where there is no such pair.
    """
    pairs = []
    for a, b in combinations([r for r in made if _tells(r, "event")], 2):
        pair = {"event": ratio(*sync(a, b, TOLERANCE))}
        if (n := len(a)) > 1:
            near = ((a.event[:, None] - b.event).abs() <= TOLERANCE + 1e-6).double()
            others = (near.sum(1) - near.diagonal()) / (n - 1)
            pair["shuffled"] = ratio(others, torch.ones(n))
        pairs.append(pair)
    result = combine(pairs)
    result.pop("mean", None)
    return result


def _tells(read: Reading, name: str) -> bool:
    return name in TELLS[read.part]


def _codes(read: Reading, name: str) -> Tensor:
    """Return the codes of an attribute; of the count, 0 where nothing was found."""
    codes = getattr(read, name)
    return codes.clamp(min=0) if name == "count" else codes
