"""`/readyz` answers within a second, although a check of a database behind a dead link takes ten times as long.

The checks run in a thread of their own, one run at a time. A probe waits for the present run for CHECK_SECONDS, and
then reports that the checks take too long. The run goes on, and ends when the database's own limits end it.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

CHECK_SECONDS = 0.8
LATE = {"database": "The checks take too long."}

Problems = dict[str, str]  # by the failing check's name


class InTime:
    """A call returns what `check` returns, or LATE. Used by one thread at a time."""

    def __init__(self, check: Callable[[], Problems]) -> None:
        self._check = check
        self._thread = ThreadPoolExecutor(1, "readiness")
        self._run: Future[Problems] | None = None

    def __call__(self) -> Problems:
        try:
            if self._run is None or self._run.done():
                self._run = self._thread.submit(self._check)
            return self._run.result(CHECK_SECONDS)
        except TimeoutError:
            return LATE
