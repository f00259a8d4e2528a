"""The isolated child that reads a pickle of tensors: `python -m unigen.interop.unpickle IN OUT`.

IN and OUT are open files, by number. The child takes tensors only (torch's restricted unpickler),
can write no more than the tensors take, opens no network where the system allows to forbid it, and
hands back safetensors. What it says of a fault goes to standard error, one line.
"""

import os
import subprocess
import sys
import tempfile
from io import BufferedWriter
from pathlib import Path

from torch import Tensor

from unigen.disk import named, reading
from unigen.errors import CheckpointError
from unigen.tensorfile import read_weights

MAX_BYTES, SECONDS = 16 << 30, 600
_SPARE = 16 << 20  # of the output over the input: a header
_INNER = ("state_dict", "model", "module")  # under which a training checkpoint keeps its tensors
_PASSED = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL")


def read_pickle(path: Path, root: Path) -> dict[str, Tensor]:
    """Return the named tensors of a `.bin`, `.pth` or `.ckpt` file; nothing of it runs here.

    Raises CheckpointError for a file that holds anything but tensors, or is damaged or too large.
    """
    with reading(path, root, MAX_BYTES) as (file, size), tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "tensors.safetensors"
        with target.open("wb") as out:
            fault = _run(file.fileno(), out, size)
        if fault is not None:
            raise CheckpointError(f"{named(path)} was not read: {fault}")
        return read_weights(target, foreign=True)[0]


def _run(source: int, out: BufferedWriter, size: int) -> str | None:
    """Start the child and wait; return what went wrong, in words."""
    root = str(Path(__file__).parents[2])
    env = {key: os.environ[key] for key in _PASSED if key in os.environ}
    env |= {"PYTHONPATH": os.pathsep.join([root, *map(os.path.abspath, filter(None, sys.path))])}
    command = [sys.executable, "-P", "-B", "-m", "unigen.interop.unpickle"]
    try:
        done = subprocess.run(
            [*command, str(source), str(out.fileno()), str(size)], env=env, cwd="/",
            pass_fds=[source, out.fileno()], stdin=subprocess.DEVNULL, capture_output=True,
            start_new_session=True, check=False, timeout=SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"it took more than {SECONDS} s."
    if done.returncode == 0:
        return None
    lines = done.stderr.decode("ascii", "replace").strip().splitlines()
    said = lines[-1][:300] if lines and done.returncode == 4 else None
    return said or f"its reader stopped (exit code {done.returncode})."


def _confine(size: int) -> None:
    """Give up what reading tensors does not need."""
    from unigen.media.worker import confine

    confine(memory=3 * size + (4 << 30), output=size + _SPARE)


def _main(source: int, target: int, size: int) -> int:
    import torch
    from safetensors.torch import save

    from unigen.registry import shown

    _confine(size)
    try:
        with os.fdopen(source, "rb") as file:
            held = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the unpickler finds wrong, the file is not wanted
        first = str(error).partition("\n")[0] or type(error).__name__
        return _say(f"it holds more than tensors, or is damaged ({ascii(first)[1:-1][:160]}).")
    for name in _INNER:
        if isinstance(held, dict) and isinstance(held.get(name), dict):
            held = held[name]
    if not isinstance(held, dict):
        return _say(f"it holds a {type(held).__name__}; a dict of tensors was wanted.")
    tensors = {k: v for k, v in held.items() if isinstance(v, torch.Tensor)}
    if wrong := [k for k in tensors if not isinstance(k, str)]:
        return _say(f"it names a tensor {shown(wrong[0])}.")
    with os.fdopen(target, "wb") as out:
        out.write(save({k: v.detach().clone().contiguous() for k, v in tensors.items()}))
    return 0


def _say(fault: str) -> int:
    sys.stderr.write(f"{fault}\n")
    return 4


if __name__ == "__main__":
    sys.exit(_main(*(int(word) for word in sys.argv[1:4])))
