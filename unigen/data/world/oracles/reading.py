"""What an oracle reads from one medium, and how two readings of the same scenes compare."""

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unigen.data.world import vocabulary as v
from unigen.data.world.scenes import Scenes

#: Attributes of a whole scene and of each object, in the order of reports.
SCENE, OBJECTS = ("count", "background"), ("shape", "color", "size", "motion", "position", "sound")

#: What each kind of medium can tell. `truth` is the scene itself.
TELLS = {
    "image": frozenset({"count", "background", "shape", "color", "size", "position"}),
    "video": frozenset(
        {"count", "background", "shape", "color", "size", "motion", "position", "event"}
    ),
    "audio": frozenset({"count", "shape", "color", "size", "motion", "event"}),
    "text": frozenset((*SCENE, *OBJECTS)),
    "truth": frozenset((*SCENE, *OBJECTS, "event")),
}


@dataclass(frozen=True)
class Reading:
    """Attributes read from a batch of media of one kind, as codes into `vocabulary`; -1: not told.

    Slot 0 is the object farther left, in the low register, or named first; slot 1 is the other.
    """

    part: str  # the kind of medium, a key of TELLS
    ok: Bool[Tensor, " b"]  # the caption follows the grammar; at least one object was found
    count: Int[Tensor, " b"]  # 1 or 2
    background: Int[Tensor, " b"]
    event: Float[Tensor, " b"]  # seconds, nan where there is none
    shape: Int[Tensor, "b 2"]
    color: Int[Tensor, "b 2"]
    size: Int[Tensor, "b 2"]
    motion: Int[Tensor, "b 2"]
    position: Int[Tensor, "b 2"]
    sound: Int[Tensor, "b 2"]  # the shape whose timbre word a caption says

    def __len__(self) -> int:
        """Return the number of media read."""
        return len(self.count)

    def __getitem__(self, rows) -> "Reading":
        """Return the readings of some rows."""
        return replace(self, **{name: getattr(self, name)[rows] for name in _TENSORS})


_TENSORS = tuple(f.name for f in fields(Reading) if f.name != "part")


def reading(part: str, ok: Tensor, **told: Tensor) -> Reading:
    """Make a reading on the CPU; attributes not given are not told."""
    ok = ok.cpu()
    values = {name: torch.full((len(ok),), -1) for name in SCENE}
    values |= {name: torch.full((len(ok), 2), -1) for name in OBJECTS}
    values["event"] = torch.full((len(ok),), torch.nan, dtype=torch.float64)
    values |= {name: value.to("cpu", values[name].dtype) for name, value in told.items()}
    return Reading(part, ok, **values)


def join(readings: list[Reading]) -> Reading:
    """Concatenate readings of the same kind of medium."""
    return Reading(
        readings[0].part, *(torch.cat([getattr(r, name) for r in readings]) for name in _TENSORS)
    )


def truth(scenes: Scenes) -> Reading:
    """Return what a perfect reader of all media would read from the scenes."""
    told = {name: torch.where(scenes.present, getattr(scenes, name), -1)
            for name in v.OBJECT_ATTRIBUTES}  # fmt: skip
    told |= {"count": scenes.count, "background": scenes.background, "event": scenes.event}
    return reading("truth", torch.ones_like(scenes.bounces), sound=told["shape"], **told)


def matches(read: Reading, wanted: Reading) -> dict[str, tuple[Tensor, Tensor]]:
    """Compare a reading with the reference that it should agree with.

    Returns (correct, valid) by attribute: [b] for attributes of the scene and for "all", which is
    correct where every valid attribute is; [b, 2] for attributes of objects. Their mean over valid
    entries is the accuracy. An attribute is valid where the reference tells it and the kind of
    medium can tell it. A caption may leave attributes out: only those that it says are valid,
    but one outside the grammar, and an object that it does not name, are wrong throughout.
    A timbre word ("sound") is compared with the reference's shape, only where it is said.
    """
    unread = ~read.ok[:, None] | (torch.arange(2) >= read.count[:, None])
    result, wrong = {}, torch.zeros(len(read), dtype=torch.bool)
    compared = torch.zeros_like(wrong)
    for name in (*SCENE, *OBJECTS):
        mine, reference = getattr(read, name), getattr(wanted, "shape" if name == "sound" else name)
        valid = (reference >= 0) & (name in TELLS[read.part])
        if read.part == "text":
            failed = ~read.ok if name in SCENE else unread
            valid = valid & ((mine >= 0) | (failed if name != "sound" else False))
        correct = valid & (mine == reference)
        result[name] = correct, valid
        bad = valid & ~correct
        wrong |= bad.any(1) if bad.ndim > 1 else bad
        compared |= valid.any(1) if valid.ndim > 1 else valid
    result["all"] = compared & ~wrong, compared
    return result


def sync(
    read: Reading, wanted: Reading, tolerance: float = 1 / 8
) -> tuple[Bool[Tensor, " b"], Bool[Tensor, " b"]]:
    """Tell where two readings put the event within `tolerance` seconds: (correct, valid), [b].

    Valid wherever both kinds of media can tell the event; one that shows none is wrong.
    """
    both = "event" in TELLS[read.part] and "event" in TELLS[wanted.part]
    near = (read.event - wanted.event).abs() <= tolerance + 1e-6
    return near & both, torch.full_like(near, both)


def accuracy(compared: dict[str, tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Return the share of correct among valid entries by attribute, without those never valid."""
    return {
        name: (correct.sum() / valid.sum()).item()
        for name, (correct, valid) in compared.items()
        if valid.any()
    }
