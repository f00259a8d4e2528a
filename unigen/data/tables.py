"""Tables from files: JSON lines, CSV (or TSV) and Parquet, as dicts by row."""

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from unigen.errors import MediaError, UsageError

MOST = 1 << 31  # bytes of a table or an index
Row = dict[str, Any]
Lines = Iterator[tuple[int, Row]]  # rows by number of line


def read_table(path: str | Path, need: Sequence[str] = ()) -> list[Row]:
    """Return the rows of a .jsonl, .csv, .tsv or .parquet file, each with the columns needed.

    Raises UsageError for a missing file or column or another suffix, MediaError for a broken one.
    """
    path = Path(path)
    kinds = {".jsonl": _json_lines, ".csv": _csv, ".tsv": _csv, ".parquet": _parquet}
    if path.suffix not in kinds:
        raise UsageError(f"{path} is no table; give a file of {', '.join(kinds)}.")
    rows = []
    for line, row in kinds[path.suffix](path):
        missing = [name for name in need if name not in row]
        if missing:
            raise UsageError(
                f"{path} line {line} has no column {missing[0]!r}; it has "
                f"{', '.join(map(str, row))}, and wanted are {', '.join(need)}."
            )
        rows.append(row)
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


def _json_lines(path: Path) -> Lines:
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise MediaError(f"{path} line {number} is no JSON object; one a line was wanted.")
        yield number, row


def _csv(path: Path) -> Lines:
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
            yield reader.line_num, row
    except csv.Error as error:
        raise MediaError(f"{path} line {reader.line_num} is no CSV: {error}.") from None


def _parquet(path: Path) -> Lines:
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
        yield from enumerate(parquet.read_table(path).to_pylist(), 1)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise MediaError(f"{path} is no readable Parquet file: {str(error)[:100]}.") from None
