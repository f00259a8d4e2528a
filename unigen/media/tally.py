"""Count what a decoder was given and what it gave, so that damage is never silent."""

import os
from contextlib import suppress
from heapq import heappop, heappush

import av
import av.error
import av.logging

_MOST_FAULTS = 1000


class Tally:
    """Walks a stream's frames and remembers faults; use it as a context around the walk."""

    def __init__(self, stream, declared_seconds: float, zero: float):
        self.stream, self.declared, self.zero = stream, declared_seconds, zero
        self.frames_out = self.packets_in = self.faults = 0
        self.sought = self.ended = False
        self.last = 0.0
        # AVI tells the order of decoding alone, and what FFmpeg makes of it is no order of showing
        self.unordered = stream.container.format.name == "avi"
        self.capture = av.logging.Capture(True)

    def __enter__(self):
        self.log = self.capture.__enter__()
        return self

    def __exit__(self, *error):
        self.capture.__exit__(*error)

    def frames(self, media):
        """Yield decoded frames in order from where the file stands."""
        due: list[int] = []  # times of packets whose frames are not shown yet
        try:
            for packet in media.demux(self.stream):
                if self.unordered and packet.size and packet.dts is not None:
                    heappush(due, packet.dts)
                self.packets_in += packet.size > 0 and not packet.is_discard
                try:
                    decoded = packet.decode()
                except av.error.FFmpegError:
                    self.faults += 1
                    if self.faults > _MOST_FAULTS:
                        break
                    continue
                for frame in decoded:
                    if due:
                        frame.pts = heappop(due)
                    if frame.pts is None:
                        self.faults += 1
                        continue
                    self.frames_out += 1
                    self.last = max(self.last, self.end(frame))
                    yield frame
        except av.error.FFmpegError:
            self.faults += 1
        self.ended = True

    def seek(self, media, seconds: float):
        """Go to the key frame at or before a time and walk from there."""
        self.sought = True
        ticks = int((seconds + self.zero) / self.stream.time_base)
        with suppress(av.error.FFmpegError):
            media.seek(ticks, stream=self.stream, backward=True)
        return self.frames(media)

    def restart(self, media):
        """Go back to the start and walk from there."""
        return self.seek(media, -self.zero)

    def seconds(self, frame) -> float:
        """When a frame is first shown (or heard)."""
        return float(frame.pts * frame.time_base) - self.zero

    def end(self, frame) -> float:
        """When a frame is shown (or heard) no more."""
        if isinstance(frame, av.AudioFrame):
            return self.seconds(frame) + frame.samples / frame.sample_rate
        if frame.duration:
            return self.seconds(frame) + float(frame.duration * frame.time_base)
        rate = self.stream.average_rate
        return self.seconds(frame) + (float(1 / rate) if rate else 0.0)

    def notes(self) -> list[str]:
        """What was found, in words that start with "degraded"."""
        faults = self.faults + sum(level <= av.logging.ERROR for level, _, _ in self.log)
        declared = self.stream.frames if isinstance(self.stream, av.VideoStream) else 0
        notes = []
        if self.ended and not self.sought and declared and self.frames_out != declared:
            notes.append(f"degraded: {self.frames_out} of {declared} declared frames decoded")
        elif self.ended and self.last < self.declared - max(0.1, 0.02 * self.declared):
            notes.append(f"degraded: it ends at {self.last:.3g} of {self.declared:.3g} declared s")
        if faults:
            notes.append(f"degraded: the decoder reported {faults} fault{'s' * (faults > 1)}")
        return notes


def missing_bytes(file, name: str) -> list[str]:
    """A note if the file is shorter than its own outermost boxes say."""
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    wanted = _SIZES[name](file, size) if name in _SIZES else 0
    file.seek(0)
    if wanted <= size:
        return []
    return [f"degraded: the file is cut, {size} of {wanted} bytes are there"]


def _mp4_size(file, size: int) -> int:
    """Where the last top-level box ends."""
    place = 0
    for _ in range(1000):
        file.seek(place)
        head = file.read(16)
        if len(head) < 8:
            break
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # 0: up to the end of the file
            break
        place += length
        if place >= size:
            break
    return place


def _riff_size(file, size: int) -> int:
    length = int.from_bytes(file.read(8)[4:8], "little")
    return 0 if length in (0, 0xFFFFFFFF) else length + 8


_SIZES = {"mp4": _mp4_size, "avi": _riff_size}
