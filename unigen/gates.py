"""What must hold before a denoiser is worth training: the codecs and the shared space."""

from itertools import permutations

import torch
import torch.nn.functional as F
from torch import Tensor

from unigen import metrics
from unigen.data.world.oracles import OBJECTS, SCENE, TELLS, join, read, truth
from unigen.metrics import Draws
from unigen.reference import BATCH, FREE, Setting, parts_of, scenes_of, shared, sizes_of

CANDIDATES = 256  # of a retrieval
NOISE = 0.1  # latent noise that a codec must bear


def codec_gate(
    model, part: str, n: int = 256, seed: int = 0, *,
    objects: int = 1, noise: float = 0.0, split: str = "seen",
) -> dict[str, float]:  # fmt: skip
    """Return, by attribute, how much of `n` scenes survives decode(encode(raw)).

    noise: standard deviation of what is added to the latents (they have unit variance). "mean" is
    the average over attributes, "all" the share of samples in which everything survives.
    """
    draws = codec(model, part, scenes_of(seed, n), Setting(split, objects), noise)
    return {name: d.values[0].item() for name, d in draws.items()}


@torch.no_grad()
def codec(model, part: str, index: Tensor, setting: Setting, noise: float) -> dict[str, Draws]:
    """Return, by attribute, how much of some scenes survives a codec; see `codec_gate`."""
    modality, before, after = model.modality(part), [], []
    world = setting.world(**sizes_of(model))
    generator = torch.Generator().manual_seed(int(index[0]))
    for chunk in index.split(BATCH):
        raw = world.batch(chunk, [part])[part]
        z = modality.encode(raw)
        z = z + noise * torch.randn(z.shape, generator=generator)
        before.append(read(part, raw, world.rate))
        after.append(read(part, modality.decode(z), world.rate))
    reference = shared(truth(world.scenes(index)), [join(before)])
    return metrics.score([metrics.kept(join(after), reference)])


def retrieval(model, n: int = CANDIDATES, seed: int = 0) -> dict[tuple[str, str], float]:
    """Return recall@1 of finding, from part a of a scene, its part b among `n` candidates.

    Captions say everything, and no two candidates agree in all that a and b tell. Where the
    2 n scenes that are tried hold fewer than n such candidates, all of them are used.
    """
    return {pair: hits.mean().item() for pair, hits in recalled(model, n, seed).items()}


@torch.no_grad()
def recalled(model, n: int, seed: int) -> dict[tuple[str, str], Tensor]:
    """Return, by pair of parts, 1 where the right candidate is found; see `retrieval`."""
    world, index = FREE.world(full=True, **sizes_of(model)), scenes_of(seed, 2 * n)
    parts = parts_of(model)
    chunks = [model.embed(world.batch(chunk, parts)) for chunk in index.split(BATCH)]
    points = {p: F.normalize(torch.cat([c[p] for c in chunks]), dim=-1) for p in parts}
    scene, hits = truth(world.scenes(index)), {}
    for a, b in permutations(parts, 2):
        names = [name for name in (*SCENE, *OBJECTS) if name in TELLS[a] & TELLS[b]]
        codes = torch.cat([getattr(scene, name).reshape(2 * n, -1) for name in names], 1)
        first = {tuple(row): i for i, row in reversed(list(enumerate(codes.tolist())))}
        rows = sorted(first.values())[:n]
        best = (points[a][rows] @ points[b][rows].T).argmax(1)
        hits[a, b] = (best == torch.arange(len(rows))).double()
    return hits
