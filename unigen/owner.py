"""A run's folder has one owner: the process that trains in it.

Nothing heavy is imported here, so that a second run is refused before torch is loaded.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from unigen.disk import FOLDER_MODE, held, named, real_path, writing
from unigen.errors import UsageError


@contextmanager
def lock(run: str | Path) -> Iterator[None]:
    """Hold a run folder for this process; `UsageError` where another process holds it."""
    run = real_path(run)
    with ExitStack() as stack:
        with writing(run):
            run.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            try:
                stack.enter_context(held(run / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW))
            except BlockingIOError as error:
                raise UsageError(
                    f"{named(run)} is used by another run; wait for it, or choose another folder."
                ) from error
        yield


def refuse_clock(run: str) -> None:
    """Raise `UsageError` where torchrun may start a run again whose folder the clock names.

    run: the path before the clock is read.
    """
    restarts = os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")
    if restarts != "0" and "${now:" in run:
        raise UsageError(
            f"torchrun --max-restarts={restarts} would begin anew in another folder each time, "
            "since out= is named by the clock; type out=runs/<name>."
        )


def refuse_owned(run: str | Path) -> None:
    """Raise `UsageError` where another process holds a run folder; where none does, make nothing.

    Of a team only process 0 asks, since it may be the owner already when the others come.
    """
    if os.environ.get("RANK", "0") == "0" and (real_path(run) / ".lock").exists():
        with lock(run):
            pass
