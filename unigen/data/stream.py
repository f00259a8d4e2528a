"""Foreign tar streams in the WebDataset convention, in their own order, from any fsspec URL.

There is no index: nothing tells damage that ends a tar early, and a resumed run starts the stream
again. `unigen data shard` makes shards with an index of files that are at hand.
"""

import re
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import IO, Any

import torch
from torch import Tensor

from unigen.data import raw
from unigen.data.bad import Bad
from unigen.data.items import Item
from unigen.data.tars import fault_of, part_of
from unigen.errors import MediaError, UsageError
from unigen.modalities.base import Modality, Raw

Kind = tuple[str, ...]
_META = re.compile(r"__[^/]*__($|/)")  # members about the tar itself, by webdataset's convention


class Stream:
    """An endless source: the tars of some URLs, again and again; a batch is of one kind."""

    def __init__(self, urls: list[str] | str, seed: int = 0, max_bad: float = 0.05):
        """urls: of tars, read by fsspec. seed: of the captions drawn. max_bad: see Bad."""
        self.urls = [urls] if isinstance(urls, str) else list(urls)
        for url in self.urls:
            if re.match(r"\s*(pipe|exec|shell)\s*:", url) or "::" in url:
                raise UsageError(f"data.urls has {url[:80]!r}, which runs a program; give a URL.")
        self.seed, self.bad = seed, Bad(max_bad)
        self.notes = ["a stream has no index: damage may pass, a resumed run starts it again"]
        self.modalities: Mapping[str, Modality] = {}
        self.usable: Callable[[list[str]], bool] = bool
        self._samples: Iterator[tuple[int, str, Item]] = self._endless()
        self._waiting: dict[Kind, list[tuple[int, str, Item]]] = {}
        self._batches: dict[int, list[tuple[int, str, Item]]] = {}
        self._next: int | None = None
        self._lock = threading.Lock()

    def attach(self, modalities: Mapping[str, Modality], usable: Callable) -> None:
        """Meet the modalities that read the samples, and what of them is of use."""
        self.modalities, self.usable = modalities, usable

    def order(self, seed: int, step: int, batch: int) -> Tensor:
        """Return numbers of samples: those of a step."""
        return torch.arange(step * batch, (step + 1) * batch)

    def available(self, index: Tensor) -> list[str]:
        """Return the parts of the batch that these numbers stand for."""
        return sorted(self._batch(index)[0][2])

    def batch(self, index: Tensor, parts: list[str]) -> dict[str, Raw]:
        """Return raw media; a broken sample is replaced by the next good one of its batch."""
        samples = self._batch(index)
        rows = [self._row(*sample, parts) for sample in samples]
        good = [place for place, row in enumerate(rows) if row is not None]
        if not good:
            raise MediaError(f"every sample of a batch is broken, such as {samples[0][1]!r}")
        chosen = [next((g for g in good if g >= i), good[0]) for i in range(len(rows))]
        joined = {p: [r[p] for r in (rows[i] for i in chosen) if r is not None] for p in parts}
        return {part: self.modalities[part].join(raws) for part, raws in joined.items()}

    def lessons(self, part: str, count: int) -> Raw:
        """Read a part of the first samples that have it, every caption of them."""
        found: list[Raw] = []
        for number, name, item in self._once():
            if part in item and len(found) < count:
                row = self._row(number, name, item, [part])
                found += [] if row is None else [row[part]]
            elif len(found) >= count:
                break
        if not found:
            raise MediaError(f"the stream has no {part} to learn from; leave it out of modality=")
        return self.modalities[part].join(found)

    def _row(self, number: int, name: str, item: Item, parts: list[str]) -> dict[str, Raw] | None:
        self.bad.seen(number)
        row = {}
        for part in parts:
            try:
                row[part] = raw.take(self.modalities[part], item[part], self.seed + number)
            except MediaError as error:
                self.bad.add(number, part, {"name": name, "part": part, "reason": str(error)})
                return None
        return row

    def _batch(self, index: Tensor) -> list[tuple[int, str, Item]]:
        """Return the samples of a step; batches are formed in order, whichever thread asks."""
        size = len(index)
        step = int(index[0]) // size
        with self._lock:
            if self._next is None:
                self._next = step  # a resumed run starts the stream again
            while self._next <= step:
                self._batches[self._next] = self._form(size)
                self._next += 1
            for old in [s for s in self._batches if s < step - 64]:
                del self._batches[old]
            return self._batches[step]

    def _form(self, size: int) -> list[tuple[int, str, Item]]:
        """Collect samples until one kind has enough for a batch."""
        for sample in self._samples:
            kind = tuple(sorted(sample[2]))
            self._waiting.setdefault(kind, []).append(sample)
            if len(self._waiting[kind]) == size:
                return self._waiting.pop(kind)
        raise MediaError("the stream has no samples that can be learned from")

    def _endless(self) -> Iterator[tuple[int, str, Item]]:
        number = 0
        while True:
            before = number
            for _, name, item in self._once():
                kept = {part: value for part, value in item.items() if part in self.modalities}
                if kept and self.usable(sorted(kept)):
                    yield number, name, kept
                    number += 1
            if number == before:
                return

    def _once(self) -> Iterator[tuple[int, str, Item]]:
        """Yield the samples of all tars, once: webdataset says which files are one sample."""
        try:
            fsspec, wds = import_module("fsspec"), import_module("webdataset.tariterators")
        except ImportError:
            raise UsageError(
                "data=stream needs webdataset and fsspec; type pip install 'unigen[data]'."
            ) from None
        number = 0
        for url in self.urls:
            try:
                with fsspec.open(url, "rb") as stream:
                    for sample in wds.group_by_keys(self._members(url, stream)):
                        yield number, f"{url}/{sample['__key__']}", _item(sample)
                        number += 1
            except (OSError, EOFError, ValueError, ImportError, tarfile.TarError) as error:
                words = " ".join(str(error).split())[:120]
                raise MediaError(f"{url[:120]} cannot be read as a tar: {words}") from error

    def _members(self, url: str, stream: IO[bytes]) -> Iterator[dict[str, Any]]:
        """Yield the files of a tar as webdataset has them; name what is refused, and read on."""
        with tarfile.open(fileobj=stream, mode="r|*") as tar:
            for info in tar:
                vars(tar)["members"] = []  # what is past is not kept: memory stays flat
                if info.isdir() or _META.match(info.name):
                    continue
                fault = fault_of(info)
                file = tar.extractfile(info) if fault is None else None
                if file is not None:
                    yield {"fname": info.name, "data": file.read(), "__url__": url}
                else:
                    self.bad.write({"name": f"{url}/{info.name}", "part": "", "reason": fault})


def _item(sample: dict[str, Any]) -> Item:
    """Return the parts of a sample; nothing is decoded."""
    found: Item = {}
    for extension, data in sample.items():
        part = None if extension.startswith("__") else part_of(extension)
        if part and isinstance(data, bytes):
            found.setdefault(part, data)
    return found
