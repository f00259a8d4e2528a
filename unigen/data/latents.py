"""Latents made once: the codecs are frozen while the towers or the denoiser learn."""

import hashlib
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from unigen.given import on
from unigen.model import UniGen
from unigen.precision import autocast
from unigen.tensorfile import read_weights, write_weights
from unigen.tokens import GLOBAL, modality_of, role_of


class Latents:
    """The latents of the first `count` samples of a source, in memory, in bfloat16.

    folder: where they are kept for the next run with the same codecs and source, if anywhere.
    """

    def __init__(
        self, model: UniGen, objective: Any, source: Any, count: int, device: str = "cpu",
        folder: str | Path | None = None,
    ):  # fmt: skip
        """Encode the samples as the objective says, or read them from `folder`."""
        self.count, self.device = count, device
        there = getattr(source, "parts", model.modalities)
        parts = [p for p in model.modalities if p in there]
        if objective.teaches_codec:
            parts = [objective.modality]
        key = _key(model, source, count, parts)
        path = None if folder is None else Path(folder) / f"{key}.safetensors"
        if path is not None and path.is_file():
            self.store = {k: z.to(device) for k, z in read_weights(path, path.parent)[0].items()}
        else:
            self.store = _encode(model, objective, source, count, parts, device)
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                part = path.with_suffix(".part")
                part.unlink(missing_ok=True)
                write_weights(part, self.store)
                part.rename(path)
        if not objective.teaches_codec:
            self._place(model)

    def order(self, seed: int, step: int, batch: int) -> Tensor:
        """Return the samples of a step: a new permutation an epoch, a function of (seed, step)."""
        per_epoch = max(1, self.count // batch)
        epoch, place = divmod(step, per_epoch)
        generator = torch.Generator().manual_seed(seed * 7919 + epoch)
        return torch.randperm(self.count, generator=generator)[place * batch : (place + 1) * batch]

    def available(self, index: Tensor) -> list[str]:
        """Return the modalities that there are latents of."""
        return [part for part in self.store if role_of(part) != GLOBAL]

    def batch(self, index: Tensor, parts: list[str]) -> dict[str, Tensor]:
        """Return the latents of some samples, with the points of the shared space."""
        index = index.to(self.device)
        return {p: z[index].float() for p, z in self.store.items() if modality_of(p) in parts}

    @torch.no_grad()
    def _place(self, model: UniGen) -> None:
        """Add every sample's points in the shared space, by the towers as they are now."""
        for name in list(self.store):
            part = f"{name}:{GLOBAL}"
            if part in model.denoiser.parts:
                chunks = self.store[name].split(1024)
                points = [model.modality(name).embed(z.float()).bfloat16() for z in chunks]
                self.store[part] = torch.cat(points)[:, None]


@torch.no_grad()
def _encode(
    model: UniGen, objective: Any, source: Any, count: int, parts: list[str], device: str
) -> dict[str, Tensor]:
    store: dict[str, list[Tensor]] = {part: [] for part in parts}
    model.eval()
    bar = tqdm(range(0, count, 64), desc="encoding", file=sys.stderr, mininterval=5.0)
    with autocast(device):
        for start in bar:
            raw = source.batch(torch.arange(start, min(start + 64, count)), list(store))
            for part, value in raw.items():
                store[part].append(objective.encode(model, part, on(value, device)).bfloat16())
    model.train()
    return {name: torch.cat(rows) for name, rows in store.items()}


def _key(model: UniGen, source: Any, count: int, parts: list[str]) -> str:
    """Name latents by the codecs' weights, the source and the count."""
    digest = hashlib.sha256(f"{count} {parts} {getattr(source, 'spec', vars(source))}".encode())
    for name, weight in model.modalities.state_dict().items():
        if ".tower." not in name:
            digest.update(weight.cpu().contiguous().numpy().tobytes())
    return f"latents-{digest.hexdigest()[:16]}"
