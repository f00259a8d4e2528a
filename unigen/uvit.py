"""U-ViT: the one network. Everything is a token; long skips join the two halves.

Bao et al. 2023 (U-ViT) and Bao et al. 2023b (UniDiffuser), with these changes:
- every token has its own clock, added to its embedding; one level token a part carries the
  part's highest clock;
- absent parts are not in the sequence;
- attention is shared, feed-forward layers belong to a modality (Liang et al. 2024, 2411.04996);
- positions are physical (second, row, column), by rotation (Su et al. 2021) and by embedding.
"""

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor, nn

from unigen.errors import UsageError
from unigen.layers import Attention, FeedForward, fourier, norm
from unigen.tokens import Clocks, Positions, Tokens, modality_of

_CLOCK, _PLACE = 32, 8  # frequencies of the clock and of each coordinate


class Denoiser(nn.Module):
    """A network from noisy tokens, clocks and positions to a prediction for every token."""

    parts: dict[str, int]  # numbers of a token by part name, of all that it may meet
    #: A part that is not there: "drop" leaves it out of the sequence, "noise" shows new noise at
    #: clock 1 in every call, "one noise" the same in all, where it is neither given nor wanted.
    absent = "drop"
    #: Tokens that are kept while the rest of their part is made: "clean" shows them at clock 0,
    #: "noised" at the clock of the rest, for a network that knows one clock a modality.
    kept = "clean"


class UViT(Denoiser):
    """A transformer over the tokens of any parts."""

    def __init__(
        self,
        parts: dict[str, int],  # latent channels of every part name it may meet
        width: int = 256,
        depth: int = 9,  # blocks: (depth - 1) / 2 in, one middle, (depth - 1) / 2 out
        head: int = 64,  # width of an attention head
        ratio: float = 2.0,  # inner width of a feed-forward layer over the width
    ):
        """Build the network; an unknown part later on is an error that names it."""
        super().__init__()
        self.parts, self.head = dict(parts), head
        key = {part: part.replace(":", "__") for part in parts}
        modalities = sorted({modality_of(part) for part in parts})
        self.embed = nn.ModuleDict({key[p]: nn.Linear(c, width) for p, c in parts.items()})
        self.place = nn.ModuleDict({m: nn.Linear(6 * _PLACE, width) for m in modalities})
        self.level = nn.ParameterDict({k: 0.02 * torch.randn(width) for k in key.values()})
        self.clock = nn.Linear(2 * _CLOCK, width)
        self.blocks = nn.ModuleList(
            UBlock(width, width // head, ratio, modalities, skip=i > depth // 2)
            for i in range(depth)
        )
        self.norm = norm(width)
        heads = {key[p]: nn.Linear(width, c) for p, c in parts.items()}
        self.head_out = nn.ModuleDict(heads)
        for layer in (self.clock, *heads.values()):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tokens, t: Clocks, positions: Positions) -> Tokens:
        """Return the prediction for every token of x.

        x: noisy tokens by part; t: clocks by part, 0 data, 1 noise; positions: by part.
        """
        order = sorted(x)  # permuting keys changes nothing
        sequence, angles, lengths = [], [], []
        spans: dict[str, int] = {}  # tokens of each modality: its parts stand side by side
        for part in order:
            modality, key = modality_of(part), part.replace(":", "__")
            if part not in self.parts:
                known = ", ".join(sorted(self.parts))
                raise UsageError(f"the denoiser has no part {part!r}; it knows {known}.")
            place = fourier(positions[part], _PLACE, 0.25, 8.0).flatten(-2)
            tokens = self.embed[key](x[part]) + self.place[modality](place)
            tokens = tokens + self._clock(t[part])
            highest = t[part].amax(1, keepdim=True)
            level = repeat(self.level[key], "d -> b 1 d", b=len(highest)) + self._clock(highest)
            sequence += [level.to(tokens.dtype), tokens]
            center = positions[part].mean(0, keepdim=True)
            angles.append(self._angles(torch.cat([center, positions[part]])))
            lengths.append(tokens.shape[1] + 1)
            spans[modality] = spans.get(modality, 0) + lengths[-1]
        angle = torch.cat(angles)
        turn = torch.stack([angle.cos(), angle.sin()])  # once for all blocks
        h = long_skips(self.blocks, torch.cat(sequence, 1), turn, spans)
        outputs = self.norm(h).split(lengths, 1)
        return {
            part: self.head_out[part.replace(":", "__")](y[:, 1:]).float()
            for part, y in zip(order, outputs, strict=True)
        }

    def _clock(self, t: Float[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        return self.clock(fourier(t, _CLOCK, 0.25, 16.0))

    def _angles(self, positions: Float[Tensor, "n 3"]) -> Float[Tensor, "n half"]:
        """Rotate half of the channels: 3/8 of the pairs by seconds, the rest by row and column."""
        pairs = self.head // 4
        space = pairs * 5 // 16
        counts = (pairs - 2 * space, space, space)
        turns = [
            positions[:, i, None] * torch.logspace(-1, 0.6, n, device=positions.device)
            for i, n in enumerate(counts)
        ]
        return 2 * torch.pi * torch.cat(turns, -1)


def long_skips(blocks: nn.ModuleList, h: Float[Tensor, "b n d"], *context) -> Tensor:
    """Walk the blocks; one after the middle also takes what its mirror image returned."""
    middle, skips = len(blocks) // 2, []
    for i, block in enumerate(blocks):
        h = block(h, *context, skip=skips.pop() if i > middle else None)
        if i < middle:
            skips.append(h)
    return h


class UBlock(nn.Module):
    """Attention over all tokens, then one feed-forward layer a modality."""

    def __init__(self, width: int, heads: int, ratio: float, modalities: list[str], skip: bool):
        """`skip`: the block takes a long skip, joined by concatenation and a linear layer."""
        super().__init__()
        self.norm1, self.attention = norm(width), Attention(width, heads, normalize=True)
        self.norm2 = norm(width)
        self.ffn = nn.ModuleDict({m: FeedForward(width, int(width * ratio)) for m in modalities})
        self.skip = nn.Linear(2 * width, width) if skip else None
        if self.skip is not None:  # starts as the identity on the main path
            nn.init.zeros_(self.skip.weight)
            nn.init.eye_(self.skip.weight[:, :width])
            nn.init.zeros_(self.skip.bias)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        turn: Float[Tensor, "2 n half"],
        spans: dict[str, int],  # tokens of each modality, in the order of the sequence
        skip: Float[Tensor, "b n d"] | None,
    ) -> Float[Tensor, "b n d"]:
        """Return x after the block."""
        if self.skip is not None:
            if skip is None:
                raise ValueError("a block with a long skip was given none")
            x = self.skip(torch.cat([x, skip], -1))
        x = x + self.attention(self.norm1(x), turn)
        runs = self.norm2(x).split(list(spans.values()), 1)
        return x + torch.cat([self.ffn[m](r) for m, r in zip(spans, runs, strict=True)], 1)
