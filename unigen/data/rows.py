"""Latents instead of media: an indexed source whose items were encoded before.

In memory, or as the folder that `unigen data encode` wrote, of which only the rows of a batch are
read.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unigen.data.indexed import Indexed
from unigen.data.items import folder
from unigen.data.tables import read_json
from unigen.errors import MediaError, UsageError
from unigen.modalities.base import Modality
from unigen.tensorfile import DTYPES

INDEX = "index.json"
Places = dict[str, list[tuple[int, int]]]  # by part, of every item: its first row, and how many


class Rows(Indexed):
    """Items of which every part is one row of latents or several, one a caption."""

    def __init__(
        self,
        names: Sequence[str],
        places: Places,
        fetch: Callable[[str, int], Tensor],  # part, row -> [n, c]
        seed: int = 0,
        max_bad: float = 0.05,
    ):
        """places: where the rows of each item are."""
        parts = sorted(places)
        counts = torch.tensor([[count for _, count in places[p]] for p in parts]).T
        super().__init__(names, parts, counts > 0, seed, max_bad)
        self.places, self.fetch = places, fetch

    @property
    def spec(self) -> str:
        """Name the items."""
        return f"rows {hashlib.sha256(repr((self.names, self.places)).encode()).hexdigest()[:16]}"

    def read(self, item: int, part: str, draw: int) -> Tensor:
        """Return the latents of one part of one item, [1, n, c]."""
        first, count = self.places[part][item]
        return self.fetch(part, first + draw % count)[None]

    def join(self, part: str, raws: list[Tensor]) -> Tensor:
        """Return latents [b, n, c]."""
        return torch.cat(raws)


class LatentShards(Rows):
    """The folder that `unigen data encode` wrote; its codecs must be those of the model."""

    def __init__(self, root: str, seed: int = 0, max_bad: float = 0.05):
        """root: the folder. seed: of the captions drawn. max_bad: see Indexed."""
        self.root = folder(root)
        if not (self.root / INDEX).is_file():
            raise UsageError(
                f"data.root={root} has no {INDEX}: it is no folder of latents, or a half-made "
                "one; type unigen data encode ... again with the same out=."
            )
        index = read_json(self.root / INDEX)
        try:
            self.codecs: dict[str, str] = dict(index["codecs"])
            self.shards: list[dict[str, Any]] = [_checked(shard) for shard in index["shards"]]
            names = [name for shard in self.shards for name in shard["names"]]
            places, self._where = _lay(self.shards, list(self.codecs))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise MediaError(
                f"{self.root / INDEX} is no index of latents; encode them again."
            ) from None
        self._whole: set[int] = set()
        super().__init__(names, places, self._fetch, seed, max_bad)
        self.names_root = str(self.root)

    def attach(self, modalities: Mapping[str, Modality]) -> None:
        """Meet the model; raises UsageError where its codecs are not those of the latents."""
        super().attach(modalities)
        for part, made in self.codecs.items():
            if part in modalities and codec_of(modalities[part]) != made:
                raise UsageError(
                    f"the {part} latents of {self.root} were made by other codecs than this "
                    "model's; start from the model that made them with init=[its folder], or "
                    "encode again."
                )

    def where(self, item: int, part: str) -> dict[str, Any]:
        """Return the file of the latents."""
        shard, _ = self._where[part][self.places[part][item][0]]
        return {"shard": self.shards[shard]["file"]}

    def _fetch(self, part: str, row: int) -> Tensor:
        number, inner = self._where[part][row]
        shard = self.shards[number]
        table = shard["parts"][part]
        dtype, (_, n, c) = DTYPES[table["dtype"]], table["shape"]
        size = n * c * dtype.itemsize
        path = self.root / shard["file"]
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "rb") as file:
                if number not in self._whole:  # once, at its first use
                    sha = hashlib.file_digest(file, "sha256").hexdigest()
                    if sha != shard["sha256"]:
                        raise MediaError("its shard is not what was written: another sha256")
                    self._whole.add(number)
                data = os.pread(file.fileno(), size, table["offset"] + inner * size)
        except OSError as error:
            raise MediaError(f"its shard cannot be read: {error.strerror}") from None
        if len(data) != size:
            raise MediaError("its shard is cut")
        return torch.frombuffer(bytearray(data), dtype=dtype).reshape(n, c)


def _checked(shard: dict[str, Any]) -> dict[str, Any]:
    """Return a shard of the index; ValueError for a file name that leads elsewhere."""
    if Path(shard["file"]).name != shard["file"] or not isinstance(shard["sha256"], str):
        raise ValueError(shard["file"])
    for table in shard["parts"].values():
        if len(table["counts"]) != len(shard["names"]) or table["dtype"] not in DTYPES:
            raise ValueError(shard["file"])
        if sum(table["counts"]) != table["shape"][0] or min(table["counts"]) < 0:
            raise ValueError(shard["file"])
    return shard


def _lay(
    shards: list[dict[str, Any]], parts: list[str]
) -> tuple[Places, dict[str, list[tuple[int, int]]]]:
    """Return where the rows of each item are, and of each row its shard and its row there."""
    places: Places = {part: [] for part in parts}
    rows: dict[str, list[tuple[int, int]]] = {part: [] for part in parts}
    for number, shard in enumerate(shards):
        for part in parts:
            table = shard["parts"].get(part)
            counts = table["counts"] if table else [0] * len(shard["names"])
            total = len(rows[part])
            rows[part] += [(number, row) for row in range(sum(counts))]
            for count in counts:
                places[part].append((total, count))
                total += count
    return places, rows


def codec_of(modality: Modality) -> str:
    """Name what makes a modality's latents: weights less the tower's, words, shapes, places."""
    digest = hashlib.sha256(f"{type(modality).__name__} {modality.shape}".encode())
    spec = getattr(modality, "spec", {})
    words = [v for v in spec.values() if isinstance(v, list) and v and isinstance(v[0], str)]
    digest.update(repr(words).encode())
    tensors = {"positions": modality.positions()}
    borrowed = [v for v in vars(modality).values() if isinstance(v, nn.Module)]
    for i, module in enumerate([modality, *borrowed]):
        tensors |= {f"{i}.{k}": v for k, v in module.state_dict().items()}
    for name, tensor in tensors.items():
        if ".tower." not in name:
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(name.encode() + flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
