"""Published data sets as they lie on disk: an index file of theirs, and the files you have of it.

COCO captions, AudioCaps, MSR-VTT, WebVid. Each function turns an index into items; what the index
names and the folder lacks is counted and said once, for such lists are never had whole.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unigen.data.files import Files
from unigen.data.items import SUFFIXES, TEXT, Listing, folder, walk
from unigen.data.tables import read_json, read_table
from unigen.errors import MediaError


def coco(index: str, root: str, seed: int = 0, max_bad: float = 0.05) -> Files:
    """COCO captions: `captions_*.json` (`images`, `annotations`) and a folder of its pictures."""
    table = _lists(index, images=("id", "file_name"), annotations=("image_id", "caption"))
    captions = _grouped((a["image_id"], a["caption"]) for a in table["annotations"])
    rows = [([Path(str(i["file_name"])).name], captions.get(i["id"], [])) for i in table["images"]]
    return Files(_listing(index, root, "image", rows), seed, max_bad)


def audiocaps(index: str, root: str, seed: int = 0, max_bad: float = 0.05) -> Files:
    """AudioCaps: `train.csv` and sounds called `<youtube_id>_<start_time>` or `<youtube_id>`."""
    table = read_table(index, ["audiocap_id", "youtube_id", "start_time", "caption"])
    whose = ((str(row["youtube_id"]), str(row["start_time"])) for row in table)
    captions = _grouped(zip(whose, (row["caption"] for row in table), strict=True))
    rows = [([f"{i}_{start}", i], lines) for (i, start), lines in captions.items()]
    return Files(_listing(index, root, "audio", rows), seed, max_bad)


def msrvtt(index: str, root: str, seed: int = 0, max_bad: float = 0.05) -> Files:
    """MSR-VTT: `videodatainfo.json` (`videos`, `sentences`) and clips called `<video_id>`.

    Or the CSV of a split, with the columns `video_id` and `sentence`.
    """
    if Path(index).suffix == ".csv":
        split = read_table(index, ["video_id", "sentence"])
        lines = _grouped((str(r["video_id"]), r["sentence"]) for r in split)
        return Files(_listing(index, root, "video", (([i], x) for i, x in lines.items())),
                     seed, max_bad)  # fmt: skip
    table = _lists(index, videos=("video_id",), sentences=("video_id", "caption"))
    captions = _grouped((s["video_id"], s["caption"]) for s in table["sentences"])
    rows = [([str(v["video_id"])], captions.get(v["video_id"], [])) for v in table["videos"]]
    return Files(_listing(index, root, "video", rows), seed, max_bad)


def webvid(index: str, root: str, seed: int = 0, max_bad: float = 0.05) -> Files:
    """WebVid: `results_*.csv` and clips called `<videoid>`, in any folders, such as `page_dir`."""
    table = read_table(index, ["videoid", "contentUrl", "duration", "page_dir", "name"])
    rows = [([str(r["videoid"])], [str(r["name"])]) for r in table]
    return Files(_listing(index, root, "video", rows), seed, max_bad)


def _lists(path: str, **wanted: tuple[str, ...]) -> dict[str, list[dict[str, Any]]]:
    """Read a JSON object of lists of objects with texts or numbers at some keys.

    Raises MediaError, which says what it has instead.
    """
    table = read_json(path)
    for name, keys in wanted.items():
        rows = table.get(name) if isinstance(table, dict) else None
        if not isinstance(rows, list):
            came = ", ".join(table) if isinstance(table, dict) else type(table).__name__
            raise MediaError(f"{path} has no list {name!r}; it has {came}.")
        for number, row in enumerate(rows):
            if not isinstance(row, dict) or any(key not in row for key in keys):
                raise MediaError(f"{path} has {name}[{number}] without {' and '.join(keys)}.")
            for key in keys:
                if not isinstance(row[key], str | int | float):
                    raise MediaError(
                        f"{path} has {name}[{number}] with {key}={str(row[key])[:60]}; a text or "
                        "a number was wanted."
                    )
    return {name: table[name] for name in wanted}


def _grouped(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, list[str]]:
    """Return captions by what they belong to, in the order they come."""
    found: dict[Any, list[str]] = {}
    for key, caption in pairs:
        if str(caption).strip():
            found.setdefault(key, []).append(str(caption).strip())
    return found


def _listing(
    index: str, root: str, part: str, rows: Iterable[tuple[list[str], list[str]]]
) -> Listing:
    """List rows of (possible names of the file, captions) whose file lies anywhere under root."""
    found = Listing(folder(root))
    here: dict[str, Path] = {}
    for path in walk(found.root, found.notes):
        if path.suffix.lower() in SUFFIXES[part]:
            here.setdefault(path.name, path)
            here.setdefault(path.stem, path)
    missing = 0
    for names, captions in rows:
        path = next((here[name] for name in names if name in here), None)
        if path is None:
            missing += 1
        else:
            name = path.relative_to(found.root).as_posix()
            found.add(name, {part: path, **({TEXT: captions} if captions else {})})
    if missing:
        found.notes.append(f"{missing} rows of {Path(index).name} have no file here")
    return found.checked(f"{root}, read by {index},")
