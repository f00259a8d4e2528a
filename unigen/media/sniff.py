"""What a file is, by its first bytes. The file name is never asked."""

import codecs

IMAGE, SOUND, CONTAINER = "image", "sound", "container"
HEAD_BYTES = 512

_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"}
_STILLS = {b"heic", b"heix", b"heif", b"mif1", b"msf1", b"avif", b"avis"}
_FOREIGN = (
    (b"#EXTM3U", "a playlist"),
    (b"ffconcat", "a playlist"),
    (b"v=0", "a session description"),
    (b"%!PS", "a PostScript file"),
    (b"%PDF", "a PDF file"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"FLV", "an FLV video"),
    (b"0&\xb2u", "an ASF file"),
    (b"\x80\x04", "a pickle"),
    (b"\x93NUMPY", "a numpy array"),
    (b"\x7fELF", "a program"),
    (b"RF64", "an RF64 sound"),
    (b"caff", "a CAF sound"),
    (b"FORM", "an AIFF file"),
    (b"<", "a markup text"),
)


def sniff(head: bytes) -> tuple[str | None, str]:
    """Tell (family, format) from the first bytes.

    The family is "image", "sound", "container" (video, or sound, or both) or None. The format is
    the decoder's own name for it, or for None a description in words ("a text file").
    """
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return IMAGE, "PNG"
    if head[:3] == b"\xff\xd8\xff":
        return IMAGE, "JPEG"
    if head[:4] == b"RIFF" and head[8:12] in (b"WEBP", b"WAVE", b"AVI "):
        return {
            b"WEBP": (IMAGE, "WEBP"),
            b"WAVE": (SOUND, "WAV"),
            b"AVI ": (CONTAINER, "avi"),
        }[head[8:12]]
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return IMAGE, "GIF"
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0" and len(head) >= 26:
        return IMAGE, "BMP"
    if head[4:8] == b"ftyp" and head[8:12] in _STILLS:
        return None, "a HEIF or AVIF image"
    if head[4:8] in _BOXES:
        return CONTAINER, "mp4"
    if head[:4] == b"\x1aE\xdf\xa3":
        return CONTAINER, "matroska"
    if head[:4] == b"fLaC":
        return SOUND, "FLAC"
    if head[:4] == b"OggS":
        return SOUND, "OGG"
    if head[:3] == b"ID3" or _is_mp3_frame(head):
        return SOUND, "MP3"
    return None, _describe(head)


def _is_mp3_frame(head: bytes) -> bool:
    """Whether the bytes start with a valid MPEG layer III frame header."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2 or head[1] & 0x18 == 0x08:
        return False
    return head[2] >> 4 not in (0, 15) and head[2] & 0x0C != 0x0C


def _describe(head: bytes) -> str:
    """Say in words what an unreadable file seems to be."""
    if not head:
        return "an empty file"
    if not head.strip(b"\0"):
        return "a file of zeros"
    for magic, words in _FOREIGN:
        if head.startswith(magic):
            return words
    return "a text file" if _is_text(head) else "a file of an unknown kind"


def _is_text(head: bytes) -> bool:
    """Whether the bytes are printable UTF-8 or marked UTF-16; the last letter may be cut."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return True
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return bool(text) and all(c.isprintable() or c.isspace() for c in text)


NAMES = {"mp4": "MP4", "matroska": "Matroska", "avi": "AVI"}


def in_words(family: str | None, name: str) -> str:
    """Name what was found: "a PNG image", "a WAV sound", "an MP4 file"."""
    if family is None:
        return name
    shown = NAMES.get(name, name)
    article = "an" if shown[0] in "AM" and shown != "Matroska" else "a"
    return f"{article} {shown} {'file' if family == CONTAINER else family}"
