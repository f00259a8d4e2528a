"""Write media, each with its recipe inside and in a JSON beside it; whole files or none."""

import io
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from unigen.errors import UsageError
from unigen.media.files import write_next, write_whole
from unigen.media.recipe import to_json
from unigen.media.wav import with_comment

_XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    "Iptc4xmpExt:DigitalSourceType="
    '"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)

_JPEG_COMMENT = 65_000  # bytes that fit in one


def write_image(path: str | Path, pixels: np.ndarray, recipe: dict) -> Path:
    """Write uint8 [height, width, 3] RGB as .png (exact) or .jpg.

    Raises FileExistsError if the name is taken, ResourceError if the disk or the rights end.
    """
    pixels = _checked(pixels, "pixels", np.uint8, 3)
    text = to_json(recipe)
    kind = _suffix(path, {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"})

    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    out = io.BytesIO()  # so that a full disk is met by a plain write, which says so
    if kind == "PNG":
        info = PngInfo()
        info.add_itxt("unigen", text)
        info.add_itxt("XML:com.adobe.xmp", _XMP)
        Image.fromarray(pixels).save(out, kind, pnginfo=info)
    else:
        options = {"quality": 95, "subsampling": 0, "xmp": _XMP.encode()}
        comment = text.encode() if len(text) < _JPEG_COMMENT else b""
        Image.fromarray(pixels).save(out, kind, comment=comment, **options)
    return write_whole(path, lambda part: _write_bytes(part, out.getvalue()), text.encode())


def write_audio(path: str | Path, samples: np.ndarray, rate: int, recipe: dict) -> Path:
    """Write float [samples] or [samples, channels] in [-1, 1] as 16-bit .wav or .flac.

    Values beyond [-1, 1] are clipped, NaN is a ValueError. Other errors as for `write_image`.
    """
    sound = _checked_sound(samples)
    text = to_json(recipe)
    kind = _suffix(path, {".wav": "WAV", ".flac": "FLAC"})

    import soundfile

    out = io.BytesIO()
    whole = np.clip(np.rint(sound * 32768), -32768, 32767).astype(np.int16)
    form = {"channels": sound.shape[1], "subtype": "PCM_16", "format": kind}
    with soundfile.SoundFile(out, "w", int(rate), **form) as file:
        if kind != "WAV":
            file.comment = text
        file.write(whole)
    data = with_comment(out.getvalue(), text) if kind == "WAV" else out.getvalue()
    return write_whole(path, lambda part: _write_bytes(part, data), text.encode())


def write_video(
    path: str | Path,
    frames: np.ndarray,
    fps: float | int | Fraction,
    recipe: dict,
    samples: np.ndarray | None = None,
    rate: int | None = None,
) -> Path:
    """Write uint8 [frames, height, width, 3] as one .mp4 (H.264), with sound (AAC) if given.

    Height and width are even. `samples` is as for `write_audio`, at `rate` samples a second.
    Errors as for `write_audio`.
    """
    frames = _checked(frames, "frames", np.uint8, 4)
    if frames.shape[1] % 2 or frames.shape[2] % 2:
        raise ValueError(f"frames are {frames.shape[1:3]}; height and width must be even")
    if (samples is None) != (rate is None):
        raise ValueError("samples and rate go together")
    sound = None
    if samples is not None and rate is not None:
        sound = _checked_sound(samples), int(rate)
    text = to_json(recipe)
    _suffix(path, {".mp4": "mp4"})

    def fill(part: Path) -> None:
        from unigen.media.encode_mp4 import encode

        encode(part, frames, Fraction(fps).limit_denominator(1001), sound, text)

    return write_whole(path, fill, text.encode())


def write_text(path: str | Path, text: str, recipe: dict) -> Path:
    """Write text as UTF-8, character for character. Errors as for `write_image`."""
    beside = to_json(recipe)
    return write_whole(path, lambda part: _write_bytes(part, text.encode()), beside.encode())


def write_json(folder: str | Path, stem: str, value: Any) -> Path:
    """Write what was found out as stem_0.json, or the next number. Errors as for `write_image`."""
    data = json.dumps(value, indent=1).encode()

    def write(path: Path) -> None:
        write_whole(path, lambda part: _write_bytes(part, data))

    return write_next(folder, [(stem, ".json", write)])[0]


def _write_bytes(part: Path, data: bytes) -> None:
    part.write_bytes(data)


def _suffix(path: str | Path, kinds: dict[str, str]) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in kinds:
        raise UsageError(f"the file name ends in {suffix!r}; end it in {' or '.join(kinds)}")
    return kinds[suffix]


def _checked(array: np.ndarray, name: str, dtype, ndim: int) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype != dtype or array.ndim != ndim or array.shape[-1] != 3 or not array.size:
        raise ValueError(f"{name} is {array.dtype} {array.shape}; wanted uint8 [..., 3]")
    return np.ascontiguousarray(array)


def _checked_sound(samples: np.ndarray) -> np.ndarray:
    sound = np.asarray(samples, dtype=np.float64)
    sound = sound[:, None] if sound.ndim == 1 else sound
    if sound.ndim != 2 or not sound.size:
        raise ValueError(f"samples is {np.shape(samples)}; wanted [samples] or [samples, channels]")
    if not np.isfinite(sound).all():
        raise ValueError("samples holds NaN or infinite values")
    return np.clip(sound, -1.0, 1.0)
