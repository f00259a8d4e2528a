"""Read the outside of a sound file without a library (in the worker only)."""

import os

from unigen.media import wav
from unigen.media.worker import Refused

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_BITS = (8, 16, 24, 32, 64)


def check(file, name: str) -> list[str]:
    """Refuse a WAV codec that is not allowed; return a note if the file is cut."""
    file.seek(0)
    if name == "WAV":
        notes = _check_wav(file)
    elif name == "OGG":
        notes = _check_ogg(file)
    else:
        notes = []
    file.seek(0)
    return notes


def _check_wav(file) -> list[str]:
    size = os.fstat(file.fileno()).st_size
    for name, place, length in wav.chunks(file):
        if name == b"fmt ":
            file.seek(place)
            form = file.read(16)
            codec = int.from_bytes(form[:2], "little")
            if codec not in (_PCM, _FLOAT, _EXTENSIBLE):
                raise Refused(f"it is a WAV of codec {codec}; wanted PCM or float samples")
            bits = int.from_bytes(form[14:], "little")
            if bits not in _BITS:
                raise Refused(f"it has samples of {bits} bits; wanted one of {_BITS}")
        if name == b"data":
            there = size - place
            if there < length < 0xFFFFFF00:
                return [f"degraded: the file is cut, {there} of {length} sample bytes are there"]
            break
    return []


def _check_ogg(file) -> list[str]:
    """The last page of a whole stream says that it is the last."""
    size = os.fstat(file.fileno()).st_size
    file.seek(max(0, size - 65536 - 512))
    tail = file.read()
    page = tail.rfind(b"OggS")
    if page >= 0 and len(tail) > page + 5 and tail[page + 5] & 4:
        return []
    return ["degraded: the file is cut, its last page is missing"]
