"""What a training run and its data survive, by breaking them: kills, NaN, full disks, bad files.

    python benchmarks/faults.py                # all checks at their full counts: 17 min on 2 cores
    python benchmarks/faults.py A7 B1 --share 0.1

Prints one JSON line a check: {"id", "what", "n", "good", "limit", "seconds", "pass"}; `seconds` are
the longest that something took and the most that it may. Runs are those of `unigen train`, with a
small model, most of them in processes of their own. The same checks at small counts, without the
times, are tests (tests/test_faults.py).
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import faults_shared  # noqa: F401  it opens tests/, where media are broken in known ways
from faults_data import b1, b2, b3, b4, b5
from faults_interrupts import a13
from faults_saved import a1, a2, a3, a10
from faults_training import a4, a5, a6, a7, a8, a9, a12

CHECKS = {"A1": (a1, 50), "A2": (a2, 20), "A3": (a3, 100), "A4": (a4, 12), "A5": (a5, 5),
          "A6": (a6, 3), "A7": (a7, 10), "A8": (a8, 5), "A9": (a9, 6), "A10": (a10, 20),
          "A12": (a12, 3), "A13": (a13, 40), "B1": (b1, 1000), "B2": (b2, 7), "B3": (b3, 5),
          "B4": (b4, 5), "B5": (b5, 12)}  # fmt: skip


def main() -> int:
    """Run the checks that were asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checks", nargs="*", help=f"some of {' '.join(CHECKS)}; none: all")
    parser.add_argument("--share", type=float, default=1.0, help="of the full count of each")
    args = parser.parse_args()
    passed = True
    for name in args.checks or CHECKS:
        check, n = CHECKS[name]
        folder = Path(tempfile.mkdtemp(prefix=f"unigen-{name}-"))
        passed &= check(folder, max(1, round(n * args.share)))["pass"]
        shutil.rmtree(folder)
    return not passed


if __name__ == "__main__":
    sys.exit(main())
