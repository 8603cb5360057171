"""Housekeeping: deletes the rows that no request needs any more.

The core ignores what has expired and does not delete it, because deleting is work on a request's path. So its tables
grow for ever: 10,000 users that refresh their tokens once a day leave 3.7 million tokens a year, of which 70,000
live. One unbounded DELETE of them would hold the only write lock for a minute.

Each worker has a thread for it. The one that holds the lock on the file `app.db-housekeeping` works: a round every
ROUND_SECONDS, in which it deletes BATCH rows at a time and pauses between batches. The others try to lock the file
every LOOK_SECONDS; the kernel frees the lock when its holder is killed. A round that fails (disk full, the write lock
stays busy) is a WARNING. Its thread then gives up the lock for ROUND_SECONDS, so that another worker may try.

What is deleted, and when:

  refresh tokens        they have expired
  sessions              30 days after the login. None lives longer; until then an ended one shows a known client
  password resets       half an hour after the request, used or not
  reset requests        after a week, if the relay could not look them up
  idempotency keys      after 24 hours
  outbox                a week after the event, unless it is still owed; with its mail and its dead letters
  cache invalidations   all but the last 10,000
  audit                 after AUDIT_KEEP_DAYS; never if that is not set
  mails in `outbox/`    development's files, after 30 days

It also empties the `-wal` when that is above its limit, as after a read of minutes: SQLite alone would do so in the
commit of a request, and not before one comes.

Promised: a batch finds its rows without reading others, however large the tables are. It takes at most 3 ms of CPU and
one write to the disk, so it holds the write lock for less than 5 ms if the disk takes 2. No deleted row would have been
accepted by a request at that time. Two threads that work at once, because the lock file was deleted, share the work.

Measured over a simulated year of 10,000 users and a million transfers (`tests/operations/simulated_year.py`): no dead
row is left. A batch holds the write lock for 0.4 ms (median), 1.7 ms (95 %); 1.3 % wait for the disk for more than 5.
Of 142,000 transfers beside it, half take 1.0 ms, 99.9 % less than 14, the longest 28; without it 1.0, 11 and 27.

Trusted: the wall clock, as everywhere. A row goes by the times that are stored in it. While the clock is a year ahead,
all logins have expired for requests, too, and they are deleted; while it is behind, nothing is.

Not promised: that the database file becomes smaller. SQLite uses the free pages again; VACUUM would lock writers out.
"""

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from backend.errors import Unavailable
from backend.infrastructure.database import WAL_LIMIT, Database, Tx
from backend.infrastructure.disk_space import size_of
from backend.infrastructure.migrations import locked
from backend.repositories import cache_invalidations, idempotency_keys, oldest, outbox, sessions
from backend.services.credentials import RESET_LIFETIME
from backend.services.idempotency import LIFETIME
from backend.services.logins import KNOWN_FOR
from backend.services.rotation import LOGIN_SECONDS
from backend.settings import Settings

ROUND_SECONDS = 60.0
LOOK_SECONDS = 2.0  # between two tries to become the one that works
BATCH = 50  # rows; of the most expensive table, sessions, 25 take 1.4 ms of CPU
PAUSE_SECONDS = 0.02  # between two batches, for other writers
STOP_SECONDS = 1.0
DAY = 86_400_000  # milliseconds
SESSIONS_KEPT = max(KNOWN_FOR, LOGIN_SECONDS * 1000)
REQUESTS_KEPT = EVENTS_KEPT = 7 * DAY
INVALIDATIONS_KEPT = 10_000  # rows; a cache that has missed older ones drops everything
FILES_KEPT = 30 * DAY

log = logging.getLogger(__name__)


