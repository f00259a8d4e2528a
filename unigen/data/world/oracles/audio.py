"""Reads a sound: a voice per register with its pitch, formants, level and rhythm, and the thump."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from unigen.data.world import vocabulary as v
from unigen.data.world.oracles.reading import Reading, reading
from unigen.data.world.sound import envelopes

_WINDOW, _HOP = 0.064, 0.008  # seconds
_LOBE = 2  # bins on either side of a line that hold its power
_THUMP_BAND = (50.0, 170.0)  # Hz
_LEAST_LEVEL_DB = -24.0  # of a tone, against a large object's
_LEAST_THUMP_DB = -18.0  # against the world's thump
_LEAST_FORMANT = 0.28  # of the fundamental's amplitude, for a formant that is sung
_LOG_STEPS, _LOG_RANGE = 96, (240.0, 7_900.0)  # bins an octave, Hz: the axis pitch is read on
_BLUR = 0.011  # width of a line on it, as a share of the frequency
_HALF_BAND = 0.035  # of a line's frequency: where its power is looked for
_BOUNCING = v.MOTIONS.index("bouncing")


def read_audio(raw: Float[Tensor, "b samples"], rate: int = 16_000) -> Reading:
    """Read mono sounds at `rate` Hz, values in [-1, 1]."""
    wave = torch.nan_to_num(raw.float())
    power = _power(wave, rate)
    lines = _lines(wave, rate)
    slots = [_tone(power, lines, register, rate, wave.shape[1]) for register in range(2)]
    present = torch.stack([s.pop("present") for s in slots], 1)
    told = {
        name: torch.where(present, torch.stack([s[name] for s in slots], 1), -1)
        for name in slots[0]
    }
    count = present.sum(1)
    event = _thump(power, rate, wave.shape[1])
    return reading(
        "audio", present.any(1), count=torch.where(count > 0, count, -1), event=event, **told
    )


def _sizes(rate: int) -> tuple[int, int]:
    """Return window and hop in samples."""
    return 2 * round(_WINDOW * rate / 2), round(_HOP * rate)


def _power(wave: Tensor, rate: int) -> Float[Tensor, "b bins t"]:
    """Return the power over time and frequency; a sine's bins add up to its amplitude squared."""
    window, hop = _sizes(rate)
    shape = torch.hann_window(window, device=wave.device)
    spectrum = torch.stft(wave, window, hop, window=shape, pad_mode="constant", return_complex=True)
    scale = 4 / (window * shape.square().sum())
    return torch.view_as_real(spectrum).square().sum(-1) * scale


def _lines(wave: Tensor, rate: int) -> Float[Tensor, "b bins"]:
    """Return the power of the whole sound above its noise floor, in steps of log frequency."""
    n = wave.shape[1]
    shape = torch.hann_window(n, device=wave.device)
    spectrum = torch.view_as_real(torch.fft.rfft(wave * shape))
    power = spectrum.square().sum(-1) * (4 / (n * shape.square().sum()))
    edges = _log_edges(wave.device) * n / rate
    edge = edges.round().long().clamp(max=power.shape[1])
    total = F.pad(power.double().cumsum(1), (1, 0))
    width = edge[1:] - edge[:-1]
    density = (total[:, edge[1:]] - total[:, edge[:-1]]) / width.clamp(min=1)
    floor = F.pad(density[:, None], (12, 12), mode="replicate")[:, 0].unfold(1, 25, 1).median(-1)
    return ((density - 1.2 * floor.values).clamp(min=0) * width).float()


def _log_edges(device) -> Float[Tensor, " n"]:
    lo, hi = _LOG_RANGE
    octaves = torch.log2(torch.tensor(hi / lo)).item()
    steps = torch.arange(int(octaves * _LOG_STEPS) + 1, dtype=torch.float64, device=device)
    return lo * 2 ** (steps / _LOG_STEPS)


@lru_cache
def _spectra(register: int, device: str) -> Float[Tensor, "colors timbres bins"]:
    """Return amplitude spectra, of norm 1, of every pitch and timbre of a register."""
    edges = _log_edges(device)
    middle = (edges[1:] * edges[:-1]).sqrt().log()
    pitch = torch.tensor([v.pitch_hz(register, c) for c in range(len(v.COLORS))], device=device)
    center = _heights(pitch, register).log()[..., None]  # colors 4 1
    bump = torch.exp(-((middle - center) ** 2) / (2 * _BLUR**2))
    gain = torch.tensor(v.TIMBRES, device=device) * v.FORMANT_GAIN
    gain = torch.cat([torch.ones_like(gain[:, :1]), gain], 1)  # timbres 4
    spectra = torch.einsum("tr,crn->ctn", gain, bump.float())
    return spectra / spectra.norm(dim=-1, keepdim=True)


def _heights(pitch: Float[Tensor, " b"], register: int) -> Float[Tensor, "b 4"]:
    """Return the fundamental and the possible formants, in Hz."""
    formants = torch.tensor(v.FORMANTS[register], device=pitch.device, dtype=pitch.dtype)
    return torch.cat([pitch[:, None], formants.expand(len(pitch), -1)], 1)


