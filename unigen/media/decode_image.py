"""Read a picture with Pillow (in the worker only)."""

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from unigen.media import image_header, limits
from unigen.media.worker import Refused

Image.MAX_IMAGE_PIXELS = None  # our own limit is tested first
ImageFile.LOAD_TRUNCATED_IMAGES = False
_ROWS = 256  # worked on at a time, to keep the memory small


def read(file, args: dict, emit) -> dict:
    """Emit the pixels; args: format, size [height, width] or None, crop."""
    notes = image_header.check(file, args["format"])
    image = open_image(file, args["format"])
    frames = count_frames(image)
    if frames > 1:
        notes.append(f"took the first of {frames} frames")
    turned = image.getexif().get(0x0112, 1)
    image.load()
    image = to_rgb(image, notes)
    if turned in range(2, 9):
        image = ImageOps.exif_transpose(image)
        notes.append("turned upright as its EXIF data say")
    size = args["size"] or [image.height, image.width]
    emit([0], resized(middle(image, size, notes) if args["crop"] else image, size, notes))
    return {"notes": notes}


def open_image(file, name: str) -> Image.Image:
    """Open by the sniffed format only, and test the limits before any pixel is decoded."""
    try:
        image = Image.open(file, formats=[name])
    except UnidentifiedImageError:
        raise Refused("its header is damaged") from None
    if image.width * image.height > limits.IMAGE_PIXELS:
        most = limits.IMAGE_PIXELS // limits.MEGA
        raise Refused(f"it has {image.width}x{image.height} pixels, the limit is {most} million")
    return image


def count_frames(image: Image.Image) -> int:
    """The number of frames, at most the limit."""
    count = getattr(image, "n_frames", 1)
    if count > limits.IMAGE_FRAMES:
        raise Refused(f"it has {count} frames, the limit is {limits.IMAGE_FRAMES}")
    image.seek(0)
    return count


def to_rgb(image: Image.Image, notes: list[str]) -> Image.Image:
    """Any mode to RGB; what is see-through is laid over white. EXIF data stay."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        out = _from_deep(image, notes)
    elif "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        out = _over_white(image, notes)
    else:
        out = image.convert("RGB")
    out.info["exif"] = image.info.get("exif", b"")
    return out


def _from_deep(image: Image.Image, notes: list[str]) -> Image.Image:
    """Gray of more than 8 bits."""
    out = Image.new("RGB", image.size)
    for top in range(0, image.height, _ROWS):
        rows = np.asarray(image.crop((0, top, image.width, min(top + _ROWS, image.height))))
        gray = np.clip(np.nan_to_num(rows.astype(np.float32)) / 257, 0, 255).round()
        out.paste(Image.fromarray(gray.astype(np.uint8)).convert("RGB"), (0, top))
    notes.append("reduced from 16 to 8 bits")
    return out


def _over_white(image: Image.Image, notes: list[str]) -> Image.Image:
    out = Image.new("RGB", image.size, "white")
    for top in range(0, image.height, _ROWS):
        rows = image.crop((0, top, image.width, min(top + _ROWS, image.height)))
        rows.info = image.info
        rows = rows.convert("RGBA")
        out.paste(rows.convert("RGB"), (0, top), rows.getchannel("A"))
    notes.append("laid over white where it was see-through")
    return out


def middle(image: Image.Image, size: list[int], notes: list[str]) -> Image.Image:
    """Cut the largest part with the sides' ratio of [height, width] out of the middle."""
    scale = min(image.height / size[0], image.width / size[1])
    height, width = (max(1, round(scale * n)) for n in size)
    if (image.height, image.width) == (height, width):
        return image
    notes.append(f"took the middle {width}x{height} of {image.width}x{image.height}")
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def resized(image: Image.Image, size: list[int], notes: list[str]) -> np.ndarray:
    """Stretch to [height, width]; big shrinks average areas. Returns uint8 [h, w, 3]."""
    height, width = size
    if (image.height, image.width) != (height, width):
        note = f"resized {image.width}x{image.height} to {width}x{height}"
        if note not in notes:
            notes.append(note)
        image = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.ascontiguousarray(image)
