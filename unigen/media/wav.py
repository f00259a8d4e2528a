"""The outline of a WAV, and the comment in it: libsndfile drops one longer than 2 kB."""

import io
from collections.abc import Iterator

from unigen.media import limits

_MOST = 1000  # chunks


def chunks(file, place: int = 12) -> Iterator[tuple[bytes, int, int]]:
    """Yield of each chunk its name, where its content begins, and the length it declares."""
    for _ in range(_MOST):
        file.seek(place)
        head = file.read(8)
        if len(head) < 8:
            return
        length = int.from_bytes(head[4:], "little")
        yield head[:4], place + 8, length
        place += 8 + length + length % 2


def with_comment(wav: bytes, text: str) -> bytes:
    """Put a comment before the samples of a WAV that has none."""
    start = next(place for name, place, _ in chunks(io.BytesIO(wav)) if name == b"data") - 8
    listed = _chunk(b"LIST", b"INFO" + _chunk(b"ICMT", text.encode() + b"\0"))
    return _chunk(b"RIFF", wav[8:start] + listed + wav[start:])


def comment_of(file) -> str | None:
    """The comment of an open WAV, if it has one."""
    for name, place, length in chunks(file):
        if name != b"LIST":
            continue
        file.seek(place)
        listed = file.read(min(length, limits.RECIPE_BYTES + limits.MEGA))
        if listed[:4] != b"INFO":
            continue
        for key, start, size in chunks(io.BytesIO(listed), 4):
            if key == b"ICMT":
                return listed[start : start + size].rstrip(b"\0").decode("utf-8", "replace")
    return None


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + len(content).to_bytes(4, "little") + content + bytes(len(content) % 2)
