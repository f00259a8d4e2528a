"""Tables from files: JSON lines, CSV (or TSV) and Parquet, as dicts by row."""

import csv
import io
import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from unigen.errors import MediaError, UsageError

MOST = 1 << 31  # bytes of a table or an index
Row = dict[str, Any]


def read_table(path: str | Path) -> list[Row]:
    """Return the rows of a .jsonl, .csv, .tsv or .parquet file.

    Raises UsageError for a missing file or another suffix, MediaError for a broken one.
    """
    path = Path(path)
    kinds = {".jsonl": _json_lines, ".csv": _csv, ".tsv": _csv, ".parquet": _parquet}
    if path.suffix not in kinds:
        raise UsageError(f"{path} is no table; give a file of {', '.join(kinds)}.")
    rows = list(kinds[path.suffix](path))
    if not rows:
        raise MediaError(f"{path} has no rows; give a table with a row an item.")
    return rows


def read_json(path: str | Path) -> Any:
    """Return the value of a JSON file in UTF-8."""
    try:
        return json.loads(_text(Path(path)))
    except (ValueError, RecursionError) as error:
        raise MediaError(f"{path} is not valid JSON: {ascii(str(error))[:100]}.") from None


def columns_of(rows: list[Row]) -> list[str]:
    """Return the columns that any of the first rows has."""
    return list(dict.fromkeys(key for row in rows[:1000] for key in row))


def need(path: str | Path, rows: list[Row], wanted: list[str]) -> None:
    """Raise UsageError where a column that is needed is not there, naming those that are."""
    found = columns_of(rows)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise UsageError(
            f"{path} has no column {missing[0]!r}; it has {', '.join(map(str, found))}, and "
            f"wanted are {', '.join(wanted)}."
        )


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MOST:
            raise MediaError(f"{path} is larger than {MOST} bytes; split it.")
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; check the path.") from None
    except UnicodeDecodeError as error:
        raise MediaError(
            f"{path} is not UTF-8 text at byte {error.start}; save it as UTF-8."
        ) from None


def _json_lines(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise MediaError(f"{path} line {number} is no JSON object; one a line was wanted.")
        yield row


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(min(sys.maxsize, 1 << 24))
    reader = csv.DictReader(
        io.StringIO(_text(path), newline=""), delimiter="\t" if path.suffix == ".tsv" else ","
    )
    try:
        for row in reader:
            if None in row or None in row.values():
                raise MediaError(
                    f"{path} line {reader.line_num} has another number of fields than its header; "
                    "put texts with commas in double quotes."
                )
            yield row
    except csv.Error as error:
        raise MediaError(f"{path} line {reader.line_num} is no CSV: {error}.") from None


def _parquet(path: Path) -> Iterator[Row]:
    try:
        pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise UsageError(
            f"{path} is Parquet, which needs pyarrow; type pip install 'unigen[data]', or give "
            "CSV or JSON lines."
        ) from None
    if not path.is_file():
        raise UsageError(f"{path} cannot be read: no such file; check the path.")
    try:
        yield from parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise MediaError(f"{path} is no readable Parquet file: {str(error)[:100]}.") from None
