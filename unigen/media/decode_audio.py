"""Read a stretch of sound with soundfile, or PyAV for containers (in the worker only)."""

import math
from contextlib import contextmanager

import numpy as np

from unigen.media import limits
from unigen.media.checks import check_length, check_sound
from unigen.media.sniff import SOUND
from unigen.media.worker import Refused

_SLACK = 0.05  # seconds; a smaller jump in a container's clock is rounding
_BLOCK = 65536  # samples a message


def read(file, args: dict, emit) -> dict:
    """Emit blocks [samples, channels]; args: family, format, seconds, start."""
    if args["family"] == SOUND:
        return _read_file(file, args, emit)
    return _read_track(file, args, emit)


@contextmanager
def open_sound(file):
    """A soundfile reader, tested against the limits before anything is decoded."""
    import soundfile

    with soundfile.SoundFile(file) as sound:
        form, subtype = sound.format, sound.subtype
        if form not in limits.SOUND_FORMATS or subtype not in limits.SOUND_SUBTYPES:
            raise Refused(f"it is {form} with {subtype}; wanted PCM, FLAC, OGG or MP3")
        check_sound(sound.channels, sound.samplerate)
        check_length(sound.frames / sound.samplerate, limits.AUDIO_SECONDS)
        if sound.frames <= 0:
            raise Refused("it holds no samples")
        yield sound


def facts_of(sound) -> dict:
    """Facts of an open sound file."""
    return {
        "container": sound.format,
        "codec": sound.subtype,
        "rate": sound.samplerate,
        "channels": sound.channels,
        "seconds": sound.frames / sound.samplerate,
    }


def _read_file(file, args: dict, emit) -> dict:
    from unigen.media import sound_header

    notes = sound_header.check(file, args["format"])
    with open_sound(file) as sound:
        rate, total = sound.samplerate, sound.frames
        first = round(args["start"] * rate)
        count = round(args["seconds"] * rate)
        _check_request(count, sound.channels, first / rate, total / rate)
        wanted = min(count, total - first)
        if first:
            sound.seek(first)
        got = 0
        while got < wanted:
            block = sound.read(min(_BLOCK, wanted - got), dtype="float32", always_2d=True)
            if not len(block):
                break
            _check_finite(block)
            emit([got], np.ascontiguousarray(block))
            got += len(block)
    if not got:
        raise Refused("none of its samples can be decoded")
    if got < wanted:
        notes.append(f"degraded: {got} of {wanted} declared samples decoded")
    return {"rate": rate, "notes": notes + _length_notes(args, got / rate, (total - first) / rate)}


def _read_track(file, args: dict, emit) -> dict:
    from unigen.media import container, tally

    notes = tally.missing_bytes(file, args["format"])
    with container.opened(file, args["format"]) as media:
        stream = container.sound_stream(media)
        if stream is None:
            raise Refused("it holds no sound track")
        total = container.length(stream, media)
        rate, channels = stream.codec_context.sample_rate, stream.codec_context.channels
        count = round(args["seconds"] * rate)
        _check_request(count, channels, args["start"], total or math.inf)
        if total:
            count = min(count, max(1, round((total - args["start"]) * rate)))
        with tally.Tally(stream, total, container.zero(media)) as log:
            got = _stretch(media, log, (args["start"], count, rate, channels), emit)
        notes += log.notes()
    if not got:
        raise Refused("none of its samples can be decoded")
    left = (total or got / rate + args["start"]) - args["start"]
    return {"rate": rate, "notes": notes + _length_notes(args, got / rate, left)}


def _stretch(media, log, wanted: tuple, emit) -> int:
    """Walk through a track and emit `count` samples from `start` on; silence fills its gaps."""
    import av

    start, count, rate, channels = wanted
    frames = log.seek(media, start - 1.0) if start > 2.0 else log.frames(media)
    to_float = av.AudioResampler(format="fltp")
    place = None  # of the next sample, counted from the start
    got = 0
    for frame in frames:
        if frame.sample_rate != rate or frame.layout.nb_channels != channels:
            raise Refused("its sound changes rate or channels midway")
        here = round((log.seconds(frame) - start) * rate)
        if place is None or abs(here - place) > _SLACK * rate:
            place = here
        block = np.concatenate([f.to_ndarray() for f in to_float.resample(frame)], axis=1).T
        block = np.ascontiguousarray(block[max(0, -place) : max(0, count - place)])
        begin, place = max(0, place), place + frame.samples
        if begin > got and len(block):
            silence = np.zeros((min(begin, count) - got, channels), np.float32)
            emit([got], silence)
            got = begin
        block = block[got - begin :] if begin < got else block
        if len(block):
            _check_finite(block)
            emit([got], np.ascontiguousarray(block, np.float32))
            got += len(block)
        if got >= count:
            break
    return got


def _check_request(count: int, channels: int, start: float, total: float) -> None:
    if start >= total:
        raise Refused(f"it is {total:.3g} s long, so nothing starts at {start:.3g} s", usage=True)
    if count * channels * 4 > limits.AUDIO_BYTES:
        raise Refused("more sound was asked for than a read may give; ask for less", usage=True)


def _check_finite(block: np.ndarray) -> None:
    if not np.isfinite(block).all():
        raise Refused("its samples are not all finite numbers")


def _length_notes(args: dict, got: float, left: float) -> list[str]:
    if left > args["seconds"] + 1e-3:
        which = "first" if args["start"] == 0 else "wanted"
        return [f"cut to the {which} {args['seconds']:.3g} s"]
    if got < args["seconds"] - 1e-3:
        return [f"the sound ends after {got:.3g} of the {args['seconds']:.3g} s asked for"]
    return []
