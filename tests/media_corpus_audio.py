"""The sounds of the corpus."""

import io
import struct

import av
import numpy as np
import soundfile
from media_corpus import DAMAGED, DEGRADED, OK, REFUSED, cuts, mutations, noise
from media_corpus_image import encoded, picture
from media_corpus_video import frames, video
from PIL import Image

RATE = 16000


def tone(seconds: float = 1.0, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """A rising tone with a little noise, float [samples, channels]."""
    t = np.arange(round(seconds * rate)) / rate
    grain = np.random.default_rng(5).normal(0, 0.02, (len(t), channels))
    return 0.5 * np.sin(2 * np.pi * (300 + 200 * t) * t)[:, None] + grain


def sound(kind: str, subtype: str, samples: np.ndarray | None = None, rate: int = RATE) -> bytes:
    """The file that soundfile writes."""
    out = io.BytesIO()
    samples = tone(rate=rate) if samples is None else samples
    soundfile.write(out, samples, rate, subtype, format=kind)
    return out.getvalue()


def wav(data: bytes, codec=1, channels=1, rate=RATE, bits=16, declared=None) -> bytes:
    """A WAV with any header, true or not."""
    block = channels * bits // 8
    fields = (codec, channels, rate, rate * block % 2**32, block % 65536, bits)
    header = b"fmt \x10\0\0\0" + struct.pack("<HHIIHH", *fields)
    size = len(data) if declared is None else declared
    body = b"WAVE" + header + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", min(len(body) - len(data) + size, 2**32 - 1)) + body


def track(form: str, codec: str, rate: int = RATE, layout: str = "mono") -> bytes:
    """Sound in a container, without pictures."""
    out = io.BytesIO()
    with av.open(out, "w", format=form) as media:
        stream = media.add_stream(codec, rate=rate, layout=layout)
        samples = tone(2.0, rate, 2 if layout == "stereo" else 1).T.astype(np.float32)
        whole = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "fltp", layout)
        whole.sample_rate, whole.pts = rate, 0
        turned = av.AudioResampler(stream.format, stream.layout, rate, stream.frame_size or None)
        for frame in [*turned.resample(whole), *turned.resample(None)]:
            media.mux(stream.encode(frame))
        media.mux(stream.encode())
    return out.getvalue()


def flac_of(samples: int, channels: int = 1, rate: int = RATE) -> bytes:
    """A FLAC that declares any number of samples."""
    data = bytearray(sound("FLAC", "PCM_16"))
    word = rate << 44 | (channels - 1) << 41 | 15 << 36 | samples
    data[18:26] = word.to_bytes(8, "big")
    return bytes(data)


def cases() -> list[tuple]:
    """(name, bytes, outcome) of each."""
    return good() + limits() + hostile() + damaged()


def good() -> list[tuple]:
    """Every allowed container, codec, width, rate and number of channels."""
    plain = sound("WAV", "PCM_16")
    listed = wav(b"").replace(b"data", b"LIST\x06\0\0\0INFOab" + b"data")
    samples = plain[44:]
    files = {
        "u8.wav": sound("WAV", "PCM_U8"),
        "s16.wav": plain,
        "s24.wav": sound("WAV", "PCM_24"),
        "s32.wav": sound("WAV", "PCM_32"),
        "float.wav": sound("WAV", "FLOAT"),
        "double.wav": sound("WAV", "DOUBLE"),
        "loud_float.wav": sound("WAV", "FLOAT", tone() * 5),
        "extensible.wav": sound("WAVEX", "PCM_16", tone(channels=4)),
        "stereo.wav": sound("WAV", "PCM_16", tone(channels=2)),
        "rate_8000.wav": sound("WAV", "PCM_16", rate=8000),
        "rate_44100.wav": sound("WAV", "PCM_16", rate=44100),
        "rate_192000.wav": sound("WAV", "PCM_16", rate=192000),
        "one_sample.wav": wav(b"\0\1"),
        "size_unknown.wav": wav(samples, declared=2**32 - 1),
        "other_chunks.wav": listed[:-4] + struct.pack("<I", len(samples)) + samples,
        "s16.flac": sound("FLAC", "PCM_16"),
        "s24.flac": sound("FLAC", "PCM_24", tone(channels=2)),
        "vorbis.ogg": sound("OGG", "VORBIS"),
        "vorbis_stereo.ogg": sound("OGG", "VORBIS", tone(channels=2)),
        "opus.ogg": sound("OGG", "OPUS", rate=48000),
        "mono.mp3": sound("MP3", "MPEG_LAYER_III"),
        "stereo.mp3": sound("MP3", "MPEG_LAYER_III", tone(rate=44100, channels=2), 44100),
        "tagged.mp3": b"ID3\3\0\0\0\0\0\x0a" + bytes(10) + sound("MP3", "MPEG_LAYER_III"),
        "aac.mp4": track("mp4", "aac"),
        "aac_stereo.m4a": track("mp4", "aac", 44100, "stereo"),
        "alac.mov": track("mov", "alac"),
        "opus.webm": track("webm", "libopus", 48000),
        "flac.mkv": track("matroska", "flac"),
        "mp3.mkv": track("matroska", "libmp3lame"),
        "pcm.mkv": track("matroska", "pcm_s16le"),
        "mp3.avi": track("avi", "libmp3lame"),
        "of_a_video.mp4": video(frames(), sound=True),
        "wav_called.mp3": plain,
        "flac_called.png": sound("FLAC", "PCM_16"),
        "no_suffix": plain,
    }
    return [(name, data, OK) for name, data in files.items()]