class Housekeeping:
    """Its thread runs from `start()` to `stop()`. The database's clock decides what is old."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._path = settings.database_path
        self._database = database
        kept = settings.audit_keep_days
        self._chores: dict[str, Callable[[Tx], int]] = {
            "refresh tokens": lambda tx: sessions.prune_tokens(tx, tx.now // 1000, BATCH),
            # After the tokens: those that are left are deleted with their session.
            "sessions": lambda tx: oldest.prune(tx, "sessions", tx.now - SESSIONS_KEPT, BATCH),
            "password resets": lambda tx: oldest.prune(tx, "password_resets", tx.now - RESET_LIFETIME, BATCH),
            "reset requests": lambda tx: oldest.prune(tx, "reset_requests", tx.now - REQUESTS_KEPT, BATCH),
            "idempotency keys": lambda tx: idempotency_keys.prune(tx, tx.now - LIFETIME, BATCH),
        }
        if kept is not None:
            self._chores["audit"] = lambda tx: oldest.prune(tx, "audit", tx.now - kept * DAY, BATCH)
        self._stopping = threading.Event()
        self._starting = threading.Lock()  # guards _thread
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread. Idempotent. If the system refuses one, the next call asks for it again."""
        with self._starting:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)
                try:
                    thread.start()
                except (RuntimeError, MemoryError):
                    log.exception("housekeeping cannot start a thread")
                else:
                    self._thread = thread

    def stop(self) -> None:
        """Begin no further batch, and free the lock. Idempotent."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    def tidy(self) -> dict[str, int]:
        """One round, unless `stop()` ends it. Returns and logs how many rows it deleted, by kind.

        Raises Unavailable, OSError.
        """
        deleted: Counter[str] = Counter()
        try:
            for kind, count in self._batches():
                deleted[kind] += count
                if self._stopping.wait(PAUSE_SECONDS):
                    break
        finally:
            deleted = +deleted  # without the zeros
            if deleted:
                log.info("deleted %s", ", ".join(f"{count} {kind}" for kind, count in deleted.items()))
        return deleted

    @contextmanager
    def elected(self) -> Iterator[Callable[[], bool]]:
        """Yields a function that is called before each round: whether this worker still is the one that works."""
        with holding(self._path.with_name(f"{self._path.name}-housekeeping")) as is_mine:
            yield lambda: is_mine

    def engine_batches(self) -> Iterator[tuple[str, int]]:
        """The steps that only SQLite needs."""
        kept = INVALIDATIONS_KEPT
        yield from self._pruned("cache invalidations", lambda tx: cache_invalidations.prune(tx, kept, BATCH))
        if size_of(self._path.with_name(f"{self._path.name}-wal")) > WAL_LIMIT:
            self._database.empty_wal()

    def _batches(self) -> Iterator[tuple[str, int]]:
        """Do the work, a step between two results: what was deleted, and how many of it."""
        for kind, prune in self._chores.items():
            yield from self._pruned(kind, prune)
        after, ended = 0, False
        while not ended:  # walks over events that are still owed, of which there may be many
            with self._database.transaction() as tx:
                count, after = outbox.prune(tx, tx.now - EVENTS_KEPT, after, BATCH)
            ended = after == 0
            yield "events", count
        yield "mails", delete_files(self._path.parent / "outbox", self._database.now() - FILES_KEPT)
        yield from self.engine_batches()

    def _pruned(self, kind: str, prune: Callable[[Tx], int]) -> Iterator[tuple[str, int]]:
        count = BATCH
        while count == BATCH:
            with self._database.transaction() as tx:
                count = prune(tx)
            yield kind, count

    def _run(self) -> None:
        """The body of the thread. No error ends it before `stop()`."""
        self._database.dedicate_thread()
        while not self._stopping.is_set():
            pause = LOOK_SECONDS
            try:
                with self.elected() as is_mine:
                    while not self._stopping.is_set() and is_mine():
                        self.tidy()
                        self._stopping.wait(ROUND_SECONDS)
            except Exception as error:
                expected = isinstance(error, Unavailable | OSError)
                log.warning("housekeeping will try again: %s", error, exc_info=None if expected else error)
                pause = ROUND_SECONDS
            self._stopping.wait(pause)
        self._database.close()


@contextmanager
def holding(path: Path) -> Iterator[bool]:
    """Whether no other process holds the lock on the file. If so, this one holds it during the block."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield locked(descriptor)
    finally:
        os.close(descriptor)


def delete_files(folder: Path, until: int) -> int:
    """Delete the mails in the folder, if there is one, that were last written at or before `until` (milliseconds)."""
    old = [mail for mail in folder.glob("*.txt") if mail.stat().st_mtime * 1000 <= until]
    for mail in old:
        mail.unlink(missing_ok=True)
    return len(old)
