"""Text: sentences of known words, squeezed to 8 latents and read back in parallel."""

import re
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from unigen import media
from unigen.errors import UsageError
from unigen.layers import Block, norm
from unigen.modalities.base import Modality
from unigen.modalities.codec import perturb

END, UNKNOWN = 0, 1  # ids before those of the words
_UNITS = re.compile(r"\w+|[^\w\s]")


class Text(Modality):
    """Sentences of at most `length` words; `words` is the vocabulary, in id order."""

    name, suffix, plain = "text", ".txt", True

    def __init__(
        self,
        words: tuple[str, ...] | list[str] = (),  # learned by `prepare` if empty
        length: int = 32,  # words a sentence, punctuation marks included
        tokens: int = 8,
        channels: int = 32,
        width: int = 128,
        depth: int = 2,
        capacity: int = 256,  # ids: words the table has room for, plus two
        masking: float = 0.15,  # share of words hidden from the encoder in training
        **common,  # shared, noise_mean: see Modality
    ):
        """Build encoder and decoder; the decoder predicts all words at once."""
        super().__init__(tokens, channels, **common)
        self.length, self.capacity, self.masking = length, capacity, masking
        self._learn(words)
        heads = width // 32
        self.table = nn.Embedding(capacity, width)
        self.place = nn.Parameter(0.02 * torch.randn(length, width))
        self.encoder = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.queries = nn.Parameter(0.5 * torch.randn(tokens, width))
        self.gather = Block(width, heads, context=True)
        self.squeeze = nn.Linear(width, channels)
        self.expand, self.place_latent = nn.Linear(channels, width), nn.Parameter(
            0.02 * torch.randn(tokens, width)
        )
        self.slots = nn.Parameter(0.5 * torch.randn(length, width))
        self.decoder = nn.ModuleList(Block(width, heads, context=True) for _ in range(depth))
        self.logits = nn.Sequential(norm(width), nn.Linear(width, capacity))

    def features(self, raw: list[str]) -> Float[Tensor, "b n c"]:
        """Return the latents before normalization."""
        return self._encode(self.tokenize(raw))

    def restore(self, features: Float[Tensor, "b n c"]) -> list[str]:
        """Return the likeliest sentence of each sample."""
        return self.detokenize(self.read_out(features)[..., : len(self.words) + 2].argmax(-1))

    def read_out(self, features: Float[Tensor, "b n c"]) -> Float[Tensor, "b l v"]:
        """Return the logits of every word position."""
        context = self.expand(features) + self.place_latent
        x = self.slots.expand(len(features), -1, -1).to(context.dtype)
        for block in self.decoder:
            x = block(x, context)
        return self.logits(x).float()

    def codec_loss(self, raw: list[str], generator: torch.Generator | None) -> Float[Tensor, ""]:
        """Return the cross-entropy of the words, with some hidden and the latents noisy."""
        ids = self.tokenize(raw)
        draw = torch.rand(2, *ids.shape, generator=generator, device=ids.device)
        hide = (draw[0] < self.masking) & (draw[1, :, :1] < 0.3) & (ids != END)
        logits = self.read_out(perturb(self._encode(ids.masked_fill(hide, UNKNOWN)), generator))
        return F.cross_entropy(logits.flatten(0, 1), ids.flatten())

    def positions(self) -> Float[Tensor, "n 3"]:
        """Place the tokens in a row beside the picture: order, no place in the world."""
        order = (torch.arange(self.tokens) + 0.5) / self.tokens
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
            shown = " ".join(repr(u) for u in unknown[:8]) + (" ..." if len(unknown) > 8 else "")
            notes.append(f"words the model does not know: {shown}")
        if len(units) > self.length:
            rest = len(units) - self.length
            notes.append(f"cut after {self.length} words, {rest} left out from {units[self.length]!r} on")
        return notes

    def prepare(self, raw: list[str]) -> None:
        """Take the vocabulary from sentences, unless it was given."""
        if not self.words:
            self._learn(sorted({unit for sentence in raw for unit in split(sentence)}))

    def read(self, path: Path) -> tuple[list[str], list[str]]:
        """Read a text file."""
        text = media.read_text(path)
        return [text], self.check([text])

    def take(self, value: str | Path | list[str]) -> tuple[list[str], list[str]]:
        """Return a sentence as it was typed; a `Path` is read."""
        if isinstance(value, Path):
            return self.read(value)
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

    def _learn(self, words: tuple[str, ...] | list[str]) -> None:
        if len(words) > self.capacity - 2:
            raise UsageError(
                f"{len(words)} words do not fit in capacity={self.capacity}; raise it to "
                f"{len(words) + 2} or more."
            )
        self.words = list(words)
        self._ids = {word: i + 2 for i, word in enumerate(self.words)}
        if hasattr(self, "spec"):  # built from one, see unigen.registry
            self.spec = {**self.spec, "words": self.words}

    def _encode(self, ids: Int[Tensor, "b l"]) -> Float[Tensor, "b n c"]:
        x = self.encoder(self.table(ids) + self.place)
        z = self.squeeze(self.gather(self.queries.expand(len(ids), -1, -1).to(x.dtype), x))
        return F.layer_norm(z.float(), z.shape[-1:])


def split(sentence: str) -> list[str]:
    """Split a sentence into lower-case words and punctuation marks."""
    return _UNITS.findall(sentence.lower())
