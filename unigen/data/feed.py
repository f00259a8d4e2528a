"""What a trainer sees of its data: latents from memory, or raw media encoded as they come."""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unigen.data.bad import LEAST
from unigen.data.encode import in_memory, on
from unigen.data.files import Files
from unigen.data.indexed import Indexed
from unigen.data.latents import Latents
from unigen.data.rows import Rows
from unigen.data.stream import Stream
from unigen.errors import MediaError, UsageError
from unigen.modalities.base import Modality
from unigen.model import UniGen
from unigen.precision import autocast
from unigen.tokens import GLOBAL


class Feed:
    """Batches of a source for an objective: read ahead of the step, encoded at the step."""

    def __init__(self, model: UniGen, objective: Any, source: Any, device: Any = "cpu"):
        """source: Rows are latents already; anything else is raw."""
        self.model, self.objective, self.source, self.device = model, objective, source, device
        self.order, self.batch = source.order, source.batch
        self.describe = getattr(source, "describe", str)  # a sample for people
        if isinstance(source, Indexed | Stream):
            self.available = source.available
        elif hasattr(source, "parts"):  # a source of one's own may lack a modality
            there = [part for part in source.parts if part in model.modalities]
            self.available = lambda index: there

    @torch.no_grad()
    def finish(self, raw: dict[str, Any]) -> dict[str, Any]:
        """Return what the objective learns from, made of a raw batch by frozen codecs."""
        raw = {part: on(value, self.device) for part, value in raw.items()}
        if not self.objective.cached:
            return raw
        if not isinstance(self.source, Rows):
            raw = {part: self._encode(part, value) for part, value in raw.items()}
        if self.objective.teaches_codec:
            return {part: z.float() for part, z in raw.items()}
        return {**self._points(raw), **{part: z.float() for part, z in raw.items()}}

    def _encode(self, part: str, value: Any) -> Tensor:
        """Return latents, rounded as those of a cache are."""
        return encode(self.model, self.objective, part, value, self.device)

    def _points(self, latents: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the points of the shared space, by the towers as they are."""
        met = [p for p in latents if f"{p}:{GLOBAL}" in self.model.denoiser.parts]
        points = {p: self.model.modality(p).embed(latents[p].float()).bfloat16() for p in met}
        return {f"{p}:{GLOBAL}": e[:, None].float() for p, e in points.items()}


def encode(model: UniGen, objective: Any, part: str, value: Any, device: Any) -> Tensor:
    """Return what an objective keeps of a raw batch, in bfloat16, with the codecs at rest."""
    learning = model.training
    model.eval()
    with torch.no_grad(), autocast(device):
        made = objective.encode(model, part, on(value, device)).bfloat16()
    model.train(learning)
    return made


def meet(model: UniGen, objective: Any, source: Any, out: Path) -> Any:
    """Tie a source to the model and to what is learned; name what it refuses; return it.

    Raises UsageError where nothing in it can be learned from or its media are of another size than
    the model's, MediaError where too much of it is refused.
    """
    if isinstance(source, Stream):
        source.attach(kinds_of(model), objective.usable)
        source.bad.log(out / "bad_samples.jsonl")
        _say(source.notes)
    if not isinstance(source, Indexed | Stream):
        _compare(model, objective, source)
    if not isinstance(source, Indexed):
        return source
    if isinstance(source, Rows) and objective.teaches_codec:
        raise UsageError("latents teach no codec; train on the media, with data=folder or another.")
    source.attach(kinds_of(model))
    source.restrict([p for p in source.parts if p in model.modalities], objective.usable)
    source.log_bad(out / "bad_samples.jsonl")
    _say(source.notes)
    refused, seen = len(source.refused), len(source.refused) + len(source)
    if seen >= LEAST and refused > source.bad.most * seen:  # all of them are known here
        name, _, reason = source.refused[0]
        raise MediaError(
            f"{refused} of {seen} are refused, such as {name!r} ({reason}); mend the data, or "
            f"raise data.max_bad={source.bad.most:g}"
        )
    return source


def _compare(model: UniGen, objective: Any, source: Any) -> None:
    """Raise UsageError where a source that makes its media makes them of another size."""
    learned = [objective.modality] if objective.teaches_codec else list(model.modalities)
    first, there = torch.arange(1), getattr(source, "parts", learned)
    if hasattr(source, "available"):
        there = source.available(first)
    for part in (part for part in learned if part in there):
        wanted = model.modality(part).shape
        if wanted is None:
            continue
        came = tuple(source.batch(first, [part])[part].shape[1:])
        if came != wanted:
            raise UsageError(
                f"{part} of the data is of shape {list(came)}, and of the model {list(wanted)}; "
                f"data.* and modalities.{part}.* say how large they are."
            )


def _say(notes: list[str]) -> None:
    for note in notes:
        sys.stderr.write(f"unigen: {note}\n")


def kinds_of(model: UniGen) -> dict[str, Modality]:
    """Return the modalities of a model by name."""
    return {name: model.modality(name) for name in model.modalities}


def teach(model: UniGen, source: Any) -> None:
    """Show the modalities what no gradient teaches; latents were made by those that know it."""
    for name, modality in kinds_of(model).items():
        if modality.lessons and not isinstance(source, Rows):
            modality.prepare(lessons(source, name, modality.lessons))


def lessons(source: Any, part: str, count: int, start: int = 0) -> Any:
    """Return raw samples of a part, for what no gradient teaches."""
    if isinstance(source, Files | Stream):
        return source.lessons(part, count)
    return source.batch(torch.arange(start, start + count), [part])[part]


def feed(
    model: UniGen, objective: Any, source: Any, cache: int, device: Any, folder: str | None = None
) -> Any:
    """Return what a trainer draws batches from.

    cache: samples whose latents are made once and kept in memory. An endless source is cached up
    to it, a finite one where it fits; 0 is encoding as the batches come. folder: where the cache
    of an endless source is kept.
    """
    if not isinstance(source, Indexed | Stream):
        if not objective.cached:
            return source
        if cache:
            return Latents(model, objective, source, cache, device, folder)
    elif isinstance(source, Files) and objective.cached and len(source) <= cache:
        parts = [part for part in source.parts if part in model.modalities]
        if objective.teaches_codec:
            parts = [objective.modality]
        made = in_memory(
            source, lambda part, raw: encode(model, objective, part, raw, device), parts, device
        )
        made.restrict(made.parts, objective.usable)
        return Feed(model, objective, made, device)
    elif isinstance(source, Files) and objective.cached and cache:
        sys.stderr.write(
            f"unigen: {len(source)} items are more than trainer.cache={cache}: the codecs work at "
            "every step; unigen data encode makes them work once\n"
        )
    return Feed(model, objective, source, device)
