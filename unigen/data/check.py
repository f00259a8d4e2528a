"""What is in a source, and what of it is broken: every file read whole, in the isolated worker."""

import hashlib
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from unigen import media
from unigen.data.files import Files
from unigen.data.items import TEXT, Value
from unigen.data.raw import DEGRADED, all_captions, at_path, opened
from unigen.errors import MediaError
from unigen.media import limits

Facts = dict[str, Any]


def examine(source: Files) -> dict[str, Any]:
    """Read everything; return counts by part and kind, sizes, durations, broken, duplicates."""
    listed = source.listing
    parts: dict[str, list[Facts]] = defaultdict(list)
    broken = [{"name": n, "part": p, "reason": r} for n, p, r in listed.refused]
    same: dict[tuple[str, str], list[str]] = defaultdict(list)
    for number, item in enumerate(
        tqdm(listed.items, "checking", file=sys.stderr, mininterval=1.0, leave=False)
    ):
        for part, value in sorted(item.items()):
            try:
                facts, sha = _read(part, value)
            except MediaError as error:
                broken.append(source.record(number, part, str(error)))
                continue
            parts[part].append(facts)
            if sha is not None:
                same[part, sha].append(listed.names[number])
    kinds = Counter(" + ".join(sorted(item)) for item in listed.items)
    names = {record["name"] for record in broken}
    whole = [part for part in sorted(parts) if part != TEXT and part not in _READERS]
    unread = [f"{part}: its files are counted and not decoded" for part in whole]
    return {
        "items": len(listed.items),
        "kinds": dict(kinds.most_common()),
        "parts": {part: _summary(facts) for part, facts in sorted(parts.items())},
        "broken": broken,
        "broken_items": len(names),
        "duplicates": [{"part": p, "names": n} for (p, _), n in same.items() if len(n) > 1],
        "notes": [*listed.notes, *unread],
    }


def told(report: dict[str, Any]) -> Iterator[str]:
    """Yield a report as lines for people."""
    yield f"{report['items']} items"
    for kind, count in report["kinds"].items():
        yield f"  {count} with {kind}"
    for part, facts in report["parts"].items():
        yield f"{part}: " + ", ".join(f"{key} {value}" for key, value in facts.items())
    for note in report["notes"]:
        yield f"note: {note}"
    for twins in report["duplicates"]:
        yield f"same {twins['part']}: {', '.join(twins['names'][:10])}"
    for record in report["broken"]:
        place = f" at {record['shard']}:{record['offset']}" if "offset" in record else ""
        yield f"broken: {record['name']} ({record['part']}): {record['reason']}{place}"


def _read(part: str, value: Value) -> tuple[Facts, str | None]:
    """Read a value whole; return its facts, and the sha256 of a file."""
    if part == TEXT:
        lines = all_captions(value)
        return {"captions": len(lines), "words": sum(len(line.split()) for line in lines)}, None
    if isinstance(value, list):
        raise MediaError("it is a list of texts; a file was wanted")
    with opened(value) as path:
        facts = _READERS[part](path) if part in _READERS else {}
    with at_path(value) as path, path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        return {"bytes": size, **facts}, hashlib.file_digest(file, "sha256").hexdigest()


def _image(path: Path) -> Facts:
    height, width = media.read_image(path).pixels.shape[:2]
    return {"size": (width, height)}


def _video(path: Path) -> Facts:
    kind, facts = media.probe(path)
    if kind == "audio":
        raise MediaError("it has sound and no pictures; a video was wanted")
    count = min(limits.TIMES, max(1, round(facts.get("seconds", 0) * (facts.get("fps") or 1))))
    times = np.linspace(0, facts.get("seconds", 0), count, endpoint=False)
    _whole(media.read_video(path, times, (16, 16)).notes)
    return {"size": (facts["width"], facts["height"]), "seconds": facts["seconds"]}


def _audio(path: Path) -> Facts:
    sound = media.read_audio(path, limits.AUDIO_SECONDS)
    _whole(sound.notes)
    return {"seconds": len(sound.samples) / sound.rate, "rate": sound.rate}


def _whole(notes: list[str]) -> None:
    damage = [note for note in notes if note.startswith(DEGRADED)]
    if damage:
        raise MediaError("; ".join(damage))


_READERS: dict[str, Callable[[Path], Facts]] = {
    "image": _image,
    "video": _video,
    "audio": _audio,
}


def _summary(facts: list[Facts]) -> Facts:
    """Return counts, sums and ranges of what files of a part have."""
    found: Facts = {"files": len(facts)}
    for key in ("bytes", "captions"):
        if key in facts[0]:
            found[key] = sum(each[key] for each in facts)
    if "seconds" in facts[0]:
        seconds = [each["seconds"] for each in facts]
        found |= {"seconds": round(sum(seconds), 3), "shortest": round(min(seconds), 3)}
        found["longest"] = round(max(seconds), 3)
    if "size" in facts[0]:
        sides = sorted((each["size"] for each in facts), key=lambda s: (s[0] * s[1], s))
        found |= {
            "smallest": "x".join(map(str, sides[0])),
            "largest": "x".join(map(str, sides[-1])),
        }
    if "rate" in facts[0]:
        found["rates"] = sorted({each["rate"] for each in facts})
    return found
