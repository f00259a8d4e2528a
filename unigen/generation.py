"""From what a user asks to what a user gets: checks, encoding, sampling, decoding, results."""

import difflib
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from unigen import __version__, media
from unigen.errors import ResourceError, UsageError
from unigen.given import encoded, on, taken, whose
from unigen.sampling import passed_on, planned
from unigen.tokens import GLOBAL, Tokens, fitting, role_of

BATCH = 32  # samples in a forward, unless each is to be alone in its own


class Result:
    """What one seed gave: raw media by part, and the recipe that makes them again.

    `result.image`, `result.text`, ... are for people (a PIL image, a string, arrays);
    `result["image"]` is the raw tensor, batch of one.
    """

    def __init__(self, model, raw: dict[str, Any], recipe: dict):
        """Hold the media; `model` knows how to write them."""
        self.raw, self.recipe, self._model = raw, recipe, model

    def __getitem__(self, part: str) -> Any:
        """Return the raw media of a part."""
        return self.raw[part]

    def __getattr__(self, part: str) -> Any:
        """Return the media of a part in the form that people use."""
        raw = self.__dict__.get("raw", {})
        if part not in raw:
            raise AttributeError(f"this result has no {part!r}; it has {', '.join(raw)}")
        return self._model.modality(part).show(raw[part])

    def save(self, folder: str | Path) -> list[Path]:
        """Write every part to the folder, under the next number that is free for all of them.

        A part that another one carries as its track (sound in a video) has no file of its own.
        """
        folder = media.make_folder(folder)
        modalities = {part: self._model.modality(part) for part in self.raw}
        tracks = {m.track for m in modalities.values()} & set(self.raw)

        def write(part: str, path: Path) -> None:
            track = modalities[part].track
            sound = (modalities[track], self.raw[track]) if track in tracks else None
            modalities[part].write(self.raw[part], path, self.recipe, sound)

        return media.write_next(folder, [
            (part.replace(":", "_"), modality.suffix, partial(write, part))
            for part, modality in modalities.items() if part not in tracks
        ])  # fmt: skip


@torch.no_grad()
def generate(
    model,
    want: Sequence[str],
    given: Mapping[str, Any],
    *,
    seeds: Sequence[int] = (0,),
    steps: int | None = None,
    guidance: float | Mapping[str, float] | None = None,
    mutual_guidance: float | None = None,
    sampler: str | None = None,
    order: Sequence[str] | None = None,
    keep: Mapping[str, str] | None = None,
    through: Sequence[str] = (),
    negative: Mapping[str, Any] | None = None,
    deterministic: bool = False,
    joint: bool = True,
    noise: Tokens | None = None,
    callback: Callable[[int, Tokens], None] | None = None,
    progress: bool = False,
) -> list[Result]:
    """Generate the wanted parts given the others; return one `Result` a seed.

    want: part names. given: by part a path, raw media (batch 1, or one sample a seed), or for
    text the sentence. steps, guidance (1 is off; one number or one per given part), mutual_guidance
    (of parts made together, by each other; 1 is off), sampler and order (wanted parts that are made
    one after another, see `unigen.turns`; none: all at once, as with nothing given) default to what
    the model was tuned for. keep: by part (in given and in want) the region that stays, or
    "global": its point of the shared space stays, so that another one is made which means the
    same. through: parts that are made first, from what is given, and then stand in its place, as
    latents: text through an image is text that says it in other words. negative: like given, what
    guidance goes away from.
    deterministic: one sample a forward, the same bytes at any batch size. joint: False generates
    each part in a sequence of its own. noise: initial noise by part. callback: called with the
    number of every step and its latents; an exception it raises ends the sampling.
    Raises UsageError, MediaError, ResourceError where the latents are no numbers any more.
    """
    keep = dict(keep or {})
    if order is None and not given:  # where all is open, all at once is closer to the data (LOG.md)
        order = []
    order = None if order is None else _names(order)
    options = model.options(steps, guidance, sampler, mutual_guidance, order)
    negative = dict(negative or {})
    want, through = _names(want), _names(through)
    seeds = _checked(model, want, given, seeds, keep, through, options, negative, order or ())
    raw, notes, sources = taken(model, given, len(seeds))
    away, remarks, avoided = taken(model, negative, len(seeds), "negative")
    notes += remarks
    masks = _masks(model, keep, raw)
    own = fitting(noise or {}, {p: model.shape(p) for p in model.denoiser.parts}, len(seeds))
    size, total = 1 if deterministic else BATCH, _evaluations(model, want, masks, joint, options)
    results = []
    for start in range(0, len(seeds), size):
        rows = slice(start, start + size)
        tokens, other = (encoded(model, some, rows, len(seeds)) for some in (raw, away))
        how = {**options, "noises": {p: z[rows] for p, z in own.items()}, "joint": joint}
        if through:
            *_, between = model.sample(through, tokens, seeds[rows], **how)
            tokens = passed_on(model, between)
        states = model.sample(want, tokens, seeds[rows], keep=masks, negative=other, **how)
        bar = tqdm(states, total=total, disable=not progress, file=sys.stderr, unit="step")
        latents: Tokens = {}
        for number, latents in enumerate(bar, 1):
            if callback is not None:
                callback(number, latents)
        _check_finite(latents, options)
        made = model.decode({p: z for p, z in latents.items() if role_of(p) != GLOBAL})
        made = {p: on(value, "cpu") for p, value in made.items()}
        for i, seed in enumerate(seeds[rows]):
            recipe = {
                "unigen": __version__, "torch": torch.__version__, "model": model.hash,
                "seed": seed, "want": want, "given": whose(sources, start + i),
                "negative": whose(avoided, start + i), "keep": keep, "through": through,
                **options, "noise": sorted(own),
                "deterministic": deterministic, "joint": joint, "notes": notes,
            }  # fmt: skip
            results.append(
                Result(model, {p: value[i : i + 1] for p, value in made.items()}, recipe)
            )
    return results


