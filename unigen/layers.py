"""The few layers that every network here is made of: attention, feed-forward, embeddings."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

LONG = 512  # tokens from which the fused kernel is the faster one on most CPUs, too
TILES = torch.cpu.get_capabilities().get("amx_bf16", False)  # which its bfloat16 form needs
SCORES = 2**21  # made at once by plain products: more of them leave the processor's cache


def norm(width: int) -> nn.LayerNorm:
    """Return a LayerNorm without bias: under CPU autocast it is fused, RMSNorm is not."""
    return nn.LayerNorm(width, bias=False)


def fourier(x: Float[Tensor, "..."], count: int, slowest: float, fastest: float) -> Tensor:
    """Return cosines and sines of x at `count` geometrically spaced frequencies, [..., 2 count]."""
    frequency = torch.logspace(math.log10(slowest), math.log10(fastest), count, device=x.device)
    angle = 2 * math.pi * x[..., None].float() * frequency
    return torch.cat([angle.cos(), angle.sin()], -1)


def attend(
    q: Float[Tensor, "b h n k"], k: Float[Tensor, "b h m k"], v: Float[Tensor, "b h m k"]
) -> Float[Tensor, "b h n k"]:
    """Return softmax(q kT / sqrt(k)) v.

    On a CPU two plain products, of as many heads as fit its cache, beat the fused kernel for short
    sequences, and for long ones in bfloat16 where the processor has no tiles
    (benchmarks/attention.py). The fused kernel does the rest.
    """
    long = q.shape[-2] * k.shape[-2] >= LONG**2
    if q.device.type != "cpu" or (long and (TILES or q.dtype != torch.bfloat16)):
        return F.scaled_dot_product_attention(q, k, v.to(q.dtype))
    heads = max(1, SCORES // (q.shape[-2] * k.shape[-2]))
    some = (x.flatten(0, 1).split(heads) for x in (q * q.shape[-1] ** -0.5, k, v))
    out = [(a @ b.mT).softmax(-1).to(c.dtype) @ c for a, b, c in zip(*some, strict=True)]
    return (out[0] if len(out) == 1 else torch.cat(out)).unflatten(0, q.shape[:2])


def rotate(x: Float[Tensor, "b h n k"], turn: Float[Tensor, "2 n half"]) -> Tensor:
    """Rotate the first `half` pairs of channels, each by an angle (Su et al. 2021, eq. 34).

    turn: cosines and sines of the angles.
    """
    half = turn.shape[-1]
    a, b, rest = x.split([half, half, x.shape[-1] - 2 * half], -1)
    cos, sin = turn.to(x.dtype)
    return torch.cat([a * cos - b * sin, a * sin + b * cos, rest], -1)


class Attention(nn.Module):
    """Multi-head attention, optionally with rotation and with normalized queries and keys."""

    def __init__(self, width: int, heads: int, normalize: bool = False):
        """`normalize`: LayerNorm on queries and keys (Dehghani et al. 2023)."""
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.q_norm = norm(width // heads) if normalize else nn.Identity()
        self.k_norm = norm(width // heads) if normalize else nn.Identity()

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        turn: Float[Tensor, "2 n half"] | None = None,
        context: Float[Tensor, "b m d"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Attend from x to x, or to `context`."""
        source = x if context is None else context
        q, k, v = (
            rearrange(f(s), "b n (h k) -> b h n k", h=self.heads)
            for f, s in ((self.q, x), (self.k, source), (self.v, source))
        )
        q, k = self.q_norm(q), self.k_norm(k)
        if turn is not None:
            q, k = rotate(q, turn), rotate(k, turn)
        return self.out(rearrange(attend(q, k, v.to(q.dtype)), "b h n k -> b n (h k)"))


class FeedForward(nn.Sequential):
    """Two linear layers around a SiLU, the cheapest smooth activation under CPU bfloat16."""

    def __init__(self, width: int, hidden: int):
        """Make the layers; `hidden` is the inner width."""
        super().__init__(nn.Linear(width, hidden, bias=False), nn.SiLU(), nn.Linear(hidden, width))


class Block(nn.Module):
    """A pre-norm transformer block, with cross-attention if it has a context."""

    def __init__(self, width: int, heads: int, ratio: float = 4.0, context: bool = False):
        """`ratio`: inner width of the feed-forward layer over the width."""
        super().__init__()
        self.norm1, self.attention = norm(width), Attention(width, heads)
        self.cross = Attention(width, heads) if context else None
        self.norm_cross = norm(width) if context else None
        self.norm2, self.ffn = norm(width), FeedForward(width, int(width * ratio))

    def forward(
        self, x: Float[Tensor, "b n d"], context: Float[Tensor, "b m d"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """Return x after attention and feed-forward."""
        x = x + self.attention(self.norm1(x))
        if self.cross is not None and self.norm_cross is not None:
            x = x + self.cross(self.norm_cross(x), context=context)
        return x + self.ffn(self.norm2(x))
