"""Encode one mp4 with PyAV: H.264 pictures, AAC sound, the recipe in its comment."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.codec import Codec

_SOUND_BITS = 128_000  # a second and channel
_BLOCK = 1024  # samples of one AAC frame
_BT601 = 6


def encode(
    part: Path,
    frames: np.ndarray,
    fps: Fraction,
    sound: tuple[np.ndarray, int] | None,  # samples [n, channels] and how many make a second
    comment: str,
) -> None:
    """Write uint8 [f, h, w, 3] and its sound; one thread, so the same bytes each time."""
    with av.open(str(part), "w", format="mp4", options={"movflags": "+faststart"}) as out:
        out.metadata["comment"] = comment
        picture = out.add_stream("libx264", rate=fps)
        picture.height, picture.width = frames.shape[1:3]
        picture.pix_fmt = "yuv420p"
        picture.codec_context.thread_count = 1
        picture.codec_context.options = {"crf": "14", "preset": "medium", "bf": "0"}
        track = None if sound is None else _add_track(out, sound[0].shape[1], sound[1])
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = i, 1 / fps
            out.mux(picture.encode(frame))
        out.mux(picture.encode())
        if sound is not None:
            _encode_sound(out, track, *sound)


def _add_track(out, channels: int, rate: int):
    layout = {1: "mono", 2: "stereo"}.get(channels)
    if layout is None:
        raise ValueError(f"{channels} channels of sound; an mp4 takes 1 or 2")
    rates = sorted(Codec("aac", "w").audio_rates or [rate])
    rate = next((known for known in rates if known >= rate), rates[-1])  # resampled if need be
    track = out.add_stream("aac", rate=rate, layout=layout)
    track.bit_rate = min(_SOUND_BITS, 6 * rate) * channels
    return track


def _encode_sound(out, track, sound: np.ndarray, rate: int) -> None:
    planes = np.ascontiguousarray(sound.T, dtype=np.float32)
    whole = av.AudioFrame.from_ndarray(planes, format="fltp", layout=track.layout)
    whole.sample_rate, whole.pts, whole.time_base = rate, 0, Fraction(1, rate)
    pieces = av.AudioResampler("fltp", track.layout, track.rate, _BLOCK)
    for frame in [*pieces.resample(whole), *pieces.resample(None)]:
        out.mux(track.encode(frame))
    out.mux(track.encode())
