"""The published U-ViT: what differs from `unigen.uvit.UViT`, around the same walk.

- LayerNorm stands on the trunk, after every addition and after every long skip;
- all tokens share one feed-forward layer a block;
- a modality has one clock, which is a token of its own; so is the kind of data (version 1);
- the image's point of the shared space is CLIP's embedding of it;
- positions are learned, one a token.

One class with options for all of this would branch at each of these places; what makes both a
U-ViT, the walk with long skips, is one function.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from unigen.errors import UsageError
from unigen.layers import attend
from unigen.tokens import Clocks, Positions, Tokens
from unigen.uvit import Denoiser, long_skips

#: Parts in the order of the sequence, and modalities in the order of their clocks.
ORDER, CLOCKS = ("text", "image:global", "image"), ("image", "text")
TIME = 1000  # the network's time of pure noise; clean is 0, fractions are fine


class PublishedUViT(Denoiser):
    """Noisy text, CLIP and patch tokens to the noise in each (Bao et al. 2023b, section 4.2)."""

    absent, kept = "noise", "noised"
    told = 1  # the kind of data that is asked for, version 1 only: 0 the web's, 1 the authors' own

    def __init__(
        self,
        parts: Mapping[str, int],  # channels of a token by part; all of ORDER
        counts: Mapping[str, int],  # learned positions by part; those of "image" are a square
        width: int = 1536,
        depth: int = 31,  # blocks: (depth - 1) / 2 in, one middle, (depth - 1) / 2 out
        head: int = 64,  # width of an attention head
        ratio: float = 4.0,  # inner width of a feed-forward layer over the width
        kinds: int = 0,  # kinds of data the network can be told; version 1 has 2, version 0 none
    ):
        """Build the network. Raises UsageError for other parts, or patches that are no square."""
        super().__init__()
        side = math.isqrt(counts["image"])
        if set(parts) != set(ORDER) or side**2 != counts["image"]:
            raise UsageError(
                f"parts {sorted(parts)} with {counts['image']} patches; wanted are "
                f"{', '.join(ORDER)} and a square number of patches."
            )
        self.parts, self.counts, self.side = dict(parts), dict(counts), side
        key = {part: part.replace(":", "__") for part in ORDER}
        self.embed = nn.ModuleDict({key[p]: nn.Linear(parts[p], width) for p in ORDER})
        self.place_clock = nn.Parameter(0.02 * torch.randn(len(CLOCKS), width))
        self.place = nn.ParameterDict({key[p]: 0.02 * torch.randn(counts[p], width) for p in ORDER})
        self.kind = nn.Embedding(kinds, width) if kinds else None
        self.place_kind = nn.Parameter(torch.zeros(1, width)) if kinds else None
        self.blocks = nn.ModuleList(
            PostNormBlock(width, width // head, ratio, skip=i > depth // 2) for i in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.head_out = nn.ModuleDict({key[p]: nn.Linear(width, parts[p]) for p in ORDER})

    def forward(
        self, x: Tokens, t: Clocks, positions: Positions | None = None, kind: int | None = None
    ) -> Tokens:
        """Return the noise in every token.

        x: all parts; t: clocks, 0 data, 1 noise, of which a modality's highest counts; positions:
        rows and columns of the patches, if they are not the square that was learned; kind: of
        data, if not `told`.
        """
        b, dtype = len(x["image"]), self.norm.weight.dtype
        t = {p: clock.amax(1) for p, clock in t.items()}
        times = torch.stack([t[m] for m in CLOCKS], 1)
        front = [self._time(times).to(dtype) + self.place_clock]
        if self.kind is not None and self.place_kind is not None:
            told = torch.full((b, 1), self.told if kind is None else kind, device=times.device)
            front.append(self.kind(told) + self.place_kind)
        parts = [self._enter(p, x[p], None if positions is None else positions[p]) for p in ORDER]
        h = self.norm(long_skips(self.blocks, torch.cat([*front, *parts], 1)))
        lengths = [h.shape[1] - sum(p.shape[1] for p in parts), *(p.shape[1] for p in parts)]
        outputs = h.split(lengths, 1)[1:]
        return {
            p: self.head_out[p.replace(":", "__")](y).float()
            for p, y in zip(ORDER, outputs, strict=True)
        }

    def _enter(self, part: str, x: Tensor, positions: Tensor | None) -> Float[Tensor, "b n d"]:
        key = part.replace(":", "__")
        place = self.place[key]
        if part == "image" and positions is not None:
            place = self._between(place, positions[:, 1:])
        return self.embed[key](x.to(place.dtype)) + place

    def _between(
        self, place: Float[Tensor, "m d"], at: Float[Tensor, "n 2"]
    ) -> Float[Tensor, "n d"]:
        """Interpolate the learned square at rows and columns from 0 to 1 (bilinear)."""
        centers = (torch.arange(self.side, device=at.device) + 0.5) / self.side
        if torch.equal(at, torch.cartesian_prod(centers, centers)):
            return place
        square = rearrange(place, "(h w) d -> 1 d h w", h=self.side)
        grid = (2 * at.flip(-1) - 1)[None, None].to(place.dtype)  # x before y
        options = {"padding_mode": "border", "align_corners": False}
        return F.grid_sample(square, grid, **options)[0, :, 0].T

    def _time(self, t: Float[Tensor, "b m"]) -> Float[Tensor, "b m d"]:
        """Return the sinusoidal embedding of clocks (Vaswani et al. 2017), cosines first."""
        half = self.place_clock.shape[-1] // 2
        step = -math.log(10_000) * torch.arange(half, device=t.device, dtype=torch.float32) / half
        angle = (t.double() * TIME).float()[..., None] * step.exp()  # whole times stay whole
        return torch.cat([angle.cos(), angle.sin()], -1)


class PostNormBlock(nn.Module):
    """Attention and feed-forward, each added and then normalized on the trunk."""

    def __init__(self, width: int, heads: int, ratio: float, skip: bool):
        """`skip`: the block takes a long skip, joined by concatenation, a linear layer, a norm."""
        super().__init__()
        self.heads, hidden = heads, int(width * ratio)
        self.skip = nn.Linear(2 * width, width) if skip else None
        self.norm0 = nn.LayerNorm(width) if skip else None
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ffn = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(
        self, x: Float[Tensor, "b n d"], skip: Float[Tensor, "b n d"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """Return x after the block."""
        if self.skip is not None and self.norm0 is not None:
            if skip is None:
                raise ValueError("a block with a long skip was given none")
            x = self.norm0(self.skip(torch.cat([x, skip], -1)))
        q, k, v = rearrange(self.qkv(x), "b n (s h k) -> s b h n k", s=3, h=self.heads)
        x = self.norm1(x + self.out(rearrange(attend(q, k, v), "b h n k -> b n (h k)")))
        return self.norm2(x + self.ffn(x))
