"""Sounds of scenes: every object sings its shape, color, size and motion; the event thumps.

The angle of a tone runs to thousands of turns, where the last bit of a time or of a pitch is heard.
So pitches are computed once for all devices, and times by a division that none of them shortens.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unigen.data.world import vocabulary as v
from unigen.data.world.scenes import Scenes, uniforms

_PITCHES = torch.tensor(v.REGISTERS)[:, None] * 2 ** (torch.arange(len(v.COLORS)) / v.STEPS)


def envelopes(
    motion: Int[Tensor, " b"], event: Float[Tensor, " b"], times: Float[Tensor, " s"]
) -> Float[Tensor, "b s"]:
    """Return the loudness over time that a motion gives to an object's tone, peak 1."""
    t, u = times.float(), times.float() / v.SECONDS

    def swell(level: Tensor) -> Tensor:
        return v.FLOOR + (1 - v.FLOOR) * level

    def pulses(rate: float) -> Tensor:
        """Return a square wave with soft edges that starts loud."""
        return swell(torch.sigmoid(12 * (2 * math.pi * rate * t + 0.4).sin()))

    fixed = {
        **{name: pulses(rate) for name, rate in v.PULSE_HZ.items()},
        "circling": swell(0.5 - 0.5 * (2 * math.pi * t).cos()),
        "swaying": swell(0.5 + 0.5 * (4 * math.pi * t).cos()),
        "growing": swell(u),
        "shrinking": swell(1 - u),
    }
    shapes = torch.stack([fixed.get(name, torch.ones_like(t)) for name in v.MOTIONS])[motion]
    bouncing = motion == v.MOTIONS.index("bouncing")
    since = t - event[bouncing].float()[:, None]
    shapes[bouncing] = torch.exp(-torch.where(since < 0, t, since) / v.DECAY)
    return shapes


def sing(
    seed: int, index: Tensor, scenes: Scenes, rate: int = 16_000
) -> Float[Tensor, "b samples"]:
    """Return the sound of the scenes, mono, `rate` samples a second, within [-1, 1].

    The phases of the tones are the only free choice; (seed, index) makes it.
    """
    device = scenes.count.device
    t = torch.arange(int(v.SECONDS * rate), device=device) / torch.tensor(rate, device=device)
    phases = uniforms(seed, index, -1, 8).reshape(-1, 2, 4).float() * 2 * math.pi
    timbre = torch.tensor(v.TIMBRES, device=device)[scenes.shape] * v.FORMANT_GAIN  # b 2 3
    gains = torch.cat([torch.ones_like(timbre[..., :1]), timbre], -1)
    loud = v.FULL_SCALE * 10 ** (torch.tensor(v.LEVELS_DB, device=device)[scenes.size] / 20)
    wave = torch.zeros(len(scenes), len(t), device=device)
    for i in range(2):
        rows = scenes.present[:, i].nonzero()[:, 0]
        pitch = _PITCHES.to(device)[i, scenes.color[:, i]]
        tone = torch.zeros(len(rows), len(t), device=device)
        for k in range(gains.shape[-1]):
            sung = (gains[rows, i, k] > 0).nonzero()[:, 0]
            who = rows[sung]
            hz = pitch[who, None] if k == 0 else v.FORMANTS[i][k - 1]
            angle = phases[who, i, k, None] + 2 * math.pi * hz * t
            tone[sung] += gains[who, i, k, None] * angle.sin_()
        tone *= envelopes(scenes.motion[rows, i], scenes.event[rows], t) * loud[rows, i, None]
        wave.index_add_(0, rows, tone)
    since = t - scenes.event.float()[:, None]
    thump = torch.exp(-since.clamp(min=0) / v.THUMP_DECAY) * (since >= 0)
    return wave + v.THUMP_GAIN * thump * (2 * math.pi * v.THUMP_HZ * since).sin()
