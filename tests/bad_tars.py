"""Tars as they come out of the world: of any members, damaged in known ways, and hostile ones."""

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

CASES = ("a bad header", "a bad size", "a cut between members", "a cut in a header",
         "zero blocks", "a cut in the bytes", "other bytes")  # fmt: skip


def tar_of(path: Path, *members: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    """Write a tar of (name, bytes), or of headers that say something else."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return path


def picture(seed: int = 0) -> bytes:
    """A small PNG."""
    out = io.BytesIO()
    Image.effect_noise((16, 16), 50 + seed).convert("RGB").save(out, "png")
    return out.getvalue()


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    """The header of a member that is no file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def member(root: Path, i: int, part: str = "image") -> tuple[int, int]:
    """Offset and size of a part of an item, from the index of packed shards."""
    rows = (root / "index.jsonl").read_text().splitlines()[1:]
    _, _, offset, size, _ = json.loads(rows[i])["parts"][part]
    return offset, size


def damaged(data: bytes, case: str, offset: int, size: int) -> bytes:
    """The bytes of a shard, damaged at one member in one of CASES."""
    end = offset + size
    return {
        "a bad header": data[: offset - 400] + b"\xff" + data[offset - 399 :],
        "a bad size": data[: offset - 512 + 124] + b"77777777777\0" + data[offset - 376 :],
        "a cut between members": data[: offset - 512],
        "a cut in a header": data[: offset - 200],
        "zero blocks": data[: offset - 512] + bytes(1024) + data[offset + 512 :],
        "a cut in the bytes": data[: end - 7],
        "other bytes": data[: end - 9] + bytes([data[end - 9] ^ 1]) + data[end - 8 :],
    }[case]


HOSTILE = {
    "../x": [("../evil.png", b"x")],
    "absolute": [("/tmp/evil.png", b"x")],
    "symlink": [special("link.png", tarfile.SYMTYPE, "/etc/passwd")],
    "hardlink": [special("hard.png", tarfile.LNKTYPE, "/etc/passwd")],
    "device": [special("dev.png", tarfile.CHRTYPE)],
    "pipe": [("pipe:touch evil.png", b"x")],
    "pickle": [("a.pkl", b"cos\nsystem\n(S'touch evil'\ntR.")],
    "module": [("a.pyd", b"x")],
    "weights": [("a.pt", b"x")],
}


class Hostile(NamedTuple):
    """A tar: what of it must be refused, and what of it may be read."""

    path: Path
    refused: list[str]
    read: list[str]

    def alone(self) -> bool:
        """Whether nothing lies beside the tar."""
        return list(self.path.parent.iterdir()) == [self.path]


def hostile_member(path: Path, *names: str) -> Hostile:
    """Some of HOSTILE between two good pictures."""
    bad = [each for name in names for each in HOSTILE[name]]
    tar_of(path, ("good.png", picture()), *bad, ("z.png", picture()))
    wanted = [each.name if isinstance(each, tarfile.TarInfo) else each[0] for each in bad]
    refused = [f"{path.name}/{name}" for name in wanted]
    return Hostile(path, refused, [f"{path.name}/good", f"{path.name}/z"])


def huge_member(path: Path, size: int = 100 << 30) -> Hostile:
    """A member that declares far more bytes than there are, after a good picture."""
    huge = tarfile.TarInfo("huge.png")
    huge.size = size
    form = tarfile.USTAR_FORMAT if size < 8 << 30 else tarfile.GNU_FORMAT
    data = tar_of(path, ("good.png", picture())).read_bytes()
    end = -(-len(picture()) // 512) * 512 + 512
    path.write_bytes(data[:end] + huge.tobuf(form) + b"x" * 100)
    return Hostile(path, [f"{path.name}/{path.name}"], [f"{path.name}/good"])


def twice(path: Path) -> Hostile:
    """A key that comes twice."""
    tar_of(path, ("a.png", picture()), ("a.png", picture()), ("b.png", picture()))
    return Hostile(path, [f"{path.name}/a"], [f"{path.name}/b"])


def apart(path: Path) -> Hostile:
    """A key that goes on after another one."""
    tar_of(path, ("a.png", picture()), ("b.png", picture()), ("a.txt", b"x"))
    return Hostile(path, [f"{path.name}/a"], [f"{path.name}/b"])


def crowd(path: Path, count: int) -> Hostile:
    """So many members, all but the first of a kind that is not read."""
    block = tarfile.TarInfo("a.json").tobuf(tarfile.USTAR_FORMAT)
    data = tar_of(path, ("good.png", picture())).read_bytes()
    end = -(-len(picture()) // 512) * 512 + 512
    with path.open("wb") as file:
        file.write(data[:end])
        for start in range(1, count, 10_000):
            file.write(block * min(10_000, count - start))
        file.write(bytes(1024))
    return Hostile(path, [f"{path.name}/{path.name}"], [f"{path.name}/good"])


def names_of(refused: Iterable) -> list[str]:
    """The names of what a source refused."""
    return [each.name for each in refused]
