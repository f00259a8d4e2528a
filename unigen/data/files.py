"""Items that lie in files or shards, read by the model's own modalities."""

from collections.abc import Mapping
from typing import Any

import torch

from unigen.data import raw
from unigen.data.indexed import Indexed
from unigen.data.items import Listing
from unigen.errors import MediaError
from unigen.modalities.base import Modality, Raw


class Files(Indexed):
    """The items of a listing."""

    def __init__(self, listing: Listing, seed: int = 0, max_bad: float = 0.05):
        """listing: what there is. seed, max_bad: see Indexed."""
        parts = sorted({part for item in listing.items for part in item})
        has = torch.tensor([[part in item for part in parts] for item in listing.items])
        super().__init__(listing.names, parts, has, seed, max_bad)
        self.listing, self.modalities = listing, {}
        self.notes, self.refused = listing.notes, listing.refused
        self.names_root = str(listing.root)

    @property
    def spec(self) -> str:
        """Name the items, with the sizes and times of their files."""
        return f"files {self.listing.digest()}"

    def attach(self, modalities: Mapping[str, Modality]) -> None:
        """Meet the modalities that read the files."""
        super().attach(modalities)
        self.modalities = modalities

    def read(self, item: int, part: str, draw: int) -> Raw:
        """Read one part of one item as a raw batch of one."""
        return raw.take(self.modalities[part], self.listing.items[item][part], draw)

    def readings(self, item: int, part: str) -> list[Raw]:
        """Read a part in all its forms: one, or a caption each."""
        modality, value = self.modalities[part], self.listing.items[item][part]
        count = len(raw.all_captions(value)) if modality.plain else 1
        return [raw.take(modality, value, draw) for draw in range(count)]

    def lessons(self, part: str, count: int) -> Raw:
        """Read a part of the first items that have it, every caption of them."""
        found, column = [], self.parts.index(part) if part in self.parts else None
        items = [] if column is None else self.has[:, column].nonzero()[:, 0].tolist()
        for item in items:
            if len(found) >= count:
                break
            self.bad.seen(item)
            try:
                found += self.readings(item, part)
            except MediaError as error:
                self.bad.add(item, part, self.record(item, part, str(error)))
        if not found:
            raise MediaError(
                f"the data has no {part} to learn from; leave it out of modality=[...]"
            )
        return self.modalities[part].join(found)

    def join(self, part: str, raws: list[Raw]) -> Raw:
        """Return one raw batch."""
        return self.modalities[part].join(raws)

    def where(self, item: int, part: str) -> dict[str, Any]:
        """Return the file, or the shard and offset."""
        return raw.where(self.listing.items[item][part])