def _tone(power: Tensor, lines: Tensor, register: int, rate: int, n: int) -> dict[str, Tensor]:
    """Return the attributes of the tone in one register, and whether there is one, [b] each."""
    color = _spectra(register, str(lines.device)) @ lines.sqrt().T  # colors timbres b
    color = color.amax(1).argmax(0)
    pitch = v.REGISTERS[register] * 2 ** (color.double() / v.STEPS)
    hz = _heights(pitch, register)  # b 4
    strength = _band(lines, hz).sqrt()
    relative = strength[:, 1:] / strength[:, :1].clamp(min=1e-9)
    relative = (relative / (2 * _LEAST_FORMANT)).clamp(max=1)
    timbre = torch.tensor(v.TIMBRES, device=lines.device)
    shape = (relative[:, None] - timbre).square().sum(-1).argmin(1)
    sung = F.pad(timbre[shape] > 0, (1, 0), value=True)  # b 4
    over_time = _line(power, hz, rate)  # b 4 t
    rhythm = (over_time * sung[..., None]).sum(1).sqrt()
    shapes, motions = _rhythms(n, rate, str(power.device))
    best = (rhythm @ (shapes / shapes.norm(dim=1, keepdim=True)).T).argmax(1)
    shown = shapes[best]
    level = (over_time[:, 0].sqrt() * shown).sum(1) / shown.square().sum(1)
    level = 20 * (level / v.FULL_SCALE).clamp(min=1e-9).log10()
    levels = torch.tensor(v.LEVELS_DB, device=lines.device)
    size = (level[:, None] - levels).abs().argmin(1)
    present = level > _LEAST_LEVEL_DB
    return {"present": present, "shape": shape, "color": color, "size": size,
            "motion": motions[best]}  # fmt: skip


def _band(lines: Tensor, hz: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
    """Return the power near some frequencies."""
    total = F.pad(lines.double().cumsum(1), (1, 0))
    steps = torch.tensor([1 - _HALF_BAND, 1 + _HALF_BAND], device=hz.device) * hz[..., None]
    edge = ((steps / _LOG_RANGE[0]).log2() * _LOG_STEPS).round().long().clamp(0, lines.shape[1])
    return total.gather(1, edge[..., 1]) - total.gather(1, edge[..., 0])


def _line(power: Tensor, hz: Float[Tensor, "b k"], rate: int) -> Float[Tensor, "b k t"]:
    """Return the power of some lines over time; zero above what the rate can carry."""
    bins = power.shape[1]
    middle = (hz * _sizes(rate)[0] / rate).round().long()
    near = middle[..., None] + torch.arange(-_LOBE, _LOBE + 1, device=hz.device)  # b k lobe
    held = (near < bins).flatten(1)[..., None]
    index = near.clamp(max=bins - 1).flatten(1)[..., None].expand(-1, -1, power.shape[2])
    return (power.gather(1, index) * held).unflatten(1, near.shape[1:]).sum(2)


def _smoothed(amplitude: Float[Tensor, "k samples"], rate: int) -> Float[Tensor, "k t"]:
    """Return the loudness that `_power` shows for a line with this loudness."""
    window, hop = _sizes(rate)
    shape = torch.hann_window(window, device=amplitude.device).square()
    padded = F.pad(amplitude.square()[:, None], (window // 2, window // 2))
    return F.conv1d(padded, (shape / shape.sum())[None, None], stride=hop)[:, 0].clamp(min=0).sqrt()


@lru_cache(maxsize=8)
def _rhythms(n: int, rate: int, device: str) -> tuple[Float[Tensor, "k t"], Int[Tensor, " k"]]:
    """Return the loudness over time of every motion (bouncing at many times), and which it is."""
    lo, hi = v.EVENT_RANGE
    events = torch.arange(lo, hi + 1e-6, 0.0125, device=device)
    motions = torch.tensor([m for m in range(len(v.MOTIONS)) if m != _BOUNCING], device=device)
    events = torch.cat([torch.ones(len(motions), device=device), events])
    motions = F.pad(motions, (0, len(events) - len(motions)), value=_BOUNCING)
    times = torch.arange(n, device=device) / rate
    return _smoothed(envelopes(motions, events, times), rate), motions


@lru_cache(maxsize=8)
def _thumps(n: int, rate: int, device: str) -> tuple[Float[Tensor, "k t"], Float[Tensor, " k"]]:
    """Return the thump's loudness over time for many onsets, and the onsets in seconds."""
    times = torch.arange(n, device=device) / rate
    onsets = torch.arange(0, n / rate - 0.02, 0.004, device=device, dtype=torch.float64)
    since = times - onsets.float()[:, None]
    loud = torch.exp(-since.clamp(min=0) / v.THUMP_DECAY) * (since >= 0)
    return _smoothed(loud, rate), onsets


def _thump(power: Tensor, rate: int, n: int) -> Float[Tensor, " b"]:
    """Return when the thump begins, nan where there is none."""
    lo, hi = (round(hz * _sizes(rate)[0] / rate) for hz in _THUMP_BAND)
    loud = power[:, lo : hi + 1].sum(1).sqrt()
    shapes, onsets = _thumps(n, rate, str(power.device))
    norm = shapes.norm(dim=1)
    fit, best = (loud @ (shapes / norm[:, None]).T).max(1)
    level = 20 * (fit / norm[best] / v.THUMP_GAIN).clamp(min=1e-9).log10()
    return torch.where(level > _LEAST_THUMP_DB, onsets[best], torch.nan)
