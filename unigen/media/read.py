"""Read media: open the file here, decode it in the worker, say in one sentence what is wrong."""

import errno
import math
import os
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from unigen.errors import MediaError, ResourceError, UsageError
from unigen.media import client, limits
from unigen.media.results import Clip, Picture, Probe, Sound
from unigen.media.sniff import CONTAINER, HEAD_BYTES, IMAGE, SOUND, in_words, sniff

_WANTED = {
    "image": ("an image", (IMAGE,), "PNG, JPEG, WebP, BMP or GIF"),
    "video": ("a video", (CONTAINER,), "MP4, MOV, WebM, Matroska or AVI"),
    "audio": ("a sound", (SOUND, CONTAINER), "WAV, FLAC, OGG, MP3, or the track of a video"),
    "probe": ("media", (IMAGE, SOUND, CONTAINER), "an image, a video or a sound"),
    "recipe": ("media", (IMAGE, SOUND, CONTAINER), "an image, a video or a sound"),
}


def read_image(path: str | Path, size: Sequence[int] | None = None, crop: bool = False) -> Picture:
    """Read a PNG, JPEG, WebP, BMP or GIF (its first frame) as 8-bit RGB.

    `size` is (height, width): the picture is stretched to it, or, with `crop`, its middle part of
    that shape is resized. EXIF orientation is applied, what is see-through is laid over white. The
    content decides, never the file name.

    Raises UsageError for a missing file or a wrong size, MediaError for anything unreadable.
    """
    args = {"size": None if size is None else _checked_size(size), "crop": crop}
    arrays: list[np.ndarray] = []
    done = ask("image", path, args, lambda at, array: arrays.append(array))
    return Picture(arrays[0], done["notes"])


def read_video(
    path: str | Path,
    times: Sequence[float | int] | np.ndarray,
    size: Sequence[int],
    reader: str = "pyav",
    seconds: float | None = None,
) -> Clip:
    """Read the frame shown at each of `times` (seconds, any order), stretched to (height, width).

    A frame that starts within a millisecond counts as shown, since clocks round. A time before
    the first frame gives the first, a time past the end the last, with a note. The reader is
    "pyav" or "decord". `seconds`, if given, are what the times are spread over, from 0 on: notes
    then say what of a longer video, or of more frames a second, is left out.

    Raises UsageError for a missing file or wrong arguments, MediaError for anything unreadable.
    """
    moments = np.asarray(times, dtype=np.float64)
    if moments.ndim != 1 or not 0 < len(moments) <= limits.TIMES:
        raise UsageError(f"times has shape {moments.shape}; give a flat list of seconds")
    if not np.isfinite(moments).all() or (moments < 0).any():
        raise UsageError("times holds a number that is negative or not finite; give seconds >= 0")
    if reader not in ("pyav", "decord"):
        raise UsageError(f'reader is {reader!r}; give "pyav" or "decord"')
    size = _checked_size(size)
    shape = (len(moments), *size, 3)
    if math.prod(shape) > limits.VIDEO_BYTES:
        most = limits.VIDEO_BYTES // limits.MEGA
        raise UsageError(f"{shape} bytes of frames were asked for, the limit is {most} MB")
    frames = np.zeros(shape, np.uint8)
    missing = np.ones(len(moments), bool)

    def take(places, array) -> None:
        frames[places] = array
        missing[places] = False

    args = {"times": moments.tolist(), "size": size, "reader": reader, "seconds": seconds}
    done = ask("video", path, args, take)
    if missing.any():
        raise RuntimeError("the video reader left frames out")
    return Clip(frames, done["notes"])


def read_audio(path: str | Path, seconds: float | int, start: float | int = 0.0) -> Sound:
    """Read `seconds` of sound from `start` on, at the file's own rate and channels.

    Only that stretch is decoded. A sound that ends earlier gives fewer samples, with a note. A
    video gives its sound track.

    Raises UsageError for a missing file or a start past the end, MediaError for anything
    unreadable, NaN and infinite samples included.
    """
    if not (math.isfinite(seconds) and seconds > 0 and math.isfinite(start) and start >= 0):
        raise UsageError(f"seconds={seconds} start={start}; give seconds > 0 and start >= 0")
    blocks: list[np.ndarray] = []
    args = {"seconds": float(seconds), "start": float(start)}
    done = ask("audio", path, args, lambda at, array: blocks.append(array))
    return Sound(np.concatenate(blocks), int(done["rate"]), done["notes"])


def probe(path: str | Path) -> Probe:
    """Tell what a file really is and its facts, by its content; errors as for a read."""
    done = ask("probe", path, {}, lambda at, array: None)
    return Probe(done["kind"], done["facts"])


def ask(op: str, path: str | Path, args: dict, take: Callable) -> dict:
    """Open and sniff a file, then let the worker decode it."""
    thing, families, formats = _WANTED[op]
    fd = _open(path)
    try:
        family, name = sniff(os.pread(fd, HEAD_BYTES, 0))
        if family not in families:
            found = in_words(family, name)
            raise MediaError(f"{shown(path)} is {found}; {thing} was wanted ({formats})")
        return client.ask(op, fd, args | {"family": family, "format": name}, take)
    except client.Fault as fault:
        raise fault.error(f"{shown(path)} cannot be read: {fault.words}") from None
    finally:
        os.close(fd)


def _open(path: str | Path) -> int:
    """Open a regular local file of allowed size."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", str(path)):
            words = "is no local file; links are not opened, give the path of a file"
            raise UsageError(f"{shown(path)} {words}") from None
        raise UsageError(f"{shown(path)} does not exist; give the path of a file") from None
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise ResourceError(f"{shown(path)} may not be read: permission denied") from None
        raise MediaError(f"{shown(path)} cannot be opened: {error.strerror}") from None
    found = os.fstat(fd)
    words = ""
    if not stat.S_ISREG(found.st_mode):
        words = "is no regular file; give the path of a media file"
    elif found.st_size > limits.FILE_BYTES:
        most = limits.FILE_BYTES // limits.MEGA
        words = f"has {found.st_size} bytes, the limit is {most} MB; give a smaller file"
    if words:
        os.close(fd)
        raise MediaError(f"{shown(path)} {words}")
    return fd


def shown(path: str | Path) -> str:
    """A path for a message: printable, and its end if it is long."""
    text = "".join(c if c.isprintable() else "?" for c in str(path))
    return text if len(text) <= 80 else "..." + text[-77:]


def _checked_size(size) -> list[int]:
    height, width = (int(n) for n in size)
    if not (0 < height <= limits.VIDEO_SIDE and 0 < width <= limits.VIDEO_SIDE):
        most = limits.VIDEO_SIDE
        raise UsageError(f"size is {tuple(size)}; give (height, width) of 1 to {most} pixels")
    return [height, width]
