"""The images of the corpus."""

import io
import struct
import zlib

import numpy as np
from media_corpus import ANY, DAMAGED, OK, REFUSED, cuts, mutations, noise
from PIL import Image


def picture(height: int = 40, width: int = 56, channels: int = 3) -> np.ndarray:
    """A smooth picture with some grain, uint8."""
    y, x = np.mgrid[:height, :width]
    layers = [(x * 4 + c * 40 + y * (c + 1) * 3) % 256 for c in range(channels)]
    return np.stack(layers, -1).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    """The file that Pillow writes."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, depth: int, color: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG from raw rows, each with its filter byte."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows, 1))
    return b"\x89PNG\r\n\x1a\n" + header + extra + body + chunk(b"IEND", b"")


def blank_png(width: int, height: int) -> bytes:
    """A 1-bit PNG of any size, small on disk."""
    return png(width, height, 1, 0, bytes((width + 7) // 8 + 1) * height)


def gif_of(frames: int, side: int) -> bytes:
    """A GIF that repeats one frame."""
    one = encoded(Image.new("L", (side, side)), "GIF")
    start = one.index(b"\x2c", 13 + 3 * 2 ** ((one[10] & 7) + 1))
    return one[:start] + one[start:-1] * frames + b"\x3b"


def cases() -> list[tuple]:
    """(name, bytes, outcome) of each."""
    rgb = Image.fromarray(picture())
    return good(rgb) + limits() + hostile(rgb) + damaged(rgb)


def good(rgb: Image.Image) -> list[tuple]:
    """Every allowed format and mode."""
    alpha = Image.fromarray(picture(channels=4), "RGBA")
    gray = rgb.convert("L")
    deep = Image.fromarray(picture(channels=1)[..., 0].astype(np.uint16) * 257)
    frames = [Image.fromarray(np.roll(picture(), i * 5, 1)) for i in range(3)]
    clear = rgb.convert("P", palette=Image.Palette.ADAPTIVE)
    files = {
        "rgb.png": encoded(rgb, "PNG"),
        "rgba.png": encoded(alpha, "PNG"),
        "gray.png": encoded(gray, "PNG"),
        "gray_alpha.png": encoded(alpha.convert("LA"), "PNG"),
        "palette.png": encoded(clear, "PNG"),
        "palette_clear.png": encoded(clear, "PNG", transparency=0),
        "rgb_clear.png": encoded(rgb, "PNG", transparency=(0, 40, 80)),
        "one_bit.png": encoded(rgb.convert("1"), "PNG"),
        "deep_gray.png": encoded(deep, "PNG"),
        "deep_rgb.png": png(8, 8, 16, 2, (b"\0" + noise(48, 9)) * 8),
        "deep_rgba.png": png(8, 8, 16, 6, (b"\0" + noise(64, 10)) * 8),
        "one_pixel.png": encoded(rgb.crop((0, 0, 1, 1)), "PNG"),
        "wide.png": encoded(rgb.resize((5000, 1)), "PNG"),
        "tall.png": encoded(rgb.resize((1, 5000)), "PNG"),
        "animated.png": encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        "rgb.jpg": encoded(rgb, "JPEG"),
        "gray.jpg": encoded(gray, "JPEG"),
        "progressive.jpg": encoded(rgb, "JPEG", progressive=True),
        "cmyk.jpg": encoded(rgb.convert("CMYK"), "JPEG"),
        "lossy.webp": encoded(rgb, "WEBP"),
        "lossless.webp": encoded(alpha, "WEBP", lossless=True),
        "animated.webp": encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "rgb.bmp": encoded(rgb, "BMP"),
        "gray.bmp": encoded(gray, "BMP"),
        "one_bit.bmp": encoded(rgb.convert("1"), "BMP"),
        "one.gif": encoded(rgb, "GIF"),
        "clear.gif": encoded(clear, "GIF", transparency=0),
        "animated.gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "png_called.mp4": encoded(rgb, "PNG"),
        "jpeg_called.png": encoded(rgb, "JPEG"),
        "no_suffix": encoded(rgb, "PNG"),
    }
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        files[f"turned_{turn}.jpg"] = encoded(rgb, "JPEG", exif=exif)
    return [(name, data, OK) for name, data in files.items()]


def limits() -> list[tuple]:
    """One within and one beyond each limit."""
    return [
        ("pixels_64_million.png", blank_png(8000, 8000), OK),
        ("pixels_too_many.png", blank_png(8001, 8000), REFUSED),
        ("frames_256.gif", gif_of(256, 4), OK),
        ("frames_257.gif", gif_of(257, 4), REFUSED),
    ]


def hostile(rgb: Image.Image) -> list[tuple]:
    """Bombs, lies in headers, formats that are not allowed."""
    jpeg = bytearray(encoded(rgb, "JPEG"))
    size = jpeg.index(b"\xff\xc0") + 5
    jpeg[size : size + 4] = b"\xff\xff\xff\xff"
    text = b"Comment\0\0" + zlib.compress(bytes(300_000_000), 1)
    bmp = bytearray(encoded(rgb, "BMP"))
    bmp[18:26] = struct.pack("<ii", 30000, 30000)
    webp = b"VP8X" + struct.pack("<I", 10) + b"\x12\0\0\0" + b"\xff\x3f\0" * 2
    frame = b"ANIM" + struct.pack("<I", 6) + bytes(6)
    riff = b"RIFF" + struct.pack("<I", 4 + len(webp + frame)) + b"WEBP" + webp + frame
    bad_crc = bytearray(encoded(rgb, "PNG"))
    bad_crc[30] ^= 1
    files = {
        "bomb_13300.png": png(13300, 13300, 1, 0, bytes(1664 * 13300)),
        "bomb_20000.png": png(20000, 20000, 8, 2, b"\0"),
        "bomb_2_31.png": png(2**31 - 1, 2**31 - 1, 8, 2, b"\0"),
        "bomb_text.png": png(8, 8, 8, 2, bytes(25 * 8), chunk(b"zTXt", text)),
        "bomb.gif": gif_of(300, 4000),
        "bomb.webp": riff,
        "bomb.jpg": bytes(jpeg),
        "bomb.bmp": bytes(bmp),
        "no_width.png": png(0, 8, 8, 2, b""),
        "no_data.png": png(8, 8, 8, 2, b""),
        "short_data.png": png(64, 64, 8, 2, bytes(500)),
        "depth_3.png": png(8, 8, 3, 2, bytes(25 * 8)),
        "bad_checksum.png": bytes(bad_crc),
        "only_magic.png": b"\x89PNG\r\n\x1a\n",
        "magic_noise.png": b"\x89PNG\r\n\x1a\n" + noise(3000, 11),
        "magic_noise.jpg": b"\xff\xd8\xff\xe0" + noise(3000, 12),
        "magic_noise.gif": b"GIF89a" + noise(3000, 13),
        "magic_noise.webp": b"RIFF\0\x0b\0\0WEBPVP8 " + noise(3000, 14),
        "real.tiff": encoded(rgb, "TIFF"),
        "real.ppm": encoded(rgb, "PPM"),
        "real.ico": encoded(rgb, "ICO"),
        "real.tga": encoded(rgb, "TGA"),
        "eps_called.jpg": encoded(rgb, "EPS"),
    }
    return [(name, data, REFUSED) for name, data in files.items()]


def damaged(rgb: Image.Image) -> list[tuple]:
    """Cut and changed files."""
    made = []
    for kind, name in (("PNG", "p.png"), ("JPEG", "p.jpg"), ("WEBP", "p.webp"), ("BMP", "p.bmp")):
        data = encoded(rgb, kind)
        made += cuts(name, data, {2: REFUSED, 20: REFUSED, 50: REFUSED, 90: REFUSED})
    made += cuts("p.gif", encoded(rgb, "GIF"), {2: REFUSED, 20: REFUSED, 50: REFUSED, 90: REFUSED})
    made += mutations("m.png", encoded(rgb, "PNG"), 6, DAMAGED)
    for kind, name in (("JPEG", "m.jpg"), ("WEBP", "m.webp"), ("GIF", "m.gif"), ("BMP", "m.bmp")):
        made += mutations(name, encoded(rgb, kind), 5, ANY)
    return made
