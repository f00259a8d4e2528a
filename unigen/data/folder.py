"""A folder of media: `<root>/<modality>/<id>.*`, or files side by side, with captions.

Files with the same id belong together. `<id>.txt` holds captions, one a line; so does, in any
folder, a `metadata.jsonl` or `metadata.csv` with a column `file_name`, relative to that folder, and
one of `CAPTIONS`.
"""

from collections import Counter
from pathlib import Path

from unigen.data.files import Files
from unigen.data.items import PART_OF, SUFFIXES, TEXT, Item, Listing, Refused, folder, inside, walk
from unigen.data.tables import columns_of, read_table
from unigen.errors import UsageError

CAPTIONS = ("text", "caption", "captions", "texts", "prompt")  # columns, the first that is there
METADATA = ("metadata.jsonl", "metadata.csv")


class Folder(Files):
    """A folder of photos, clips, recordings and captions."""

    def __init__(self, root: str, seed: int = 0, max_bad: float = 0.05):
        """root: the folder. seed: of the captions drawn. max_bad: see Indexed."""
        super().__init__(listing(root), seed, max_bad)


def listing(root: str | Path) -> Listing:
    """List the items of a folder; MediaError where there is none."""
    place = folder(root)
    found = Listing(place)
    items: dict[str, Item] = {}
    owner: dict[Path, str] = {}  # the id of every file
    apart = any((place / part).is_dir() for part in SUFFIXES)
    unknown: Counter[str] = Counter()
    tables: list[Path] = []
    for path in walk(place, found.notes):
        inner = path.relative_to(place)
        if path.name in METADATA:
            tables.append(path)
            continue
        part, name = _part(inner, apart), inner.with_suffix("").as_posix()
        if apart:
            name = name.partition("/")[2]
        if part is None:
            unknown[path.suffix or path.name] += 1
            continue
        item = items.setdefault(name, {})
        if part in item:
            found.refused.append(Refused(inner.as_posix(), part, f"{name} has another {part}"))
            continue
        item[part] = path
        owner[path] = name
    if unknown:
        kinds = ", ".join(sorted(unknown)[:5])
        found.notes.append(f"{sum(unknown.values())} files of other kinds are left out ({kinds})")
    for path in sorted(tables, key=lambda path: (len(path.parts), METADATA.index(path.name))):
        _caption(found, path, items, owner)  # the nearest to a file is the last, and holds
    for name in sorted(items):
        found.add(name, items[name])
    return found.checked(f"{root}")


def _part(inner: Path, apart: bool) -> str | None:
    """Return the part of a file, by its folder or its suffix."""
    suffix = inner.suffix.lower()
    if not apart:
        return PART_OF.get(suffix)
    if len(inner.parts) == 1:
        return None
    return TEXT if suffix in SUFFIXES[TEXT] else inner.parts[0]


def _caption(found: Listing, path: Path, items: dict[str, Item], owner: dict[Path, str]) -> None:
    """Lay the captions of a metadata file over the items."""
    rows = read_table(path, ["file_name"])
    columns = columns_of(rows)
    column = next((name for name in CAPTIONS if name in columns), None)
    if column is None:
        raise UsageError(
            f"{path} has no column of captions; it has {', '.join(columns)}, and wanted is one of "
            f"{', '.join(CAPTIONS)}."
        )
    written: dict[str, list[str]] = {}
    for row in rows:
        text = str(row["file_name"])
        file = inside(found.root, path.parent, text, str(path))
        name = owner.get(file)
        if name is None:
            inner = file.relative_to(found.root).as_posix()
            found.refused.append(
                Refused(inner, "file_name", f"{path.name} names it; it is missing")
            )
        else:
            written.setdefault(name, []).extend(lines_of(row.get(column)))
    for name, lines in written.items():
        if lines:
            items[name][TEXT] = lines


def lines_of(value: object) -> list[str]:
    """Return the captions of a field: a text, a list of them, or nothing."""
    several = value if isinstance(value, list | tuple) else [value]
    return [str(line) for line in several if line is not None and str(line).strip()]
