"""Some 300 good, damaged and hostile media files, made in code, each with what must come of it.

The same bytes come out every time for the same versions of the libraries.
"""

import zlib
from pathlib import Path
from typing import NamedTuple

OK, REFUSED, DEGRADED = "ok", "refused", "degraded"
DAMAGED = "degraded or refused"  # never a clean result
ANY = "ok, degraded or refused"  # damage that no reader can see: only no crash and no wrong shape


class Case(NamedTuple):
    """One input: `kind` is the reader it is given to, `outcome` what must come of it."""

    path: Path
    kind: str
    outcome: str


def build(folder: Path, canary: Path, port: int = 9) -> list[Case]:
    """Write every file below `folder`; playlists among them point to `canary` and `port`."""
    import media_corpus_audio
    import media_corpus_image
    import media_corpus_video

    cases = []
    for kind, module in (
        ("image", media_corpus_image),
        ("video", media_corpus_video),
        ("audio", media_corpus_audio),
    ):
        place = folder / kind
        place.mkdir(parents=True)
        made = module.cases() + foreign(kind) + playlists(canary, port)
        for name, data, outcome in made:
            path = place / name
            if path.exists():
                raise ValueError(f"two cases are called {name}")
            path.write_bytes(data)
            cases.append(Case(path, kind, outcome))
    return cases


def noise(count: int, seed: int = 0) -> bytes:
    """Random bytes, the same each time."""
    import numpy as np

    return np.random.default_rng(seed).bytes(count)


def cuts(name: str, data: bytes, parts: dict[int, str]) -> list[tuple]:
    """The first so many percent of a file, each with its outcome."""
    stem, suffix = name.rsplit(".", 1)
    return [
        (f"cut_{p}_{stem}.{suffix}", data[: len(data) * p // 100], out) for p, out in parts.items()
    ]


def mutations(name: str, data: bytes, count: int, outcome: str = ANY, start: int = 64) -> list:
    """Copies with 1 to 8 bytes changed after the first `start`."""
    import numpy as np

    made = []
    for seed in range(count):
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        changed = bytearray(data)
        for place in rng.integers(start, len(data), rng.integers(1, 9)):
            changed[place] ^= int(rng.integers(1, 256))
        made.append((f"mutated_{seed}_{name}", bytes(changed), outcome))
    return made


def foreign(kind: str) -> list[tuple]:
    """What is no media of any kind, under a name that says it is."""
    suffix = {"image": "png", "video": "mp4", "audio": "wav"}[kind]
    text = "a large red circle bounces, and a low hum\n" * 20
    contents = {
        "empty": b"",
        "one_byte": b"\x89",
        "zeros": bytes(5000),
        "noise": noise(5000, 1),
        "noise_long": noise(300_000, 2),
        "text": text.encode(),
        "text_utf16": text.encode("utf-16"),
        "html": b"<!doctype html><script>alert(1)</script>",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "pdf": b"%PDF-1.7\n" + noise(500, 3),
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        "zip": b"PK\x03\x04" + noise(500, 4),
        "gzip": b"\x1f\x8b\x08" + noise(500, 5),
        "pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
        "json": b'{"image": [1, 2, 3]}',
        "program": b"\x7fELF" + noise(500, 6),
        "heif": b"\0\0\0\x18ftypheic" + noise(500, 7),
        "tiff": b"II*\0\x08\0\0\0" + noise(500, 8),
    }
    return [(f"{name}.{suffix}", data, REFUSED) for name, data in contents.items()]


def playlists(canary: Path, port: int) -> list[tuple]:
    """Files that ask a careless reader to open another file or an address."""
    link = f"http://127.0.0.1:{port}/canary.mp4"
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n"
    contents = {
        "hls_file.m3u8": f"{head}{canary}\n#EXT-X-ENDLIST\n",
        "hls_file.mp4": f"{head}{canary}\n#EXT-X-ENDLIST\n",
        "hls_relative.mp4": f"{head}../{canary.name}\n#EXT-X-ENDLIST\n",
        "hls_link.m3u8": f"{head}{link}\n#EXT-X-ENDLIST\n",
        "hls_link.mp4": f"{head}{link}\n#EXT-X-ENDLIST\n",
        "concat.ffconcat": f"ffconcat version 1.0\nfile '{canary}'\n",
        "concat.mp4": f"ffconcat version 1.0\nfile '../{canary.name}'\n",
        "session.sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video {port} RTP/AVP 96\n",
        "session.mp4": f"v=0\nc=IN IP4 127.0.0.1\nm=audio {port} RTP/AVP 0\n",
        "dash.mpd": f'<?xml version="1.0"?><MPD><BaseURL>{link}</BaseURL></MPD>',
        "list.pls": f"[playlist]\nFile1={link}\nNumberOfEntries=1\n",
    }
    return [(name, text.encode(), REFUSED) for name, text in contents.items()]
