"""Latents made once: the codecs are frozen while the denoiser learns."""

import sys

import torch
from torch import Tensor
from tqdm import tqdm

from unigen.model import UniGen
from unigen.tokens import Tokens


class Latents:
    """The latents of the first `count` samples of a source, in memory, in bfloat16."""

    def __init__(self, model: UniGen, source, count: int, seed: int = 0, device: str = "cpu"):
        """Encode the samples with the model's codecs."""
        self.count, self.device, chunk = count, device, 64
        store: dict[str, list[Tensor]] = {name: [] for name in model.modalities}
        model.eval()
        bar = tqdm(range(0, count, chunk), desc="encoding", file=sys.stderr, mininterval=5.0)
        with torch.no_grad(), torch.autocast(torch.device(device).type, torch.bfloat16):
            for start in bar:
                raw = source.batch(torch.arange(start, min(start + chunk, count)), list(store))
                for name, value in raw.items():
                    store[name].append(model.modality(name).encode(value).bfloat16())
        self.store = {name: torch.cat(rows) for name, rows in store.items()}
        model.train()

    def order(self, seed: int, step: int, batch: int) -> Tensor:
        """Return the samples of a step: a new permutation an epoch, a function of (seed, step)."""
        per_epoch = max(1, self.count // batch)
        epoch, place = divmod(step, per_epoch)
        generator = torch.Generator().manual_seed(seed * 7919 + epoch)
        return torch.randperm(self.count, generator=generator)[place * batch : (place + 1) * batch]

    def batch(self, index: Tensor, parts: list[str]) -> Tokens:
        """Return the latents of some samples."""
        return {part: self.store[part][index.to(self.device)].float() for part in parts}
