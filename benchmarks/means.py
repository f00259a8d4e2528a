"""Is the network's answer to a noisy part the mean of all that it may be? Shares by clock.

    python benchmarks/means.py
    python benchmarks/means.py --want video --n 500

Captions of the world are given that leave an attribute open, beside noisy latents of their scenes.
The network should answer with the mean of the latents that go with both. A linear map from clean
latents to the values of the attribute, which commutes with the mean, finds in the answers how
often each value occurs. `bias` is half the sum of the differences to what it finds in the clean
latents of the same scenes. At clock 1 no sampler has a part in it, and `floor` is what the scenes'
own draws would have there with perfect answers.
"""

import argparse
import math

import torch
from table import line, machine, table
from torch import Tensor

import unigen
from unigen.data.world.oracles import TELLS, read, truth
from unigen.metrics import CODES
from unigen.model import UniGen
from unigen.reference import BATCH, Setting, left_out, scenes_of, sizes_of
from unigen.tokens import GLOBAL, Tokens

CLOCKS = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)
POOL = 8  # captions that are looked at for one that leaves the attribute open
CLEAN, RIDGE = 3000, 3.0  # latents that the linear map is fitted on, and its penalty


def latents(model: UniGen, part: str, raw: Tensor | list[str]) -> Tokens:
    """Return the latents of a part with its point of the shared space, if the denoiser has one."""
    z = model.modality(part).encode(raw).float()
    tokens = {part: z, f"{part}:{GLOBAL}": model.modality(part).embed(z)[:, None]}
    return {p: x for p, x in tokens.items() if p in model.denoiser.parts}


def answer(model: UniGen, given: Tokens, clean: Tokens, index: Tensor, t: float) -> Tokens:
    """Return what the network sees in parts at clock t beside given ones."""
    clocks = {p: torch.full(z.shape[:2], t) for p, z in clean.items()}
    eps = {p: model.prior(p, index.tolist()) for p in clean}
    noisy = {p: model.flow.interpolate(z, eps[p], clocks[p]) for p, z in clean.items()}
    still = {p: torch.zeros(z.shape[:2]) for p, z in given.items()}
    return model.predict({**given, **noisy}, {**still, **clocks})


def wide(rows: list[Tensor]) -> Tensor:
    """Return latents as rows, with a one for the offset."""
    z = torch.cat(rows).flatten(1)
    return torch.cat([z, torch.ones(len(z), 1)], 1)


@torch.no_grad()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="a folder; the embedded model if left out")
    parser.add_argument("--want", default="image", help="image, video or audio")
    parser.add_argument("--n", type=int, default=1000, help="captions for each attribute")
    args = parser.parse_args()
    model, part = unigen.load(args.model), args.want
    world = Setting("seen", 1).world(**sizes_of(model))
    line({"benchmark": "means", "model": model.hash, "want": part, "n": args.n, **machine()})
    other, pool = scenes_of(1, CLEAN), scenes_of(0, POOL * args.n)
    clean = wide([latents(model, part, world.batch(i, [part])[part])[part]
                  for i in other.split(BATCH)])  # fmt: skip
    scenes, square = truth(world.scenes(other)), clean.T @ clean + RIDGE * torch.eye(clean.shape[1])
    open_ = left_out(read("text", world.batch(pool, ["text"])["text"]))
    rows = []
    for name in sorted(open_.keys() & TELLS[part]):
        codes, left = (x[name].reshape(len(x[name]), -1)[:, 0] for x in (vars(scenes), open_))
        values = (codes[:, None] == torch.arange(CODES[name])).float()
        weights = torch.linalg.solve(square, clean.T @ values)
        index, seen = pool[left][: args.n], {t: [] for t in (0.0, *CLOCKS)}
        for some in index.split(BATCH):
            raw = world.batch(some, ["text", part])
            given, whole = (latents(model, p, raw[p]) for p in ("text", part))
            seen[0.0].append(whole[part])
            for t in CLOCKS:
                seen[t].append(answer(model, given, whole, some, t)[part])
        shares = {t: (wide(z) @ weights).mean(0) for t, z in seen.items()}
        p = values.mean(0)
        floor = float((2 / math.pi * p * (1 - p) / len(index)).sqrt().sum() / 2)
        off = {t: shares[t] - shares[0.0] for t in CLOCKS}
        bias = {t: float(x.abs().sum() / 2) for t, x in off.items()}
        for t in CLOCKS:
            line({"attribute": name, "clock": t, "bias": bias[t], "floor": floor, "n": len(index),
                  "by_value": [round(x, 4) for x in off[t].tolist()]})  # fmt: skip
        rows.append({"attribute": name, **{f"{t:g}": x for t, x in bias.items()}, "floor": floor})
    table(rows)


if __name__ == "__main__":
    main()
