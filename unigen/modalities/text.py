"""Text: sentences of known words. Every word is a token and a point on a sphere.

The points are spread as evenly as they go, so that a word survives noise; nothing is learned from
which words stand together, so that a pair never seen is as good as any other. Words are settled in
their order.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unigen import media
from unigen.errors import UsageError
from unigen.lens import Points
from unigen.modalities.base import Modality

END, UNKNOWN = 0, 1  # ids before those of the words
LONGEST = 40  # characters of a word that a note shows
_UNITS = re.compile(r"\w+|[^\w\s]")


class Sentences(Modality):
    """Text as files and as what a user types, whatever becomes of it."""

    name, suffix, plain = "text", ".txt", True

    def read(self, path: Path) -> tuple[list[str], list[str]]:
        """Read a text file."""
        text = media.read_text(path)
        return [text], self.check([text])

    def take(self, value: Any) -> tuple[list[str], list[str]]:
        """Return a sentence as it was typed; a `Path` is read."""
        if isinstance(value, Path):
            return self.read(value)
        if not isinstance(value, str):
            raise UsageError(f"given.text is of type {type(value).__name__}; give the sentence.")
        return [value], self.check([value])

    def join(self, raws: list[list[str]]) -> list[str]:
        """Return all the sentences."""
        return [sentence for raw in raws for sentence in raw]

    def write(self, raw: list[str], path: Path, recipe: dict, track: Any = None) -> None:
        """Write a text file."""
        media.write_text(path, raw[0], recipe)

    def log(self, writer: Any, tag: str, raw: list[str], step: int) -> None:
        """Show the sentence."""
        writer.add_text(tag, raw[0], step)

    def show(self, raw: list[str]) -> str:
        """Return the sentence."""
        return raw[0]


class Text(Sentences):
    """Sentences of at most `length` words; `words` is the vocabulary, in id order."""

    lessons, ordered = 4096, True

    def __init__(
        self,
        words: tuple[str, ...] | list[str] = (),  # none: those of the data, see `prepare`
        length: int = 32,  # words a sentence, punctuation marks included
        tokens: int = 32,
        channels: int = 8,
        capacity: int = 128,  # ids: words there is room for, plus two
        min_p: float = 0.0,  # words less likely than this share of the likeliest are not drawn
        **common,  # shared, noise_mean: see Modality
    ):
        """Spread the points; a word has tokens * channels / length numbers."""
        super().__init__(tokens, channels, **common)
        self.length, self.capacity, self.code = length, capacity, tokens * channels // length
        self.given = bool(words)
        self._learn(words)
        self.lens = Points(spread(capacity, self.code), length // tokens, min_p)

    def features(self, raw: list[str]) -> Float[Tensor, "b n c"]:
        """Return the points of the words, side by side."""
        codes = self.lens.points[self.tokenize(raw)]
        return codes.reshape(len(raw), self.tokens, self.channels)

    def restore(self, features: Float[Tensor, "b n c"]) -> list[str]:
        """Return the sentences whose words are nearest."""
        fit = self.lens.fit(features).flatten(1, 2)[..., : len(self.words) + 2]
        return self.detokenize(fit.argmax(-1))

    def positions(self) -> Float[Tensor, "n 3"]:
        """Place the tokens in a row beside the picture: order, no place in the world.

        Words are an eighth apart, so that neighbors differ in all but the slowest frequencies.
        """
        order = (torch.arange(self.tokens) + 0.5) / 8
        return torch.stack([torch.zeros_like(order), order, torch.full_like(order, -1)], -1)

    def tokenize(self, raw: list[str]) -> Int[Tensor, "b l"]:
        """Return word ids, cut or padded to `length`."""
        ids = torch.full((len(raw), self.length), END)
        for row, sentence in zip(ids, raw, strict=True):
            units = split(sentence)[: self.length]
            row[: len(units)] = torch.tensor([self._ids.get(u, UNKNOWN) for u in units])
        return ids.to(self.mean.device)

    def detokenize(self, ids: Int[Tensor, "b l"]) -> list[str]:
        """Return sentences up to the first end, without unknown words."""
        sentences = []
        for row in ids.tolist():
            row = row[: row.index(END)] if END in row else row
            units = [self.words[i - 2] for i in row if i >= 2]
            sentences.append(re.sub(r" ([,.;:!?])", r"\1", " ".join(units)))
        return sentences

    def check(self, raw: list[str]) -> list[str]:
        """Name the words that the model does not know and the text that it cuts."""
        units, notes = split(raw[0]), []
        unknown = [u for u in dict.fromkeys(units[: self.length]) if u not in self._ids]
        if unknown:
            shown = " ".join(map(_shown, unknown[:8])) + (" ..." if len(unknown) > 8 else "")
            notes.append(f"words the model does not know: {shown}")
        if len(units) > self.length:
            rest, first = len(units) - self.length, _shown(units[self.length])
            notes.append(f"cut after {self.length} words, {rest} left out from {first} on")
        return notes

    def adopt(self, spec: Mapping[str, Any]) -> None:
        """Take over the vocabulary of another model, in its order, before one's own."""
        known = list(spec.get("words", ()))
        self._learn([*known, *(word for word in self.words if word not in known)])

    def prepare(self, raw: list[str]) -> None:
        """Take what is missing in the vocabulary from sentences, unless it was given.

        Words that another model brought stay what they are, see `adopt`.
        """
        if not self.given:
            units = {unit for sentence in raw for unit in split(sentence)}
            self._learn([*self.words, *sorted(units - set(self.words))])

    def _learn(self, words: tuple[str, ...] | list[str]) -> None:
        if len(words) > self.capacity - 2:
            raise UsageError(
                f"{len(words)} words do not fit in capacity={self.capacity}; raise it to "
                f"{len(words) + 2} or more, or list those that matter: modalities.text.words=[...]."
            )
        self.words = list(words)
        self._ids = {word: i + 2 for i, word in enumerate(self.words)}
        if hasattr(self, "spec"):  # built from one, see unigen.registry
            self.spec = {**self.spec, "words": self.words}


@lru_cache
def spread(count: int, size: int, steps: int = 100) -> Float[Tensor, "count size"]:
    """Return `count` points on the sphere of radius sqrt(size) that keep away from each other.

    They start at fixed random places and repel (Thomson's problem), in double precision.
    """
    points = torch.randn(count, size, generator=torch.Generator().manual_seed(0)).double()
    for step in range(steps):
        points = torch.nn.functional.normalize(points, dim=-1)
        cosine = points @ points.T
        push = torch.softmax(cosine.fill_diagonal_(-2) * 20, -1)
        points = points - 0.1 * (1 - step / steps) * (push @ points)
    return (torch.nn.functional.normalize(points, dim=-1) * size**0.5).float()


def split(sentence: str) -> list[str]:
    """Split a sentence into lower-case words and punctuation marks."""
    return _UNITS.findall(sentence.lower())


def _shown(unit: str) -> str:
    """Return a word in quotes, its end left out where it is long."""
    return repr(unit) if len(unit) <= LONGEST else f"{unit[:LONGEST]!r}..."
