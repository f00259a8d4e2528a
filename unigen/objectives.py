"""Three lessons for one training loop: codec, align, denoise.

An objective says which module learns, which parts it wants to see, what of the work can be made
once and kept (`cached`, `encode`), and what the losses are: of a batch, or of a share of it whose
random numbers and normalization are those of the whole (`unigen.share`). `available` are the parts
that a batch has, None for all.
"""

import re
from collections.abc import Collection, Sequence
from itertools import combinations
from math import fsum, inf
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unigen.align import Similarity, contrastive
from unigen.errors import UsageError
from unigen.modalities.base import Raw
from unigen.model import UniGen
from unigen.presence import CONDITIONAL
from unigen.share import draw, share_of
from unigen.tokens import modality_of

Losses = dict[str, Float[Tensor, ""]]


class Codec:
    """Reconstruction, one modality alone."""

    teaches_codec = True

    def __init__(self, modality: str, cached: bool = False, encoder: bool = True):
        """modality: whose codec learns. cached: the part with nothing to learn works once.

        encoder: False lets only the way back learn, so that latents made before stay valid.
        """
        self.modality, self.cached, self.moves_latents = modality, cached, encoder

    def encode(self, model: UniGen, part: str, raw: Raw) -> Tensor:
        """Return what can be made once and kept: the work of what has nothing to learn."""
        return model.modality(part).front(raw)

    def module(self, model: UniGen) -> nn.Module:
        """Return what learns."""
        modality = model.modality(self.modality)
        return modality if self.moves_latents else modality.get_submodule("codec.back")

    def usable(self, available: list[str]) -> bool:
        """Return whether there is something to learn from data with these parts."""
        return self.modality in available

    def parts(
        self, model: UniGen, generator: torch.Generator, available: list[str] | None = None
    ) -> list[str]:
        """Return the parts of a batch."""
        return [self.modality]

    def loss(self, model: UniGen, batch: dict, generator: torch.Generator) -> Losses:
        """Return the loss of the reconstruction."""
        modality, value = model.modality(self.modality), batch[self.modality]
        front = value if self.cached else modality.front(value)
        return {self.modality: modality.codec_loss(front, generator)}


class Align:
    """Contrastive training of the towers, on latents."""

    teaches_codec, moves_latents, cached = False, False, True

    def __init__(self, anchor: str | None = None):
        """`anchor`: the modality whose tower stands still (frozen-anchor regime); none: dynamic."""
        self.anchor, self.similarity = anchor, Similarity()

    def encode(self, model: UniGen, part: str, raw: Raw) -> Tensor:
        """Return what can be made once and kept: the latents."""
        return model.modality(part).encode(raw)

    def module(self, model: UniGen) -> nn.Module:
        """Return what learns."""
        if self.anchor is not None:
            model.modality(self.anchor)  # or the error that names the known ones
        names = [n for n in model.modalities if n != self.anchor]
        towers = {n: model.modality(n).tower for n in names}
        return nn.ModuleDict({**towers, "similarity": self.similarity})

    def usable(self, available: list[str]) -> bool:
        """Return whether there is a pair to learn from in data with these parts."""
        return len(available) > 1 and self.anchor in (None, *available)

    def parts(
        self, model: UniGen, generator: torch.Generator, available: list[str] | None = None
    ) -> list[str]:
        """Return the parts of a batch: all."""
        return [name for name in model.modalities if available is None or name in available]

    def loss(self, model: UniGen, batch: dict, generator: torch.Generator) -> Losses:
        """Return the loss of every pair, on slightly noisy latents."""
        points, share = {}, share_of(generator)
        for name in (n for n in model.modalities if n in batch):
            z = batch[name]
            eps = draw(torch.randn, z.shape, generator, z.device)
            points[name] = share.gather(model.modality(name).embed(z + 0.1 * eps))
        return contrastive(points, self.similarity, self.anchor)


class Way(NamedTuple):
    """A direction that training asks for, and how often."""

    given: frozenset[str]
    parts: frozenset[str]  # that are there: given and wanted
    share: float  # of the batches

    @classmethod
    def read(cls, text: Any) -> "Way":
        """Read "text > image: 0.2", or "> image: 0.1" for nothing given; else UsageError."""
        told = re.fullmatch(r"([\w ]*)>([\w ]*\w[\w ]*): *(\d*\.?\d+)", str(text))
        given, want = (set(told[i].split()) for i in (1, 2)) if told else (set(), set())
        if not told or given & want:
            raise UsageError(
                f"objective.ways has {text!r}, which is no direction with its share of the "
                'batches; type objective.ways=["text > image: 0.2"].'
            )
        return cls(frozenset(given), frozenset(given | want), float(told[3]))


