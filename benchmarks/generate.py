"""Text to image, video and audio, one sample: a cold process, a warm model, peak memory.

    python benchmarks/generate.py

cold: the whole command, from an empty process to files on disk. warm: the call and the writing of
its files in a process that has already answered once. Memory is the peak of resident memory that
the kernel reports for the process.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from table import line, machine, table

PROMPT = "a large red circle bounces, and a low hum"
WANT = ["image", "video", "audio"]


def cold(model: str | None) -> dict[str, float]:
    """Return wall seconds and peak megabytes of one command."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "unigen", "generate", PROMPT, f"want=[{','.join(WANT)}]"]
        command += [f"out={folder}"] + ([] if model is None else [f"model={model}"])
        start = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        error = child.stderr.read()
        _, status, used = os.wait4(child.pid, 0)
        took = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}:\n{error.decode()}")
    return {"seconds": took, "peak_mb": used.ru_maxrss / 1024}


def warm(model: str | None, repeats: int) -> dict[str, float]:
    """Return the median seconds of a call, of a call with its files, and peak megabytes."""
    command = [sys.executable, __file__, "--inside", "--repeats", str(repeats)]
    command += [] if model is None else ["--model", model]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def inside(name: str | None, repeats: int) -> dict[str, float]:
    """Time the calls in this process."""
    import unigen

    start = time.perf_counter()
    model = unigen.load(name)
    loading = time.perf_counter() - start
    calls, saved = [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(repeats + 1):
            start = time.perf_counter()
            (result,) = model.generate(WANT, {"text": PROMPT}, seeds=[seed])
            calls.append(time.perf_counter() - start)
            result.save(folder)
            saved.append(time.perf_counter() - start)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"load": loading, "first": calls[0], "call": statistics.median(calls[1:]),
            "call_and_files": statistics.median(saved[1:]), "peak_mb": used}  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a folder; the embedded model if left out")
    parser.add_argument("--repeats", type=int, default=7, help="warm calls")
    parser.add_argument("--cold", type=int, default=3, help="cold processes")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        line(inside(args.model, args.repeats))
        return
    line({"benchmark": "generate", "prompt": PROMPT, "want": WANT, **machine()})
    runs = [cold(args.model) for _ in range(args.cold)]
    hot = warm(args.model, args.repeats)
    rows = [{"case": "cold process", "seconds": statistics.median(r["seconds"] for r in runs),
             "peak_mb": max(r["peak_mb"] for r in runs)}]  # fmt: skip
    for name, key in (("import and load", "load"), ("first call", "first"), ("warm call", "call"),
                      ("warm call and files", "call_and_files")):  # fmt: skip
        rows.append({"case": name, "seconds": hot[key], "peak_mb": hot["peak_mb"]})
    for row in rows:
        line(row)
    table(rows)


if __name__ == "__main__":
    main()
