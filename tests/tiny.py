"""A tiny model with every modality, and a world of its size: the laws need no more."""

import itertools

import torch

from unigen import registry
from unigen.data.world import World
from unigen.model import UniGen

NAMES = ("audio", "image", "text", "video")
WORLD = {"size": 16, "frames": 4, "rate": 8000}
#: All 65 pairs of disjoint (given, want) with something wanted.
DIRECTIONS = [
    tuple(tuple(n for n, r in zip(NAMES, roles, strict=True) if r == role) for role in (1, 2))
    for roles in itertools.product(range(3), repeat=len(NAMES))
    if 2 in roles
]


def tiny_spec(flow: str = "RectifiedFlow", **flow_options) -> dict:
    """Return the spec of the tiny model."""
    codec = {"channels": 8, "width": [32, 32], "depth": [1, 1], "shared": 8}
    parts = {p: 8 for n in NAMES for p in (n, f"{n}:global")} | {"text": 2 * 104}
    return {
        "class": "UniGen",
        "modalities": {
            "image": {"class": "Image", "size": 16, "patch": 4, "merge": 2, **codec},
            "video": {"class": "Video", "size": 16, "grid": 2, "frames": 4, "span": 2,
                      "width": 32, "depth": 1, "channels": 8, "shared": 8},
            "audio": {"class": "Audio", "rate": 8000, "window": 1024, "hop": 500, "iterations": 4,
                      **codec},
            "text": {"class": "Text", "words": words(), "tokens": 16, "channels": 8,
                     "capacity": 104, "shared": 8},
        },
        "denoiser": {"class": "UViT", "parts": parts, "width": 32, "depth": 3, "head": 16},
        "flow": {"class": flow, **flow_options},
        "sampling": {"steps": 3},
    }  # fmt: skip


def tiny_model(seed: int = 0, **flow) -> UniGen:
    """Return the tiny model with random weights everywhere, output heads included."""
    torch.manual_seed(seed)
    model = registry.build(tiny_spec(**flow))
    for name, p in model.denoiser.named_parameters():
        if name.startswith(("head_out", "clock")):
            torch.nn.init.normal_(p, std=0.3)
    return model.eval()


def tiny_world(**options) -> World:
    """Return the world at the tiny model's sizes."""
    return World(**{**WORLD, **options})


def words() -> list[str]:
    """Return the words and marks of 400 captions, sorted."""
    sentences = World().batch(torch.arange(400), ["text"])["text"]
    return sorted({w for s in sentences for w in s.replace(",", " ,").split()})


def raw_batch(count: int, seed: int = 0) -> dict:
    """Return raw media of some scenes, all modalities."""
    return tiny_world(seed=seed).batch(torch.arange(count))