class Denoise:
    """The flow loss over random subsets of the modalities."""

    teaches_codec, moves_latents, cached = False, False, True

    def __init__(
        self,
        shares: Sequence[int | float] = (0.05, 0.45, 0.3, 0.2),
        must: tuple[str, ...] | list[str] = (),
        conditional: float | int = CONDITIONAL,
        given: tuple[str, ...] | list[str] = (),
        ways: Sequence[str] = (),
    ):
        """shares: how often a batch shows 1, 2, 3, ... modalities; sets of a size are equal.

        must: modalities of which every batch shows one at least, where the data has one.
        conditional: share of the samples of which something is given. given: modalities that are
        it most of the time, the others seldom; none: all alike.
        ways: directions, such as "text > image: 0.2" or "> image video: 0.1", each with the share
        of the batches that shows its parts; most samples with just these parts go that way. All
        else is drawn as the other arguments say.
        Raises UsageError for shares that never show anything, and for what is no share or way.
        """
        if not all(isinstance(s, int | float) and 0 <= s < inf for s in shares) or not any(shares):
            raise UsageError(
                f"objective.shares={list(shares)} says no shares; type numbers of 0 and more, one "
                "of them above 0, such as objective.shares=[0.1,0.9]."
            )
        self.shares, self.must = [float(s) for s in shares], set(must)
        self.often: dict[str, Any] = {"conditional": conditional, "given": list(given)}
        if not isinstance(conditional, int | float) or not 0 <= conditional < 1:
            raise UsageError(
                f"objective.conditional={conditional} is no share from 0 up to 1; type "
                f"objective.conditional={CONDITIONAL}."
            )
        self.ways = [Way.read(text) for text in ways]
        if fsum(way.share for way in self.ways) > 1:
            raise UsageError("the shares of objective.ways are more than 1 together; lower them.")

    def encode(self, model: UniGen, part: str, raw: Raw) -> Tensor:
        """Return what can be made once and kept: the latents."""
        return model.modality(part).encode(raw)

    def module(self, model: UniGen) -> nn.Module:
        """Return what learns."""
        for name in (*self.often["given"], *sorted({p for way in self.ways for p in way.parts})):
            model.modality(name)  # or the error that names the known ones
        return model.denoiser

    def usable(self, available: list[str]) -> bool:
        """Return whether batches of some of these parts are ever shown."""
        return any(self.shares[: len(available)])

    def parts(
        self, model: UniGen, generator: torch.Generator, available: list[str] | None = None
    ) -> list[str]:
        """Draw a presence set: that of a way, or a size and a set of it."""

        def draw_from(chances: Sequence[float]) -> int:
            return int(torch.multinomial(torch.tensor(chances), 1, generator=generator))

        names = sorted(model.modalities if available is None else available)
        ways, rest = self._possible(names)
        if ways and (way := draw_from([*(way.share for way in ways), rest])) < len(ways):
            return sorted(ways[way].parts)
        sets = sets_of(names, 1 + draw_from(within(self.shares, len(names))), self.must)
        return sets[int(torch.randint(len(sets), (), generator=generator))]

    def sets(self, names: Sequence[str]) -> list[tuple[float, list[str]]]:
        """Return how often a batch shows which of these modalities: those of a way, or any."""
        ways, rest = self._possible(names)
        drawn = presence_sets(names, self.shares, self.must)
        asked = [(way.share, sorted(way.parts)) for way in ways]
        return asked + [(rest * share, some) for share, some in drawn]

    def _possible(self, names: Sequence[str]) -> tuple[list[Way], float]:
        """Return the ways whose parts are all there, and the share of the batches that is left."""
        ways = [way for way in self.ways if way.parts <= {*names}]
        return ways, 1 - fsum(way.share for way in ways)

    def loss(self, model: UniGen, batch: dict, generator: torch.Generator) -> Losses:
        """Return the loss of every part."""
        return model.loss(batch, generator, **self.told(batch))

    def told(self, batch: Collection[str]) -> dict[str, Any]:
        """Return what a batch with these parts tells `draw_clocks`."""
        shown = {modality_of(part) for part in batch}
        ways = [(way.given, way.share) for way in self.ways if way.parts == shown]
        return {**self.often, "ways": ways}


def sets_of(names: Sequence[str], size: int, must: Collection[str] = ()) -> list[list[str]]:
    """Return the sets of so many names that have one of `must`, or all where none has."""
    sets = [list(some) for some in combinations(sorted(names), size)]
    return [some for some in sets if {*must} & {*some}] or sets


def presence_sets(
    names: Sequence[str], shares: Sequence[int | float], must: Collection[str] = ()
) -> list[tuple[float, list[str]]]:
    """Return how often each set is drawn of 1, 2, 3, ... names, the commonest first.

    must: names of which every set has one at least, where a set of its size can.
    """
    shares, found = within(shares, len(names)), []
    for size, share in enumerate(shares, 1):
        sets = sets_of(names, size, must)
        found += [(share / sum(shares) / len(sets), some) for some in sets]
    return sorted(found, key=lambda pair: -pair[0])


def within(shares: Sequence[int | float], most: int) -> list[int | float]:
    """Return the shares of sets of up to so many modalities; UsageError where all of them are 0."""
    if not any(shares[:most]):
        raise UsageError(
            f"objective.shares={list(shares)} shows no set of up to {most} modalities, and there "
            f"are no more here; set one of the first {most} above 0."
        )
    return list(shares[:most])
