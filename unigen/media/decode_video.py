"""Read the frames shown at given times (in the worker only)."""

from PIL import Image

from unigen.media import container, limits, tally
from unigen.media.checks import check_length, check_side
from unigen.media.decode_image import resized
from unigen.media.worker import Refused

_GAP = 2.0  # seconds; a longer way to the next wanted frame is worth a seek
_SLACK = 0.1  # seconds; a file may declare this much more than its pictures last
SOON = 1e-3  # seconds; a frame that starts this soon counts as shown: clocks round


def read(file, args: dict, emit) -> dict:
    """Emit one frame for each asked time; args: format, times, size [h, w], reader, seconds."""
    notes = tally.missing_bytes(file, args["format"])  # before the demuxer holds the file
    with container.opened(file, args["format"]) as media:
        stream = container.picture_stream(media)
        if stream is None:
            raise Refused("it holds no pictures, only sound; a video was wanted")
        if args["seconds"] is not None:
            notes += left_out(media, stream, args["seconds"], len(args["times"]))
        if args["reader"] == "decord":
            from unigen.media import decode_decord

            return decode_decord.read(file, media, stream, args, emit, notes)
        log = tally.Tally(stream, container.length(stream, media), container.zero(media))
        with log:
            show(media, stream, args, emit, notes, log)
        return {"notes": notes + log.notes()}


def left_out(media, stream, seconds: float, count: int) -> list[str]:
    """Say what of a longer video, or of more frames a second, so many frames cannot show."""
    notes = []
    if container.length(stream, media) > seconds + _SLACK:
        notes.append(f"cut to the first {seconds:.3g} s")
    rate, taken = float(stream.average_rate or 0), count / seconds
    if rate > taken * 1.01:
        notes.append(f"took {taken:.3g} of its {rate:.3g} frames a second")
    return notes


def show(media, stream, args: dict, emit, notes: list[str], log) -> None:
    """Walk through the video once, seeking over long gaps, and emit what is shown when."""
    times = args["times"]
    waiting = sorted(range(len(times)), key=times.__getitem__, reverse=True)  # next is last
    sizes: set[tuple[int, int]] = set()

    def emit_until(limit: float, frame) -> None:
        places = []
        while waiting and times[waiting[-1]] < limit:
            places.append(waiting.pop())
        if places:
            emit(places, to_pixels(frame, args["size"], notes))

    shown, before, may_seek, landed = None, None, True, False
    frames = log.frames(media)
    while True:
        here = log.seconds(shown) if shown is not None else 0.0
        if may_seek and not landed and waiting and times[waiting[-1]] > here + _GAP:
            frames, landed = log.seek(media, times[waiting[-1]]), True
            before, shown = shown, None
        frame = next(frames, None)
        if frame is None:
            if landed and shown is None:  # the seek went past the end: walk instead
                frames, may_seek, landed = log.restart(media), False, False
                continue
            break
        check_side(frame.width, frame.height)
        now = log.seconds(frame)
        check_length(now, limits.VIDEO_SECONDS)
        if landed and shown is None and waiting and now > times[waiting[-1]] + SOON:
            frames, may_seek, landed = log.restart(media), False, False  # a wrong index
            continue
        if landed and shown is None and before is not None and now <= log.seconds(before):
            may_seek = False  # key frames are too far apart for this to pay
        emit_until(now - SOON, shown if shown is not None else frame)
        sizes.add((frame.width, frame.height))
        shown = frame
        if landed and waiting and times[waiting[-1]] < now + _GAP:
            landed = False
        if not waiting:
            break
    if shown is None:
        raise Refused("none of its frames can be decoded")
    if len(sizes) > 1:
        notes.append("its frames change size; each was resized on its own")
    if waiting:
        end = log.end(shown)
        late = sum(times[i] >= end + SOON for i in waiting)
        if late:
            notes.append(f"held the last frame from {end:.3g} s")
        emit_until(float("inf"), shown)


def to_pixels(frame, size: list[int], notes: list[str]):
    """One frame to uint8 [h, w, 3], upright."""
    turned = frame.rotation
    image = Image.fromarray(frame.to_ndarray(format="rgb24"))
    return resized(upright(image, turned, notes), size, notes)


def upright(image: Image.Image, degrees: float, notes: list[str]) -> Image.Image:
    """Undo the rotation that the file declares, in quarter turns."""
    quarter = round(degrees / 90) % 4
    if not quarter:
        return image
    note = "turned upright as its metadata say"
    if note not in notes:
        notes.append(note)
    ways = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
    return image.transpose(ways[quarter - 1])
