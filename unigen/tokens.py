"""The data of the whole package: latent tokens by part name, their clocks, their positions.

A part is `modality` or `modality:role` (`text`, `text:question`, `image:global`). What is absent
is an absent key. Clock `t`: 0 is data, 1 is noise.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unigen.errors import UsageError

Tokens = dict[str, Float[Tensor, "b _n _c"]]  # latent tokens by part name
Clocks = dict[str, Float[Tensor, "b _n"]]  # noise level of every token
Positions = dict[str, Float[Tensor, "_n 3"]]  # second, row, column of every token
GLOBAL = "global"  # role of the part that holds a modality's point of the shared space


def modality_of(part: str) -> str:
    """Return the modality of a part: `text:question` is `text`."""
    return part.partition(":")[0]


def role_of(part: str) -> str:
    """Return the role of a part, empty if it has none."""
    return part.partition(":")[2]


def noise(
    part: str, seeds: Sequence[int], shape: Sequence[int], dtype: torch.dtype = torch.float32
) -> Float[Tensor, "b n c"]:
    """Return the initial noise of a part: sample i is a function of seed i and the name only."""
    draws = []
    for seed in seeds:
        digest = hashlib.sha256(f"{seed}/{part}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        draws.append(torch.randn(*shape, generator=generator, dtype=dtype))
    return torch.stack(draws)


def fitting(noise: Tokens, shapes: Mapping[str, Sequence[int]], count: int) -> Tokens:
    """Return a caller's own noise if it is that of known parts, for so many samples.

    Raises UsageError for a part that is not in `shapes`, or noise of another shape or not finite.
    """
    for part, z in noise.items():
        if part not in shapes:
            raise UsageError(f"noise.{part} is unknown; choose from {', '.join(shapes)}.")
        wanted, came = (count, *shapes[part]), tuple(getattr(z, "shape", ()))
        if came != wanted:
            raise UsageError(f"noise.{part} is of shape {came}; wanted is {wanted}.")
        if not z.isfinite().all():
            raise UsageError(f"noise.{part} holds NaN or Inf; wanted are finite numbers.")
    return dict(noise)


def slerp(a: Mapping[str, Tensor], b: Mapping[str, Tensor], share: float) -> Tokens:
    """Return the noise at a share of the way from a to b, along the arc: it keeps its length.

    Parts and samples walk for themselves. Shoemake 1985, equation 2.
    """
    made = {}
    for part, start in a.items():
        x, y = start.flatten(1), b[part].flatten(1)
        cosine = (x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1))
        angle = cosine.clamp(-1, 1).arccos().clamp_min(1e-6)[:, None]
        mixed = torch.sin((1 - share) * angle) * x + torch.sin(share * angle) * y
        made[part] = (mixed / torch.sin(angle)).reshape(start.shape)
    return made


def pick(tokens: Mapping[str, Tensor], parts: Iterable[str]) -> dict[str, Tensor]:
    """Return only some parts, those that are there."""
    return {part: tokens[part] for part in parts if part in tokens}