def limits() -> list[tuple]:
    """One within and one beyond each limit."""
    hour = np.zeros((3_600_000, 1), np.int16)
    return [
        ("channels_8.wav", sound("WAV", "PCM_16", tone(0.1, channels=8)), OK),
        ("channels_9.wav", sound("WAV", "PCM_16", tone(0.1, channels=9)), REFUSED),
        ("channels_1024.wav", wav(bytes(94208), channels=1024), REFUSED),
        ("channels_0.wav", wav(bytes(1000), channels=0), REFUSED),
        ("hour.flac", sound("FLAC", "PCM_16", hour, 1000), OK),
        ("hour_and_more.flac", flac_of(3601 * RATE), REFUSED),
        ("six_hours.flac", flac_of(6 * 3600 * 48000, 8, 48000), REFUSED),
        ("rate_999.wav", wav(bytes(5000), rate=999), REFUSED),
        ("rate_1000.wav", wav(bytes(5000), rate=1000), OK),
        ("rate_0.wav", wav(bytes(5000), rate=0), REFUSED),
        ("rate_4e9.wav", wav(bytes(5000), rate=2**32 - 1), REFUSED),
    ]


def hostile() -> list[tuple]:
    """Samples that are no numbers, lies in headers, codecs and kinds that are not allowed."""
    bad = tone().astype(np.float32)
    spoiled = {}
    for name, value in (("nan", np.nan), ("inf", np.inf), ("minus_inf", -np.inf)):
        bad[len(bad) // 2] = value
        spoiled[f"{name}.wav"] = sound("WAV", "FLOAT", bad)
        spoiled[f"{name}_double.wav"] = sound("WAV", "DOUBLE", bad)
    files = spoiled | {
        "ima_adpcm.wav": sound("WAV", "IMA_ADPCM"),
        "ms_adpcm.wav": sound("WAV", "MS_ADPCM"),
        "ulaw.wav": sound("WAV", "ULAW"),
        "gsm.wav": sound("WAV", "GSM610", rate=8000),
        "codec_65000.wav": wav(bytes(1000), codec=65000),
        "tone.aiff": sound("AIFF", "PCM_16"),
        "tone.au": sound("AU", "PCM_16"),
        "tone.caf": sound("CAF", "PCM_16"),
        "tone.w64": sound("W64", "PCM_16"),
        "tone.rf64": sound("RF64", "PCM_16"),
        "tone.adts": track("adts", "aac"),
        "ac3.mkv": track("matroska", "ac3", 48000),
        "no_data.wav": wav(b""),
        "no_header.wav": b"RIFF\x24\0\0\0WAVE",
        "bits_0.wav": wav(bytes(1000), bits=0),
        "bits_7.wav": wav(bytes(1000), bits=7),
        "silent_video.mp4": video(frames()),
        "png_called.wav": encoded(Image.fromarray(picture()), "PNG"),
        "magic_noise.wav": b"RIFF\0\x10\0\0WAVEfmt " + noise(4000, 41),
        "magic_noise.flac": b"fLaC" + noise(4000, 42),
        "magic_noise.ogg": b"OggS" + noise(4000, 43),
        "theora.ogg": b"OggS\0\2" + bytes(8) + noise(200, 45),
    }
    made = [(name, data, REFUSED) for name, data in files.items()]
    return [*made, ("magic_noise.mp3", b"\xff\xfb\x90\x00" + noise(4000, 44), DAMAGED)]


def damaged() -> list[tuple]:
    """Cut and changed files."""
    plain, flac = sound("WAV", "PCM_16"), sound("FLAC", "PCM_16")
    ogg, mp3 = sound("OGG", "VORBIS"), sound("MP3", "MPEG_LAYER_III")
    made = [("more_declared.wav", wav(plain[44:], declared=10**6), DEGRADED)]
    made += cuts("c.wav", plain, {30: DEGRADED, 60: DEGRADED, 99: DEGRADED})
    made.append(("cut_in_header.wav", plain[:30], REFUSED))
    made += cuts("c.flac", flac, {1: REFUSED, 40: DAMAGED, 90: DAMAGED})
    made += cuts("c.ogg", ogg, {3: REFUSED, 40: DAMAGED, 70: DAMAGED, 95: DAMAGED})
    made += cuts("c.mp3", mp3, {40: DAMAGED, 90: DAMAGED})
    made += cuts("c.mkv", track("matroska", "flac"), {1: REFUSED, 30: DEGRADED})
    made += cuts("c.m4a", track("mp4", "aac"), {1: REFUSED, 50: REFUSED, 95: REFUSED})
    made += mutations("m.flac", flac, 6, DAMAGED, start=9000)
    made += mutations("m.wav", plain, 4) + mutations("m.ogg", ogg, 4) + mutations("m.mp3", mp3, 4)
    return made + mutations("m.mp4", track("mp4", "aac"), 6)
