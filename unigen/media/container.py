"""Open a video or sound container with PyAV (in the worker only).

The demuxer is the sniffed one, codecs come from a list, and nothing but the given open file is
ever read: a nested open, whatever names it, is refused.
"""

from contextlib import contextmanager

import av
import av.logging

from unigen.media import limits
from unigen.media.checks import check_length, check_side, check_sound
from unigen.media.worker import Refused

av.logging.set_level(av.logging.ERROR)
av.logging.set_skip_repeated(False)
_COVER = "attached_pic"


def _no_other_file(url: str, flags: int, options: dict):
    raise Refused("it refers to another file")


@contextmanager
def opened(file, name: str):
    """A PyAV container over an open file; `name` is the demuxer."""
    allowed = ",".join(limits.VIDEO_CODECS + limits.SOUND_CODECS)
    options = {"codec_whitelist": allowed, "format_whitelist": "mov,matroska,webm,avi"}
    media = av.open(
        file,
        format=name,
        container_options=options | {"max_streams": "32", "enable_drefs": "0"},
        metadata_errors="replace",
        io_open=_no_other_file,
    )
    with media:
        yield media


def picture_stream(media):
    """The video stream to read, within the limits, or None."""
    streams = [s for s in media.streams.video if _COVER not in str(s.disposition)]
    if not streams:
        return None
    stream = streams[0]
    context = stream.codec_context
    _check_codec(context, limits.VIDEO_CODECS)
    check_side(context.width, context.height)
    check_length(length(stream, media), limits.VIDEO_SECONDS)
    context.thread_count = 1
    context.options = {"max_pixels": str(limits.VIDEO_SIDE**2)}
    return stream


def sound_stream(media):
    """The sound stream to read, within the limits, or None."""
    if not media.streams.audio:
        return None
    stream = media.streams.audio[0]
    context = stream.codec_context
    _check_codec(context, limits.SOUND_CODECS)
    check_sound(context.channels, context.sample_rate)
    check_length(length(stream, media), limits.AUDIO_SECONDS)
    context.thread_count = 1
    return stream


def _check_codec(context, allowed) -> None:
    name = context.codec.name if context is not None and context.codec is not None else "unknown"
    if name not in allowed:
        raise Refused(f"its codec is {name}; wanted one of {', '.join(allowed[:6])}")


def length(stream, media) -> float:
    """The declared seconds of a stream, else of the whole file, else 0."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return (media.duration or 0) / av.time_base


def zero(media) -> float:
    """The moment, in seconds of the streams' clocks, that counts as 0."""
    start = (media.start_time or 0) / av.time_base
    return max(start, 0.0)


def describe(media, name: str) -> dict:
    """Kind and facts of a container."""
    picture, sound = picture_stream(media), sound_stream(media)
    if picture is not None:
        context = picture.codec_context
        facts = {
            "container": name,
            "codec": context.codec.name,
            "width": context.width,
            "height": context.height,
            "fps": float(picture.average_rate or 0),
            "seconds": length(picture, media),
            "frames": picture.frames,
            "sound": sound is not None,
        }
        return {"kind": "video", "facts": facts}
    if sound is None:
        raise Refused("it holds neither pictures nor sound")
    facts = {
        "container": name,
        "codec": sound.codec_context.codec.name,
        "rate": sound.codec_context.sample_rate,
        "channels": sound.codec_context.channels,
        "seconds": length(sound, media),
    }
    return {"kind": "audio", "facts": facts}
