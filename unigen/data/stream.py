"""Foreign tar streams in the WebDataset convention, in their own order, from any fsspec URL.

There is no index: nothing tells damage that ends a tar early, and a resumed run starts the stream
again. `unigen data shard` makes shards with an index of files that are at hand.
"""

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from importlib import import_module
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor

from unigen.data import raw
from unigen.data.bad import Bad
from unigen.data.items import Item, Refused
from unigen.data.tars import pass_tar
from unigen.errors import MediaError, UnigenError, UsageError
from unigen.modalities.base import Modality, Raw

Kind = tuple[str, ...]
Row = dict[str, Raw]


class Sample(NamedTuple):
    """What the files of one key hold, by part; nothing is decoded."""

    number: int  # in the stream, of those of use
    name: str
    item: Item


class Stream:
    """An endless source: the tars of some URLs, again and again; a batch is of one kind.

    A number stands for row `number % batch` of batch `number // batch`, whoever asks for it:
    shares of a batch are of the same batch.
    """

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
        self._samples = self._endless()
        self._waiting: dict[Kind, list[Sample]] = {}
        self._size = 1  # of a batch
        self._batches: dict[int, list[Sample]] = {}  # by step
        self._next: int | None = None
        self._end: Exception | None = None  # why there are no more
        self._unused: Refused | None = None  # the first that was named
        self._lock = threading.Lock()

    def attach(self, modalities: Mapping[str, Modality], usable: Callable) -> None:
        """Meet the modalities that read the samples, and what of them is of use."""
        self.modalities, self.usable = modalities, usable

    def order(self, seed: int, step: int, batch: int) -> Tensor:
        """Return numbers of samples: those of a step. Batches of another size begin anew."""
        with self._lock:
            if batch != self._size:
                self._size, self._next = batch, None
                self._batches.clear()
        return torch.arange(step * batch, (step + 1) * batch)

    def available(self, index: Tensor) -> list[str]:
        """Return the parts that all of these samples have."""
        return sorted(set.intersection(*({*self._sample(n).item} for n in index.tolist())))

    def batch(self, index: Tensor, parts: list[str]) -> dict[str, Raw]:
        """Return raw media; a broken sample is replaced by the next good one of its batch."""
        read = cache(lambda number: self._row(self._sample(number), parts))
        rows = [self._good(number, read) for number in index.tolist()]
        return {part: self.modalities[part].join([row[part] for row in rows]) for part in parts}

    def lessons(self, part: str, count: int) -> Raw:
        """Read a part of the first samples that have it, every caption of them."""
        found: list[Raw] = []
        for number, (name, item) in enumerate(self._once()):
            if part in item and len(found) < count:
                row = self._row(Sample(number, name, item), [part])
                found += [] if row is None else [row[part]]
            elif len(found) >= count:
                break
        if not found:
            raise MediaError(
                f"the stream has no {part} to learn from{self._hint()}; leave it out of modality="
            )
        return self.modalities[part].join(found)

    def _good(self, number: int, read: Callable[[int], Row | None]) -> Row:
        """Return the row of a number, or of the next one in its batch that can be read."""
        step, place = divmod(number, self._size)
        for further in range(self._size):
            row = read(step * self._size + (place + further) % self._size)
            if row is not None:
                return row
        name = self._sample(number).name
        raise MediaError(f"every sample of a batch is broken, such as {name!r}")

    def _row(self, sample: Sample, parts: list[str]) -> Row | None:
        self.bad.seen(hash(sample.name))
        row = {}
        for part in parts:
            try:
                draw = self.seed + sample.number
                row[part] = raw.take(self.modalities[part], sample.item[part], draw)
            except MediaError as error:
                self._broken(sample.name, part, str(error))
                return None
        return row

    def _sample(self, number: int) -> Sample:
        """Return a sample; batches are formed in order, whichever thread asks."""
        step, place = divmod(number, self._size)
        with self._lock:
            if self._next is None:
                self._next = step  # a resumed run starts the stream again
            while self._next <= step:
                self._batches[self._next] = self._form()
                self._next += 1
            for old in [s for s in self._batches if s < step - 64]:
                del self._batches[old]
            return self._batches[step][place]

    def _form(self) -> list[Sample]:
        """Collect samples until one kind has enough for a batch.

        What ends the stream is raised again, whichever thread asks for more.
        """
        try:
            for sample in self._samples:
                kind = tuple(sorted(sample.item))
                waiting = self._waiting.setdefault(kind, [])
                waiting.append(sample)
                if len(waiting) >= self._size:
                    self._waiting[kind] = waiting[self._size :]
                    return waiting[: self._size]
        except Exception as error:
            self._end = error
        none = f"the stream has no samples that can be learned from{self._hint()}"
        self._end = self._end or MediaError(none)
        raise self._end

    def _endless(self) -> Iterator[Sample]:
        number = 0
        while True:
            before = number
            for name, item in self._once():
                kept = {part: value for part, value in item.items() if part in self.modalities}
                if kept and self.usable(sorted(kept)):
                    yield Sample(number, name, kept)
                    number += 1
            if number == before:
                return

    def _once(self) -> Iterator[tuple[str, Item]]:
        """Yield the samples of all tars, once; damage is named, counted and passed over."""
        group = _library("webdataset.tariterators").group_by_keys
        for url in self.urls:
            with _opened(url) as stream:
                for key, item, fault in pass_tar(stream, group, partial(self._refuse, url)):
                    name = f"{url}/{key}" if key else url
                    if fault is None:
                        yield name, item
                    else:
                        self._broken(name, "tar", fault)

    def _broken(self, name: str, part: str, reason: str) -> None:
        """Name and count what is broken; raises MediaError where there is too much of it."""
        unused = Refused(name, part, reason)
        self._unused = self._unused or unused
        self.bad.add(hash(name), part, unused._asdict())

    def _refuse(self, url: str, member: str, reason: str) -> None:
        """Name a member that is not wanted."""
        unused = Refused(f"{url}/{member}", "", reason)
        self._unused = self._unused or unused
        self.bad.write(unused._asdict())

    def _hint(self) -> str:
        """Say what is not used, if anything was named."""
        if self._unused is None:
            return ""
        return f", and {self._unused.name[:120]!r} is not used: {self._unused.reason}"


def _library(name: str) -> Any:
    """Return a module of the extra `data`, or say how to install it."""
    try:
        return import_module(name)
    except ImportError:
        needed = name.partition(".")[0]
        raise UsageError(f"data=stream needs {needed}; type pip install 'unigen[data]'.") from None


@contextmanager
def _opened(url: str) -> Iterator[IO[bytes]]:
    """Open a URL by fsspec; errors name it, and what to type."""
    fsspec, shown = _library("fsspec"), url[:120]
    try:
        place = fsspec.open(url, "rb")
    except ImportError as error:
        package = getattr(error.__cause__, "name", None) or str(error)
        raise UsageError(
            f"data.urls has {shown!r}, which takes {package}; type pip install {package}."
        ) from error
    except ValueError as error:
        raise UsageError(f"data.urls has {shown!r}, which is no URL of fsspec: {error}.") from error
    try:
        with place as stream:
            yield stream
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise UsageError(f"data.urls has {shown!r}, which is no file; check the address.") from None
    except (UnigenError, MemoryError):
        raise
    except Exception as error:  # every protocol has errors of its own
        words = " ".join(str(error).split())[:120]
        raise MediaError(f"{shown} cannot be read: {type(error).__name__} {words}") from error
