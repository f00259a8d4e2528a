"""What every benchmark prints: JSON lines on standard output, a small table on standard error."""

import json
import platform
import sys
from pathlib import Path


def machine() -> dict:
    """Return what a number depends on: processor, threads, versions."""
    import torch

    processor, facts = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if facts.is_file():
        names = [line for line in facts.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].partition(":")[2].strip() if names else processor
    return {"processor": processor, "threads": torch.get_num_threads(), "torch": torch.__version__,
            "python": platform.python_version()}  # fmt: skip


def line(row: dict) -> None:
    """Print one JSON line at once."""
    print(json.dumps(row), flush=True)


def scored(row: dict, shares: dict, columns: tuple[str, ...]) -> dict:
    """Print a line with the estimates of `shares` (metrics.Draws) and return its row of a table."""
    line(row | {key: draws.estimate() for key, draws in shares.items()})
    values = {key: f"{draws.values[0]:.3f}" for key, draws in shares.items()}
    return row | {key: values.get(key, "-") for key in columns}


def table(rows: list[dict]) -> None:
    """Print rows with the same keys as a table."""
    if not rows:
        return
    cells = [[str(key) for key in rows[0]], *([_cell(row[key]) for key in rows[0]] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    for row in cells:
        text = "  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True))
        print(text, file=sys.stderr)


def _cell(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
