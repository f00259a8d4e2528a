"""An indexed source: so many items, each with some of the parts, read in any order.

Items with the same parts are of one kind and form batches together. An index counts on through
the epochs: item `index % len`, seen for the `index // len`-th time, so that what is drawn for an
item (which of its captions) is a function of seed, epoch and item.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from unigen.data.bad import Bad
from unigen.data.items import Refused
from unigen.errors import MediaError, UsageError


class Indexed(ABC):
    """A finite source of training data; `names` and `has` tell what is in it."""

    names_root = ""  # the folder in which names are unique, if they are not everywhere

    def __init__(
        self,
        names: Sequence[str],  # of the items, for messages
        parts: Sequence[str],
        has: Bool[Tensor, "items parts"],
        seed: int = 0,  # of what is drawn for an item
        max_bad: float = 0.05,  # share of broken items, of those seen, that a run bears
    ):
        """Describe the items; nothing is read."""
        self.names, self.parts, self.has, self.seed = names, tuple(parts), has, seed
        self.bad = Bad(max_bad, len(names))
        self.notes: list[str] = []
        self.refused: list[Refused] = []
        self._plan: tuple[Any, list[Tensor]] = (None, [])
        self.restrict(self.parts)

    @property
    @abstractmethod
    def spec(self) -> str:
        """Name the source so that latents made of it can be found again."""

    @abstractmethod
    def read(self, item: int, part: str, draw: int) -> Any:
        """Read one part of one item as a batch of one; MediaError says why it is broken."""

    @abstractmethod
    def join(self, part: str, raws: list[Any]) -> Any:
        """Return one batch of several."""

    def where(self, item: int, part: str) -> dict[str, Any]:
        """Return where a part of an item lies, for the list of broken ones."""
        return {}

    def log_bad(self, path: Path) -> None:
        """Name in a file what is refused, and from now on what is broken."""
        self.bad.log(path, self.names_root)
        for refused in self.refused:
            self.bad.write(refused._asdict())

    def attach(self, modalities: Any) -> None:
        """Meet the model's modalities."""
        self.restrict([part for part in self.parts if part in modalities])

    def restrict(
        self, parts: Sequence[str], usable: Callable[[list[str]], bool] | None = None
    ) -> None:
        """Use only some parts, and only items whose parts are of use.

        Raises UsageError where no item is left.
        """
        kept = torch.tensor([part in parts for part in self.parts])
        found = (self.has & kept).long()
        code = (found * 2 ** torch.arange(len(self.parts))).sum(1)
        self.kinds: list[Tensor] = []  # the items of each kind
        self._kind = torch.full((len(self.names),), -1)
        for value in code.unique().tolist():
            these = (code == value).nonzero()[:, 0]
            there = [p for p, one in zip(self.parts, found[these[0]], strict=True) if one]
            if there and (usable is None or usable(there)):
                self._kind[these] = len(self.kinds)
                self.kinds.append(these)
        self._used, self._plan = found, (None, [])
        if not self.kinds:
            raise UsageError(
                f"the data has items with {' or '.join(self.parts) or 'nothing'}, and none that "
                "can be learned from here; check modality=, objective= and data.root="
            )

    def __len__(self) -> int:
        """Return the number of items, of whatever use."""
        return len(self.names)

    def describe(self, item: int) -> str:
        """Return the name of an item, in whatever epoch."""
        return str(self.names[item % len(self)])

    def available(self, index: Tensor) -> list[str]:
        """Return the parts that all of some items have."""
        rows = self._used[index % len(self)]
        return [p for p, there in zip(self.parts, rows.all(0), strict=True) if there]

    def order(self, seed: int, step: int, batch: int) -> Tensor:
        """Return the items of a step, all of one kind, as a function of (seed, step).

        An epoch shows every item once; the last batch of a kind is filled up from its start.
        """
        per_epoch = sum(-(-len(kind) // batch) for kind in self.kinds)
        epoch, place = divmod(step, per_epoch)
        key, plan = self._plan
        if key != (seed, epoch, batch):
            plan = self._epoch(seed, epoch, batch)
            self._plan = ((seed, epoch, batch), plan)
        return plan[place] + epoch * len(self)

    def _epoch(self, seed: int, epoch: int, batch: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed * 7919 + epoch)
        batches = []
        for kind in self.kinds:
            mixed = kind[torch.randperm(len(kind), generator=generator)]
            count = -(-len(kind) // batch)
            batches += mixed[torch.arange(count * batch) % len(kind)].split(batch)
        return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]

    def spread(self, count: int) -> list[Tensor]:
        """Return about `count` items, kind by kind as there are of each, evenly over the kind."""
        total = sum(len(kind) for kind in self.kinds)
        share = min(1.0, count / total)
        numbers = [max(1, round(share * len(kind))) for kind in self.kinds]
        return [kind[torch.arange(n) * len(kind) // n]
                for kind, n in zip(self.kinds, numbers, strict=True)]  # fmt: skip

    def batch(self, index: Tensor, parts: Sequence[str]) -> dict[str, Any]:
        """Return raw media, or latents, of some items by part.

        A broken item is replaced by the next good one of its kind, counted and named; where its
        kind has none, by one of another kind with these parts. Raises MediaError where there is
        none either, or where too many are broken.
        """
        rows = [self._good(number, parts) for number in index.tolist()]
        return {part: self.join(part, [row[part] for row in rows]) for part in parts}

    def _good(self, number: int, parts: Sequence[str]) -> dict[str, Any]:
        epoch, item = divmod(number, len(self))
        for other in self._candidates(item, parts):
            if any(self.bad.known(other, part) for part in parts):
                continue
            row = self._row(other, epoch, parts)
            if row is not None:
                return row
        raise MediaError(
            f"every item with {', '.join(parts)} is broken, such as {self.describe(item)!r}; "
            "unigen data check names them all"
        )

    def _candidates(self, item: int, parts: Sequence[str]) -> Iterator[int]:
        """Yield an item, those of its kind that follow, and then all that have some parts."""
        kind = self.kinds[int(self._kind[item])]
        start = int(torch.searchsorted(kind, item))
        for step in range(len(kind)):
            yield int(kind[(start + step) % len(kind)])
        columns = [self.parts.index(part) for part in parts]
        yield from self._used[:, columns].bool().all(1).nonzero()[:, 0].tolist()

    def _row(self, item: int, epoch: int, parts: Sequence[str]) -> dict[str, Any] | None:
        """Read an item, or count it as broken and return nothing."""
        self.bad.seen(item)
        row = {}
        for part in parts:
            try:
                row[part] = self.read(item, part, self.draw(item, epoch))
            except MediaError as error:
                self.bad.add(item, part, self.record(item, part, str(error)))
                return None
        return row

    def record(self, item: int, part: str, reason: str) -> dict[str, Any]:
        """Return what is to be said of a broken part of an item."""
        name = self.describe(item)
        return {"name": name, "part": part, "reason": reason, **self.where(item, part)}

    def draw(self, item: int, epoch: int) -> int:
        """Return a large number that is a function of (seed, epoch, item)."""
        digest = hashlib.sha256(f"{self.seed} {epoch} {item}".encode()).digest()
        return int.from_bytes(digest[:6], "big")
