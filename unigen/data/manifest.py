"""A manifest: a table of paths and captions, an item a row.

Columns are parts: `image`, `video`, `audio` (or any modality of your own) hold paths, relative to
the manifest; `text` holds a caption or a list of them.
"""

from pathlib import Path

from unigen.data.files import Files
from unigen.data.folder import CAPTIONS, lines_of
from unigen.data.items import SUFFIXES, TEXT, Item, Listing, Refused, folder, inside
from unigen.data.tables import Row, columns_of, read_table
from unigen.errors import UsageError


class Manifest(Files):
    """The rows of a JSON lines, CSV, TSV or Parquet file."""

    def __init__(
        self,
        manifest: str,
        root: str | None = None,  # what paths may not lead out of; null: the manifest's folder
        parts: list[str] | None = None,  # columns of paths; null: image, video and audio
        seed: int = 0,  # of the captions drawn
        max_bad: float = 0.05,  # see Indexed
    ):
        """Read the table; media are not opened."""
        media = [part for part in SUFFIXES if part != TEXT] if parts is None else parts
        super().__init__(listing(Path(manifest), root, media), seed, max_bad)


def listing(path: Path, root: str | None, media: list[str]) -> Listing:
    """List the rows of a manifest; files that are missing are refused by name."""
    rows = read_table(path)
    place = folder(path.parent, "the manifest's folder")
    found = Listing(place if root is None else folder(root))
    columns = columns_of(rows)
    media = [part for part in media if part in columns]
    captions = next((name for name in CAPTIONS if name in columns), None)
    if not media and captions is None:
        raise UsageError(
            f"{path} has the columns {', '.join(columns)}; wanted are some of "
            f"{', '.join(SUFFIXES)}."
        )
    for number, row in enumerate(rows, 1):
        item = _item(found, place, path, row, media)
        lines = lines_of(row.get(captions)) if captions else []
        if lines:
            item[TEXT] = lines
        paths = [value for value in item.values() if isinstance(value, Path)]
        inner = paths[0].relative_to(found.root).as_posix() if paths else ""
        found.add(f"{path.name}:{number}" + (f" {inner}" if inner else ""), item)
    left = sorted(set(columns) - {*media, captions})
    if left:
        found.notes.append(f"columns of {path.name} that are not used: {', '.join(left)}")
    if not found.items and found.refused:
        raise UsageError(
            f"{path} names {len(found.refused)} files, such as {found.refused[0].name!r}, and none "
            "of them exists; paths are relative to the manifest."
        )
    return found.checked(f"{path}")


def _item(found: Listing, place: Path, path: Path, row: Row, media: list[str]) -> Item:
    """Return the files of a row that exist."""
    item: Item = {}
    for part in media:
        text = row.get(part)
        if text is None or text == "":
            continue
        if not isinstance(text, str):
            raise UsageError(f"{path} has {part}={str(text)[:60]!r}; a path was wanted.")
        file = inside(found.root, place, text, path.name)
        if file.is_file():
            item[part] = file
        else:
            found.refused.append(Refused(text, part, f"{path.name} names it; it is missing"))
    return item
