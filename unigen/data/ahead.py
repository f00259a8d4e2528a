"""Read ahead: results of the next steps are made by threads while a step is computed."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar, cast

T = TypeVar("T")


class Ahead(Generic[T]):
    """Call `make(step)`, a function of the step alone, before its result is asked for.

    With any number of workers the results are the same; so are errors, which come up at the step
    they belong to.
    """

    def __init__(self, make: Callable[[int], T], workers: int = 0):
        """workers: threads; 0 makes each result when it is asked for."""
        self.make, self.workers = make, workers
        self.pool = ThreadPoolExecutor(workers, "reader") if workers else None
        self.coming: dict[int, Future[T]] = {}

    def __call__(self, step: int) -> T:
        """Return the result of a step, and have the next ones made."""
        if self.pool is None:
            return self.make(step)
        following = range(step + 1, step + self.workers + 1)
        for other in [k for k in self.coming if k not in (step, *following)]:
            self.coming.pop(other).cancel()
        ready = self.coming.pop(step, None)
        first = None if ready else self.make(step)  # the very first is made before the others
        for other in following:
            if other not in self.coming:
                self.coming[other] = self.pool.submit(self.make, other)
        return ready.result() if ready else cast(T, first)

    def close(self) -> None:
        """Stop reading; what is under way ends first."""
        self.coming.clear()
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)
