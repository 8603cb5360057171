"""How the checks of the exercises attack: the order of the threads is fixed, so a race is lost every time."""

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import pytest

from tests.lessons import Verdict

T = TypeVar("T")
PATIENCE = 30  # seconds


def expect(verdict: Verdict) -> None:
    """Show the verdict, and fail unless the invariant held."""
    if not verdict.holds:
        pytest.fail(verdict.says, pytrace=False)
    print(f"\n  {verdict.says}")


def database(path: Path, schema: str) -> sqlite3.Connection:
    """A new database with these tables."""
    db = sqlite3.connect(path)
    db.executescript(f"PRAGMA journal_mode = WAL; {schema}")
    return db


class Interrupted(sqlite3.Connection):
    """`meanwhile` is called after each read, before the next other statement: the moment between check and act."""

    meanwhile: Callable[[], object]
    has_read = False

    def execute(self, sql, parameters=()):
        reads = sql.lstrip().upper().startswith("SELECT")
        if self.has_read and not reads:
            self.meanwhile()
        self.has_read = reads
        return super().execute(sql, parameters)


def overtaken(path: Path, requests: Sequence[Callable[[sqlite3.Connection], T]]) -> list[T]:
    """The results of `requests`, each in a thread and on a connection of its own.

    A request that has read does not write before the next request has run, so with the naive code all of them read
    before the first one writes. A request that finds the database locked runs again after the others.
    """
    pending, results = list(requests), []

    def serve() -> None:
        if not pending:
            return
        request = pending.pop(0)
        with closing(sqlite3.connect(path, timeout=0, factory=Interrupted)) as db:
            db.meanwhile = lambda: in_thread(serve)
            try:
                results.append(request(db))
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                    raise
                pending.append(request)

    for _ in requests:
        in_thread(serve)
    return results


def in_thread(action: Callable[[], T]) -> T:
    """What `action` returns or raises in another thread, while this one waits."""
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(action())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return outcome.result(PATIENCE)
    except TimeoutError:
        if outcome.done():  # the action's own
            raise
        raise TimeoutError(
            f"A thread has waited for {PATIENCE} s, probably for a lock that another one holds."
        ) from None


def wait_for(condition: Callable[[], bool], looks: int = 100) -> bool:
    """Whether `condition` holds at one of so many looks. The time in which the process is stopped does not count."""
    for _ in range(looks):
        if condition():
            return True
        time.sleep(0.005)
    return False
