"""Messages between the reader and its worker: a length, JSON, then the bytes of an array."""

import json
import socket
import struct

from unigen.media import limits

_LENGTH = struct.Struct(">I")


def send(
    sock: socket.socket, header: dict, body: bytes | memoryview = b"", fd: int | None = None
) -> None:
    """Send one message; `fd` is an open file that travels along."""
    text = json.dumps(header | {"bytes": len(body)}).encode()
    start = _LENGTH.pack(len(text))
    if fd is None:
        sock.sendall(start)
    else:
        socket.send_fds(sock, [start], [fd])
    sock.sendall(text)
    if len(body):
        sock.sendall(body)


def receive(read_exactly) -> dict:
    """Read one message without its body, through a function that fills a given buffer."""
    start = bytearray(_LENGTH.size)
    read_exactly(memoryview(start))
    (length,) = _LENGTH.unpack(start)
    if length > limits.HEADER_BYTES:
        raise ValueError(f"a message of {length} bytes")
    text = bytearray(length)
    read_exactly(memoryview(text))
    header = json.loads(text)
    if not isinstance(header, dict):
        raise ValueError("a message that is no object")
    return header
