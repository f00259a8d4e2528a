"""Broken samples: counted, named in a file, and too many of them end the run."""

import fcntl
import json
import threading
from pathlib import Path
from typing import Any, BinaryIO

from unigen.disk import named, writing
from unigen.errors import MediaError, UsageError

LEAST = 20  # items seen before the share of broken ones can end a run
LUCK = 4.0  # standard deviations by which a part of the items may have more of them than all


class Bad:
    """What was seen of a source, and what of it is broken.

    An item counts once, whichever of its parts is broken. Threads may share it.
    """

    def __init__(self, most: float = 0.05, total: int = 0):
        """most: the share of broken items that a run bears. total: how many items there are.

        Raises UsageError for what is no share.
        """
        if isinstance(most, bool) or not isinstance(most, int | float) or not 0 <= most <= 1:
            raise UsageError(
                f"data.max_bad={str(most)[:60]} is no share of items; give a number from 0 to 1."
            )
        self.most, self.total = most, total
        self.path: Path | None = None
        self.root = ""
        self._end = 0  # of what is known of the file
        self.reasons: dict[tuple[int, str], str] = {}
        self._seen: set[int] = set()
        self._items: set[int] = set()
        self._written: set[tuple[str, str, str]] = set()
        self._lock = threading.Lock()

    def log(self, path: Path, root: str = "") -> None:
        """Name broken samples in a file of JSON lines from now on, each once.

        root: in which names are unique; samples of other sources may be named in the file, too.
        """
        self.path, self.root, self._end = path, root, 0
        if path.is_file():
            with path.open("rb") as file:
                self._catch_up(file)

    def known(self, item: int, part: str) -> bool:
        """Whether a part of an item is known to be broken."""
        return (item, part) in self.reasons

    def seen(self, item: int) -> None:
        """Count an item."""
        self._seen.add(item)

    def add(self, item: int, part: str, record: dict[str, Any]) -> None:
        """Count and name a broken part; raises MediaError where there are too many."""
        with self._lock:
            if (item, part) not in self.reasons:
                self.reasons[item, part] = record["reason"]
                self._items.add(item)
                self.write(record)
            self.seen(item)
            bad, seen = len(self._items), len(self._seen)
            if self.too_many(bad, seen):
                where = f", named in {named(self.path)}" if self.path else ""
                raise MediaError(
                    f"{bad} of the {seen} samples read so far are broken{where}, the last one "
                    f"{record['name']!r} ({record['part']}: {record['reason']}); mend or remove "
                    f"them, or raise data.max_bad={self.most:g}"
                )

    def too_many(self, bad: int, seen: int) -> bool:
        """Whether the share of broken items is above `most`: by more than luck, or of all."""
        expected = self.most * seen
        luck = LUCK * expected**0.5 if seen < self.total else 0.0
        return seen >= LEAST and bad > expected + luck

    def write(self, record: dict[str, Any]) -> None:
        """Add a line to the file, if there is one and it does not name this sample yet.

        Other processes of the run name theirs in it, too: one writes at a time.
        """
        record = {**record, "root": self.root} if self.root else record
        key = _key(record)
        if self.path is None or key in self._written:
            return
        line = json.dumps(record, ensure_ascii=True).encode() + b"\n"
        with writing(self.path, len(line)), self.path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            half = self._catch_up(file)
            if key not in self._written:
                file.write(b"\n" + line if half else line)
                self._written.add(key)

    def _catch_up(self, file: BinaryIO) -> bool:
        """Learn what the file names since the last look; tell whether it ends in half a line."""
        file.seek(self._end)
        lines, newline, half = file.read().rpartition(b"\n")
        self._end += len(lines) + len(newline)
        for line in lines.splitlines():
            try:
                self._written.add(_key(json.loads(line)))
            except (ValueError, KeyError, TypeError, AttributeError):
                continue  # half a line that a kill left: the sample is named again
        return bool(half)


def _key(record: dict[str, Any]) -> tuple[str, str, str]:
    """Return what makes a record that of one part of one sample."""
    return record.get("root", ""), record["name"], record["part"]
