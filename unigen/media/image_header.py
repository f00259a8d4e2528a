"""Test the checksums of a PNG, which its decoder leaves out (in the worker only)."""

import os
import zlib

from unigen.media.worker import Refused

_BLOCK = 1 << 20


def check(file, name: str) -> list[str]:
    """Refuse a PNG with a wrong checksum; return a note if its end is missing."""
    if name != "PNG":
        return []
    size = os.fstat(file.fileno()).st_size
    place, kind = 8, b""
    while kind != b"IEND":
        file.seek(place)
        head = file.read(8)
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if len(head) < 8 or place + 12 + length > size:
            file.seek(0)
            return ["degraded: the file is cut, its last part is missing"]
        found, left = zlib.crc32(kind), length
        while left:
            block = file.read(min(left, _BLOCK))
            found, left = zlib.crc32(block, found), left - len(block)
        if found != int.from_bytes(file.read(4), "big"):
            raise Refused("it is damaged (a checksum is wrong)")
        place += 12 + length
    file.seek(0)
    return []