def nearest(name: str, known: Sequence[str]) -> str:
    """Return a hint: the nearest known name, or all of them."""
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(known)}."


def _checked(
    model,
    want: list[str],
    given: Mapping,
    seeds: Sequence[int],
    keep: Mapping,
    through: list[str],
    options: dict,
    negative: Mapping,
    order: Sequence[str],
) -> list[int]:
    """Return the seeds as a list, or say what is wrong with the call."""
    known = [p for p in model.denoiser.parts if role_of(p) != GLOBAL]
    for part in (*want, *given, *keep, *through, *negative, *order):
        if part not in known:
            raise UsageError(f"unknown modality {part!r}; {nearest(part, known)}")
    if not want:
        raise UsageError(f"want is empty; name what to make, as in want=[{known[0]}].")
    if len(set(want)) < len(want):
        raise UsageError(f"want={want} names a part twice; name each once.")
    for part in want:
        if part in given and part not in keep and not through:
            raise UsageError(
                f"{part} is both wanted and given; drop one, or say what stays with keep.{part}=..."
            )
    for part in keep:
        if part not in want or part not in given:
            raise UsageError(f"keep.{part} needs {part} in want and in given.")
    if bad := [p for p in through if p in given or p in want or not given or keep]:
        raise UsageError(
            f"through={through} needs something given, no keep, and {bad[0]} neither given nor "
            "wanted; drop one."
        )
    for part in negative:
        if part in want:
            raise UsageError(f"negative.{part} needs {part} to be no part of want; drop one.")
    if isinstance(seeds, str) or not isinstance(seeds, Sequence):
        raise UsageError(f"seeds={seeds!r} is no list of whole numbers; type seeds=[0,1].")
    if not seeds:
        raise UsageError("there are no seeds; type n=1 or seeds=[0].")
    if bad := [s for s in seeds if isinstance(s, bool) or not isinstance(s, int)]:
        raise UsageError(f"seed {bad[0]!r} is no whole number; type seed=0.")
    if type(options["steps"]) is not int or not 1 <= options["steps"] <= 10_000:
        raise UsageError(f"steps={options['steps']}; type a whole number from 1 to 10000.")
    for key in ("guidance", "mutual_guidance"):
        for weight in _weights(options.get(key, 1.0)):
            number = isinstance(weight, int | float) and not isinstance(weight, bool)
            if not number or not isfinite(weight):
                raise UsageError(f"{key}={weight!r}; type a number, where 1 is off.")
    if negative and set(_weights(options["guidance"])) <= {1}:
        raise UsageError("negative has no effect with guidance=1; type guidance=2.5, say.")
    return list(seeds)


def _evaluations(model, want: list[str], keep: Mapping, joint: bool, options: Mapping) -> int:
    """Return in how many steps something is made."""
    how = {key: options[key] for key in ("order", "mutual_guidance") if key in options}
    plan = planned(model, want, options["steps"], keep=keep, joint=joint, **how)
    return sum(turn.steps for turn in plan)


def _check_finite(latents: Tokens, options: Mapping[str, Any]) -> None:
    """Raise ResourceError for latents of which no media can be made."""
    for part, z in latents.items():
        if not z.isfinite().all():
            raise ResourceError(
                f"sampling diverged: the latents of {part} hold NaN or Inf after "
                f"{options['steps']} steps with guidance={options['guidance']}; change one of the "
                "two, the sampler, or the dtype of the weights."
            )


def _names(parts: str | Sequence[str]) -> list[str]:
    return [parts] if isinstance(parts, str) else list(parts)


def _masks(model, keep: Mapping[str, str], raw: dict[str, Any]) -> dict[str, Tensor]:
    """Return what stays of each part, 1 for a token; blank the rest of the raw media."""
    masks = {}
    for part, region in keep.items():
        if region != GLOBAL:
            masks[part] = model.modality(part).kept(region).float()
            raw[part] = model.modality(part).blank(raw[part], masks[part])
        elif (point := f"{part}:{GLOBAL}") in model.denoiser.parts:
            masks[point] = torch.ones(1)
        else:
            raise UsageError(f"keep.{part}=global: the {part} of this model has no such point.")
    return masks


def _weights(guidance: Any) -> list:
    return list(guidance.values()) if isinstance(guidance, Mapping) else [guidance]
