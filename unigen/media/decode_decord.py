"""Read frames with decord (in the worker only): opened and dropped inside one call."""

import decord  # pyright: ignore[reportMissingImports]: not on every machine
import numpy as np
from PIL import Image

from unigen.media import container
from unigen.media.decode_image import resized
from unigen.media.decode_video import SOON
from unigen.media.worker import Refused


def read(file, media, stream, args: dict, emit, notes: list[str]) -> dict:
    """Emit one frame for each asked time, as the PyAV reader does on a clean file.

    `media` and `stream` are the file opened by PyAV: its limits hold for this reader too.
    """
    width, height = stream.codec_context.width, stream.codec_context.height
    first = next(media.decode(stream))
    if round(first.rotation / 90) % 2:
        width, height = height, width  # decord turns frames upright by itself
    file.seek(0)
    reader = decord.VideoReader(file, ctx=decord.cpu(0), num_threads=1)
    count = len(reader)
    if not count:
        raise Refused("none of its frames can be decoded")
    if stream.frames and count != stream.frames:
        notes.append(f"degraded: {count} of {stream.frames} declared frames decoded")
    spans = reader.get_frame_timestamp(range(count)) - container.zero(media)
    end = float(spans[-1, 1])
    if not (np.diff(spans[:, 0]) > 0).all():  # H.264 in AVI, whose packets carry no times
        raise Refused('decord finds no times of its frames; use reader="pyav"')
    times = np.asarray(args["times"])
    wanted = np.clip(np.searchsorted(spans[:, 0], times + SOON, side="right") - 1, 0, count - 1)
    if (times >= end + SOON).any():
        notes.append(f"held the last frame from {end:.3g} s")
    for index in np.unique(wanted):
        frame = reader[int(index)].asnumpy()
        if frame.shape != (height, width, 3):
            raise Refused(f'decord cannot read {width}x{height} frames; use reader="pyav"')
        pixels = resized(Image.fromarray(frame), args["size"], notes)
        emit(np.flatnonzero(wanted == index).tolist(), pixels)
    return {"notes": notes}
