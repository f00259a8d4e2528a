"""One generation: the wanted parts walk from noise to data, what is given stands at clock 0."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unigen.flow import DECIDED
from unigen.guidance import guided, mutual
from unigen.interop import schedulers
from unigen.presence import settled
from unigen.sampler import named
from unigen.tokens import GLOBAL, Clocks, Tokens, modality_of, noise, pick
from unigen.turns import Turn, turns


@torch.no_grad()
def sample(
    model: Any,  # a unigen.model.UniGen
    want: Sequence[str],
    given: Tokens,
    seeds: Sequence[int],
    *,
    steps: int = 16,
    guidance: float | Mapping[str, float] = 1.0,
    mutual_guidance: float = 1.0,
    interval: Sequence[float] = (0.0, 1.0),
    sampler: str | Callable[..., Iterator[Tokens]] = "multistep",
    keep: Mapping[str, Float[Tensor, " n"]] | None = None,
    order: Sequence[str] = (),
    joint: bool = True,
    noises: Tokens | None = None,
    negative: Tokens | None = None,
) -> Iterator[Tokens]:
    """Yield the wanted latents after every step, from noise to data.

    given: clean latents; a part that is also wanted is kept where `keep[part]` is 1, bit for bit.
    guidance: 1 is off; one number, or one per given part. mutual_guidance: of wanted parts by each
    other, 1 is off. interval: clocks between which both act.
    sampler: a name (`diffusers.` before that of a scheduler), or a generator function like those of
    `unigen.sampler`. order: parts that are made one after another, see `planned`; none: all at
    once. joint: False puts every wanted part in a sequence of its own. noises: initial noise to use
    instead of the seeds'. negative: what guidance goes away from, see `guided`.

    A part that is neither wanted nor given is not in the sequence, or it is noise at clock 1 (Bao
    et al. 2023b), as the denoiser's `absent` says.

    Ordered tokens (words) settle one after another: at clock t the first share 1 - t of them is
    settled, which means kept, and the next one is drawn. With as many steps as tokens every one is
    drawn knowing all before it; with fewer, some are drawn side by side. Beside other modalities
    they begin at clock `DECIDED`, so that they speak of what is there, and end with them. Clocks
    are even where words settle, as many a step; elsewhere they are those of the flow's `shift`.

    The point in the shared space of such a modality, or of one that is kept in part, is seen as
    noise to the end: it would be the mean of what may come, and draw it to what is common.
    """
    walk = _walk(sampler) if isinstance(sampler, str) else sampler
    if not joint and len(want) > 1:
        options = {"steps": steps, "guidance": guidance, "interval": interval, "sampler": walk,
                   "noises": noises, "negative": negative}  # fmt: skip
        yield from _apart(model, want, given, seeds, keep or {}, options)
        return
    plan = planned(model, want, steps, order, keep or (), mutual_guidance)
    if len(plan) > 1:
        options = {"guidance": guidance, "interval": interval, "sampler": walk,
                   "noises": noises, "negative": negative}  # fmt: skip
        yield from _in_turn(model, plan, given, seeds, keep or {}, options)
        return
    parts = model.denoiser.parts
    wanted = [p for name in want for p in (name, f"{name}:{GLOBAL}") if p in parts]
    start = _start(model, wanted, seeds, noises)
    fixed, calls = {p: z for p, z in given.items() if p not in start}, count()
    away = [p for p in parts if p not in start and p not in fixed]
    away = away if model.denoiser.absent == "one noise" else []
    beside = _start(model, away, seeds, noises)
    ordered = {p for p in start if model.ordered(p)}
    late = ordered | _undecided(start, ordered, keep or (), model.denoiser.kept)
    lead = DECIDED if {modality_of(p) for p in start} - {modality_of(p) for p in ordered} else 1.0
    none = {p: torch.zeros(start[p].shape[1]) for p in ordered}
    masks = {p: m[None, :, None].to(model.device) > 0 for p, m in {**none, **(keep or {})}.items()}
    kept = {p: given.get(p, start[p]) for p in masks}

    def hold(x: Tokens) -> Tokens:
        return {**x, **{p: torch.where(m, kept[p], x[p]) for p, m in masks.items()}}

    def clocks(t: Float[Tensor, ""]) -> Clocks:
        moving = {p: t if p not in late else torch.ones_like(t) for p in start}
        full = {p: c.expand(start[p].shape[:2]) for p, c in moving.items()}
        if model.denoiser.kept == "noised":
            return full
        return {**full, **{p: full[p] * ~m[..., 0] for p, m in masks.items()}}

    def shown(x: Tokens, t: Float[Tensor, ""]) -> Tokens:
        """Return what the network sees: kept tokens clean, or with noise of the clock."""
        x, at = hold({**x, **pick(start, late)}), clocks(t)
        if model.denoiser.kept == "noised":
            noised = {p: model.flow.interpolate(kept[p], start[p], at[p]) for p in masks}
            x = {**x, **{p: torch.where(masks[p], z, x[p]) for p, z in noised.items()}}
        return x

    def absent(x: Tokens) -> Tokens:
        names = [p for p in parts if p not in x] if model.denoiser.absent != "drop" else []
        call = next(calls) if names else 0
        made = {p: noise(f"{p}/absent/{call}", seeds, model.shape(p))
                for p in names if p not in beside}  # fmt: skip
        return {p: z.to(model.device) for p, z in made.items()} | pick(beside, names)

    def ask(t: Float[Tensor, ""], asked: Sequence[tuple[Tokens, Tokens]]) -> list[Tokens]:
        """Ask the network for tokens at one clock, each with conditions of its own at clock 0."""
        inputs: list[tuple[Tokens, Clocks]] = []
        for x, fixed in asked:
            gone, moving = absent({**x, **fixed}), pick(clocks(t), x)
            still = {p: z.new_zeros(z.shape[:2]) for p, z in fixed.items()}
            loud = {p: z.new_ones(z.shape[:2]) for p, z in gone.items()}
            inputs.append(({**x, **fixed, **gone}, {**moving, **still, **loud}))
        outputs = _together(model.denoise, inputs)
        return [pick(output, x) for output, (x, _) in zip(outputs, asked, strict=True)]

    guidable = {p for p in start if model.lens(p).guided}
    answers = guided(ask, fixed, guidance, guidable, interval, negative)
    answers = mutual(answers, ask, fixed, mutual_guidance, guidable, interval)

    def denoise(x: Tokens, t: Float[Tensor, ""]) -> Tokens:
        """Predict the data of the wanted parts, and settle the tokens whose turn it is."""
        x = shown(x, t)
        output, now = answers(x, t), clocks(t)
        data = hold({p: model.lens(p).draw(output[p], x[p], now[p], model.flow, start[p])
                     for p in start})  # fmt: skip
        for p in ordered:
            n = start[p].shape[1]
            masks[p], kept[p] = masks[p] | settled(t / lead - 1 / n, n)[None, :, None], data[p]
        return data

    def fresh(step: int) -> Tokens:
        return {p: noise(f"{p}/{step}", seeds, z.shape[1:]).to(z.device) for p, z in start.items()}

    times = model.flow.times(steps, even=bool(ordered)).to(model.device)
    yield from walk(denoise, start, model.flow, times, fresh)


def planned(
    model: Any,
    want: Sequence[str],
    steps: int,
    order: Sequence[str] = (),
    keep: Collection[str] = (),
    mutual_guidance: float = 1.0,
    joint: bool = True,
) -> list[Turn]:
    """Return the turns of wanted parts, see `unigen.turns`.

    There is one where parts guide each other, which they do on the same way, or know nothing of
    each other. keep: parts, or their points, of which something stays.
    """
    if mutual_guidance != 1 or not joint:
        return [Turn([*want], steps)]
    kept = {modality_of(part) for part in keep}
    return turns(want, steps, order, kept, {p for p in want if model.ordered(p)})


def _start(model: Any, parts: Sequence[str], seeds: Sequence[int], noises: Tokens | None) -> Tokens:
    """Return the noise that parts start from: their own, or that of the seeds."""
    own = noises or {}
    return {p: own[p].to(model.device) if p in own else model.prior(p, seeds) for p in parts}


def _undecided(
    start: Tokens, ordered: Collection[str], keep: Collection[str], kept: str
) -> set[str]:
    """Return the points of the shared space that are not to tell what the tokens decide.

    Kept tokens that are seen as noised leave theirs at the clock of all.
    """
    waiting = {*ordered, *(keep if kept != "noised" else ())}
    return {point for p in waiting if (point := f"{p}:{GLOBAL}") in start}


def _together(
    ask: Callable[[Tokens, Clocks], Tokens], inputs: Sequence[tuple[Tokens, Clocks]]
) -> list[Tokens]:
    """Ask once, with a larger batch, where all inputs have the same parts; else one by one."""
    if len(inputs) == 1 or len({frozenset(x) for x, _ in inputs}) > 1:
        return [ask(x, t) for x, t in inputs]
    xs, ts = zip(*inputs, strict=True)
    output = ask(
        *({p: torch.cat([some[p] for some in each]) for p in each[0]} for each in (xs, ts))
    )
    rows = (z.chunk(len(inputs)) for z in output.values())
    return [dict(zip(output, some, strict=True)) for some in zip(*rows, strict=True)]


def _walk(name: str) -> Callable[..., Iterator[Tokens]]:
    """Return the sampler of that name: one of `unigen.sampler`, or a scheduler of diffusers."""
    if name.startswith(schedulers.PREFIX):
        return schedulers.Scheduled(schedulers.scheduler_of(name))
    return named(name)


def _in_turn(
    model: Any, plan: Sequence[Turn], given: Tokens, seeds: Sequence[int],
    keep: Mapping[str, Tensor], options: dict[str, Any],
) -> Iterator[Tokens]:  # fmt: skip
    """Walk one turn after another; what is made is given to the next, who waits is noise."""
    names = [name for turn in plan for name in turn.parts]
    wanted = [p for p in model.denoiser.parts if modality_of(p) in names]
    x = _start(model, wanted, seeds, options["noises"])
    made: Tokens = {}
    for parts, steps in plan:
        given = {**given, **passed_on(model, made, keep)}
        kept = {p: m for p, m in keep.items() if modality_of(p) in parts}
        for made in sample(model, parts, given, seeds, steps=steps, keep=kept, **options):
            yield {**x, **made}
        x = {**x, **made}


def passed_on(model: Any, made: Tokens, keep: Collection[str] = ()) -> Tokens:
    """Return what was made as others are given it: with the points that its latents have.

    A walk ends at the point it went by, which is not quite that of the latents it came to. Points
    that stay as they are: those in `keep`, and those that latents do not tell.
    """
    points: Tokens = {}
    for part, z in made.items():
        point, modality = f"{part}:{GLOBAL}", model.modality(part)
        if modality.told and point in made and point not in keep:
            points[point] = modality.embed(z)[:, None]
    return {**made, **points}


def _apart(
    model: Any, want: Sequence[str], given: Tokens, seeds: Sequence[int],
    keep: Mapping[str, Tensor], options: dict[str, Any],
) -> Iterator[Tokens]:  # fmt: skip
    """Walk every wanted part in a sequence of its own, side by side."""
    names, walks = {modality_of(part) for part in want}, []
    for part in want:
        others = names - {modality_of(part)}
        own = {p: z for p, z in given.items() if modality_of(p) not in others}
        kept = {p: m for p, m in keep.items() if modality_of(p) == modality_of(part)}
        walks.append(sample(model, [part], own, seeds, keep=kept, **options))
    for states in zip(*walks, strict=True):
        yield {k: z for state in states for k, z in state.items()}
