"""The videos of the corpus."""

import io
import struct
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from media_corpus import ANY, DAMAGED, DEGRADED, OK, REFUSED, cuts, mutations, noise
from media_corpus_image import encoded, picture
from PIL import Image

FAST = {"preset": "ultrafast", "crf": "20"}


def frames(count: int = 16, height: int = 64, width: int = 64) -> np.ndarray:
    """A square that moves over a ramp; every frame differs. uint8 [f, h, w, 3]."""
    y, x = np.mgrid[:height, :width]
    clip = np.stack([np.stack([x * 2, y * 2, x + y], -1)] * count).astype(np.uint8)
    for i in range(count):
        left = i * 3 % max(1, width - 8)
        clip[i, height // 4 : height // 2, left : left + 8] = (250, 20 + i * 10 % 200, 30)
    return clip


def video(
    clip: np.ndarray,
    form: str = "mp4",
    codec: str = "libx264",
    fps: Fraction | int = 8,
    options: dict | None = None,
    container: dict | None = None,
    times: list[int] | None = None,
    turn: int = 0,
    sound: bool = False,
    pix_fmt: str = "yuv420p",
) -> bytes:
    """Encode a clip in any way PyAV can. `times` are frame times in milliseconds."""
    with (
        tempfile.NamedTemporaryFile() as out,  # moving the index to the front needs a real file
        av.open(out.name, "w", format=form, options=container or {}) as media,
    ):
        stream = media.add_stream(codec, rate=fps)
        stream.height, stream.width, stream.pix_fmt = *clip.shape[1:3], pix_fmt
        stream.codec_context.thread_count = 1
        stream.codec_context.options = (FAST if codec == "libx264" else {}) | (options or {})
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if turn:
            stream.set_display_rotation(turn)
        track = media.add_stream("aac", rate=16000, layout="mono") if sound else None
        for i, pixels in enumerate(clip):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = (i, 1 / Fraction(fps))
            if times is not None:
                frame.pts, frame.time_base = times[i], Fraction(1, 1000)
            media.mux(stream.encode(frame))
        media.mux(stream.encode())
        if track is not None:
            tone = np.sin(np.arange(32000) / 6).astype(np.float32)[None] / 2
            for start in range(0, 32000, 1000):
                block = np.ascontiguousarray(tone[:, start : start + 1000])
                piece = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
                piece.sample_rate, piece.pts, piece.time_base = 16000, start, Fraction(1, 16000)
                media.mux(track.encode(piece))
            media.mux(track.encode())
        media.close()
        return Path(out.name).read_bytes()


def remuxed(data: bytes, form: str = "mp4", drop=()) -> bytes:
    """The same packets again, without those at the places in `drop`."""
    out = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(out, "w", format=form) as media:
        stream = media.add_stream_from_template(source.streams.video[0])
        for i, packet in enumerate(source.demux(video=0)):
            if packet.size and i not in drop:
                packet.stream = stream
                media.mux(packet)
    return out.getvalue()


def jpegs(clip: np.ndarray) -> bytes:
    """A clip of single JPEG pictures."""
    return video(clip, "avi", "mjpeg", pix_fmt="yuvj420p")


def joined(first: bytes, second: bytes) -> bytes:
    """Packets of two clips in one Matroska stream: the size changes midway."""
    out = io.BytesIO()
    with av.open(out, "w", format="matroska") as media:
        stream, count = None, 0
        for data in (first, second):
            with av.open(io.BytesIO(data)) as source:
                if stream is None:
                    stream = media.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(video=0):
                    if packet.size:
                        packet.stream = stream
                        packet.pts = packet.dts = count * 125
                        packet.time_base = Fraction(1, 1000)
                        count += 1
                        media.mux(packet)
    return out.getvalue()


def patched(data: bytes, box: bytes, offset: int, value: bytes) -> bytes:
    """Overwrite bytes so far after the name of the first such box."""
    place = data.index(box) + 4 + offset
    return data[:place] + value + data[place + len(value) :]


def cases() -> list[tuple]:
    """(name, bytes, outcome) of each."""
    clip = frames()
    plain = video(clip, options={"bf": "0"}, container={"movflags": "+faststart"})
    return good(clip) + limits() + hostile(clip, plain) + damaged(clip, plain)


def good(clip: np.ndarray) -> list[tuple]:
    """Every allowed container and codec; rates, sizes, clocks and turns."""
    odd = [0, 40, 300, 350, 900, 1000, 1010, 1020, 1400, 1500, 1600, 1700, 1750, 1800, 1900, 1950]
    intra = {"g": "1000", "bf": "0"}
    files = {
        "h264.mp4": video(clip),
        "b_frames.mp4": video(clip, options={"preset": "medium", "bf": "3"}),
        "sound.mp4": video(clip, sound=True),
        "fragments.mp4": video(clip, container={"movflags": "frag_keyframe+empty_moov"}),
        "h264.mov": video(clip, "mov"),
        "h264.mkv": video(clip, "matroska"),
        "mpeg4.mp4": video(clip, codec="mpeg4"),
        "mpeg4.avi": video(clip, "avi", "mpeg4"),
        "h264.avi": video(clip, "avi", options={"bf": "0"}),
        "mjpeg.avi": jpegs(clip),
        "vp8.webm": video(clip, "webm", "libvpx", options={"deadline": "realtime"}),
        "vp9.webm": video(clip, "webm", "libvpx-vp9", options={"deadline": "realtime"}),
        "hevc.mp4": video(clip, codec="libx265", options={"x265-params": "log-level=none:pools=1"}),
        "full_color.mp4": video(frames(8, 33, 35), pix_fmt="yuv444p"),
        "one_frame.mp4": video(clip[:1]),
        "fps_1.mp4": video(clip[:4], fps=1),
        "fps_30.mp4": video(np.tile(clip, (4, 1, 1, 1)), fps=30),
        "fps_24000_1001.mp4": video(np.tile(clip, (4, 1, 1, 1)), fps=Fraction(24000, 1001)),
        "uneven.mp4": video(clip, times=odd),
        "uneven.mkv": video(clip, "matroska", times=odd),
        "few_keys.mp4": video(np.tile(clip, (4, 1, 1, 1)), options=intra),
        "h264_called.png": video(clip),
        "h264_no_suffix": video(clip),
    }
    if "libsvtav1" in av.codecs_available:
        files["av1.mp4"] = video(clip, codec="libsvtav1", options={"preset": "12"})
    for width in (16, 24, 48):
        files[f"width_{width}.mp4"] = video(frames(8, 32, width))
    for turn in (90, 180, 270):
        files[f"turned_{turn}.mp4"] = video(frames(8, 32, 64), turn=turn)
    return [(name, data, OK) for name, data in files.items()]


def limits() -> list[tuple]:
    """One within and one beyond each limit, and a bomb."""
    small = frames(1, 16, 16)
    wide = video(frames(1, 16, 4096))
    last = [0, 599_000]
    return [
        ("side_4096.mp4", wide, OK),
        ("side_4098.mp4", video(frames(1, 16, 4098)), REFUSED),
        ("bomb_8192.mp4", video(frames(1, 8192, 8192)), REFUSED),
        ("length_600.mp4", video(np.repeat(small, 2, 0), fps=1, times=last), OK),
        ("length_601.mp4", video(np.repeat(small, 601, 0), fps=1), REFUSED),
        ("frames_6000.mp4", video(np.repeat(small, 6000, 0), fps=10), OK),
    ]


def hostile(clip: np.ndarray, plain: bytes) -> list[tuple]:
    """Lies in tables, codecs and containers that are not allowed, other media."""
    most = struct.pack(">I", 2**31 - 1)
    tone = io.BytesIO()
    with av.open(tone, "w", format="mp4") as media:
        track = media.add_stream("aac", rate=16000, layout="mono")
        silent = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silent.sample_rate, silent.pts = 16000, 0
        media.mux([*track.encode(silent), *track.encode()])
    refused = {
        "sound_only.mp4": tone.getvalue(),
        "image_called.mp4": encoded(Image.fromarray(picture()), "PNG"),
        "gif_called.mp4": encoded(Image.fromarray(picture()), "GIF"),
        "jpeg_called.avi": encoded(Image.fromarray(picture()), "JPEG"),
        "ffv1.mkv": video(clip, "matroska", "ffv1"),
        "huffyuv.avi": video(clip, "avi", "huffyuv", pix_fmt="yuv422p"),
        "mpeg2.mkv": video(clip, "matroska", "mpeg2video", fps=25),
        "png.mov": video(clip, "mov", "png", pix_fmt="rgb24"),
        "raw.avi": video(clip[:2], "avi", "rawvideo", pix_fmt="bgr24"),
        "h264.flv": video(clip, "flv"),
        "h264.ts": video(clip, "mpegts"),
        "wmv2.asf": video(clip, "asf", "wmv2"),
        "h264.raw": video(clip, "h264"),
        "stsz_count.mp4": patched(plain, b"stsz", 8, most),
        "no_samples.mp4": patched(plain, b"stsz", 8, bytes(4)),
        "no_tables.mp4": plain.replace(b"stbl", b"free"),
        "no_track.mp4": plain.replace(b"trak", b"free"),
        "only_ftyp.mp4": plain[: plain.index(b"moov") - 4],
        "magic_noise.mp4": plain[:32] + noise(4000, 21),
        "magic_noise.mkv": b"\x1aE\xdf\xa3" + noise(4000, 22),
        "magic_noise.avi": b"RIFF\0\x10\0\0AVI LIST" + noise(4000, 23),
        "codec_name.mp4": plain.replace(b"avc1", b"zzzz"),
    }
    other = {
        "stts_count.mp4": (patched(plain, b"stts", 8, most), DAMAGED),
        "stts_delta.mp4": (patched(plain, b"stts", 12, most), DAMAGED),
        "stco_beyond.mp4": (patched(plain, b"stco", 8, most), DAMAGED),
        "stsc_count.mp4": (patched(plain, b"stsc", 12, most), ANY),
        "declared_32767.mp4": (patched(plain, b"avc1", 24, b"\x7f\xff\x7f\xff"), ANY),
        "avcc.mp4": (patched(plain, b"avcC", 4, noise(20, 24)), ANY),
        "outside_data.mp4": (patched(plain, b"url ", 0, bytes(4)), ANY),
        "moov_size.mp4": (patched(plain, b"moov", -8, b"\x7f\xff\xff\xff"), DAMAGED),
    }
    made = [(name, data, REFUSED) for name, data in refused.items()]
    return made + [(name, *pair) for name, pair in other.items()]


def damaged(clip: np.ndarray, plain: bytes) -> list[tuple]:
    """Cut and changed files, lost packets, a size that changes midway."""
    grain = np.random.default_rng(31).integers(0, 60, clip.shape, dtype=np.uint8)
    rich = video(clip // 2 + grain, options={"bf": "0"}, container={"movflags": "+faststart"})
    late = video(clip // 2 + grain)
    made = cuts("first.mp4", rich, {1: REFUSED, 5: DAMAGED, 30: DEGRADED, 60: DEGRADED})
    made += cuts("first_99.mp4", rich, {99: DEGRADED})
    made += cuts("last.mp4", late, {1: REFUSED, 30: REFUSED, 60: REFUSED, 99: REFUSED})
    rough = clip + grain
    made += cuts("c.mkv", video(rough, "matroska"), {2: REFUSED, 50: DEGRADED, 90: DEGRADED})
    made += cuts("c.avi", video(rough, "avi", "mpeg4"), {2: REFUSED, 50: DEGRADED})
    made += cuts("cut.webm", video(clip, "webm", "libvpx"), {2: REFUSED, 50: DEGRADED})
    made += [
        ("no_first_key.mp4", remuxed(video(clip, options={"g": "8"}), drop=[0]), DAMAGED),
        ("lost_middle.mp4", remuxed(rich, drop=[5, 6]), ANY),
        ("size_changes.mkv", joined(jpegs(clip), jpegs(frames(8, 32, 48))), OK),
    ]
    body = rich.index(b"mdat")
    made += mutations("data.mp4", rich, 16, ANY, start=body + 8)
    made += mutations("any.mp4", plain, 8)
    made += mutations("any.mkv", video(clip, "matroska"), 6)
    made += mutations("any.avi", video(clip, "avi", "mpeg4"), 6)
    return made + mutations("any.webm", video(clip, "webm", "libvpx"), 4)
