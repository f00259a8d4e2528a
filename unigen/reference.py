"""What a measurement is held against: scenes, what given media tell, the data."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from unigen import metrics
from unigen.data.world import World
from unigen.data.world.oracles import OBJECTS, SCENE, Reading, read, truth
from unigen.errors import UsageError
from unigen.metrics import Draws

BATCH = 32  # samples made at once
SEED = 1  # of the world's scenes; training has seed 0
STRIDE = 2**20  # scenes between two seeds of an evaluation
DATA = 20_000  # scenes that say what the data are like


@dataclass(frozen=True)
class Setting:
    """Which scenes: "seen" or "held_out" pairs, always 1 or always 2 objects.

    "all" is the mixture of training, with nothing given; "novel" has a color and a motion that no
    other has.
    """

    split: str
    objects: int

    def world(self, full: bool = False, **sizes: Any) -> World:
        """Return the scenes; `full`: captions that say everything. sizes: see `sizes_of`."""
        split = "held_out" if self.split == "held_out" else "train"
        two = 0.4 if self.split == "all" else self.objects - 1.0
        novel = float(self.split == "novel")
        return World(seed=SEED, split=split, two=two, full=full, novel=novel, **sizes)


QUICK = (Setting("seen", 1), Setting("held_out", 1), Setting("seen", 2))
FULL = (*QUICK, Setting("held_out", 2))
FREE = Setting("all", 2)


def scenes_of(seed: int, n: int) -> Tensor:
    """Return the numbers of the scenes of an evaluation; they are the seeds of the noise, too."""
    return torch.arange(n) + seed * STRIDE


def shared(scene: Reading, given: Sequence[Reading]) -> Reading:
    """Return what given parts tell of the scene; the rest is marked as not told."""
    told = {}
    for name in (*SCENE, *OBJECTS):
        some = torch.stack([getattr(r, name) >= 0 for r in given]).any(0)
        told[name] = torch.where(some, getattr(scene, name), -1)
    some = torch.stack([~r.event.isnan() for r in given]).any(0)
    return replace(scene, **told, event=torch.where(some, scene.event, torch.nan))


def left_out(caption: Reading) -> dict[str, Tensor]:
    """Tell which attributes captions leave open, of the objects that they name."""
    present = caption.ok[:, None] & (torch.arange(2) < caption.count[:, None])
    names = [name for name in metrics.CODES if name in OBJECTS and name not in ("shape", "sound")]
    left = {name: present & (getattr(caption, name) < 0) for name in names}
    return {**left, "background": caption.ok & (caption.background < 0)}


@lru_cache
def data_marginals(setting: Setting) -> dict[str, Tensor]:
    """Return how often the data show each value of each attribute."""
    return metrics.marginals(truth(setting.world().scenes(torch.arange(DATA) - DATA)))


@lru_cache
def data_mentions(setting: Setting) -> dict[str, dict[str, Draws]]:
    """Return how often the data's captions say each attribute, by part."""
    raw = setting.world().batch(torch.arange(DATA) - DATA, sorted(captions()))
    return {part: metrics.mentions(read(part, sentences)) for part, sentences in raw.items()}


@lru_cache
def captions() -> frozenset[str]:
    """Return the parts that are sentences: they may leave attributes out."""
    raw = FREE.world().batch(torch.arange(1))
    return frozenset(part for part, value in raw.items() if isinstance(value, list))


def sizes_of(model) -> dict[str, Any]:
    """Return the sizes of a model's media, as the world wants them: side, frames, rate."""
    modalities = [model.modalities[part] for part in parts_of(model)]
    return {key: getattr(m, key) for m in modalities for key in ("size", "frames", "rate")
            if hasattr(m, key)}  # fmt: skip


def parts_of(model) -> list[str]:
    """Return the modalities of a model that the world has, too, or raise UsageError."""
    parts = [part for part in World.parts if part in model.modalities]
    if not parts:
        raise UsageError(
            f"this model has {', '.join(model.modalities)}, the world {', '.join(World.parts)}; "
            "name another model with model=..."
        )
    return parts
