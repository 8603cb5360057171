"""A lease: the right to do what only one process at a time may do, as a row that its holder must keep renewing.

Whoever finds the row lapsed writes himself into it; of several at once, the write lock makes one the first. `hold()` is
asked before each piece of work. It renews the lease every RENEW_SECONDS and promises it for WORK_SECONDS more, so work
that takes no longer never overlaps a successor's. A holder that was killed, or hangs, is followed after LEASE_SECONDS.

The time is CLOCK_MONOTONIC: all processes of the machine share it, and nobody can set it, so the wall clock may jump.
It begins anew when the machine does; an end further off than a lease can be is from before that, and has lapsed.

Not promised: a process that is stopped in the middle of its work (SIGSTOP) and goes on later finishes that piece beside
its successor. Leases are for work that may happen twice.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from backend.errors import Unavailable
from backend.infrastructure.database import Database
from backend.infrastructure.ids import new_id

log = logging.getLogger(__name__)

LEASE_SECONDS = 8.0
RENEW_SECONDS = 2.0
WORK_SECONDS = LEASE_SECONDS - RENEW_SECONDS


class Lease:
    """One holder's view of the lease `name`. Thread-safe: the threads that share it hold it together."""

    def __init__(self, database: Database, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._name = name
        self._holder = new_id()
        self._clock = clock
        self._lock = threading.Lock()  # guards _renew_at; one thread renews for all
        self._renew_at = -math.inf

    def hold(self) -> bool:
        """Whether the lease is ours for WORK_SECONDS from now. Not if the database cannot say. Outside transactions."""
        with self._lock:
            if self._clock() < self._renew_at:
                return True
            try:
                return not self._is_anothers() and self._take()
            except Unavailable:
                return False
            except Exception:
                log.exception("unforeseen error")
                return False

    def release(self) -> None:
        """Let the next one have it at once, not only when it lapses."""
        with self._lock:
            if self._renew_at > -math.inf:
                self._renew_at = -math.inf
                with suppress(Exception), self._database.transaction() as tx:  # it lapses anyway
                    tx.run("DELETE FROM leases WHERE name = :name AND holder = :h", name=self._name, h=self._holder)

    def _is_anothers(self) -> bool:
        """A look that writes nothing: those who wait for the lease ask once a second."""
        with self._database.snapshot() as tx:
            row = tx.row("SELECT holder, expires_at FROM leases WHERE name = :name", name=self._name)
        return row is not None and row[0] != self._holder and 0 < row[1] - self._clock() * 1000 <= LEASE_SECONDS * 1000

    def _take(self) -> bool:
        with self._database.transaction() as tx:
            now = self._clock()
            taken = tx.run(
                """INSERT INTO leases (name, holder, expires_at) VALUES (:name, :holder, :end)
                   ON CONFLICT (name) DO UPDATE SET holder = :holder, expires_at = :end
                   WHERE leases.holder = :holder OR leases.expires_at <= :now OR leases.expires_at > :end""",
                name=self._name, holder=self._holder, now=int(now * 1000), end=int((now + LEASE_SECONDS) * 1000),
            )  # fmt: skip
        self._renew_at = now + RENEW_SECONDS if taken else -math.inf
        return self._clock() < self._renew_at  # a slow disk may have used it up
