"""The connections that wait for their client, each until a deadline."""

import heapq
import selectors
import time
from collections.abc import Callable, Iterator
from operator import attrgetter

from backend.production.connection import Connection, Step

_since = attrgetter("waits_since")


class WaitingRoom:
    """Hands a connection to `advance` once its client has done something. One thread only.

    Whoever takes a connection out owns it alone. The poller may still know it, for most come back within the same
    turn of the loop, and then nothing is to be changed there; it has to be forgotten before another thread or nobody
    has it.
    """

    def __init__(self, poller: selectors.BaseSelector, advance: Callable[[Connection, Step], None]) -> None:
        self._poller = poller
        self._advance = advance
        self._waiting: set[Connection] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, conn: Connection, events: int, step: Step) -> None:
        """Take `step` with the connection as soon as one of `events` has happened."""
        conn.step = step
        self._waiting.add(conn)
        if conn.events != events:
            self.forget(conn)
            self._poller.register(conn, events, self._ready)
            conn.events = events

    def forget(self, conn: Connection) -> None:
        """Whatever its client does, the loop hears nothing of it."""
        if conn.events:
            self._poller.unregister(conn)
            conn.events = 0

    def take_out(self, conn: Connection) -> Connection:
        self._waiting.remove(conn)
        return conn

    def take_overdue(self) -> list[Connection]:
        """Those whose deadline has passed."""
        now = time.monotonic()
        return [self.take_out(conn) for conn in [conn for conn in self._waiting if conn.deadline <= now]]

    def take_longest(self, count: int) -> list[Connection]:
        """At most so many, those that have had us wait for longest: the newest may well be quite well-behaved.

        One that was idle and has just sent something is spared if few others have.
        """
        longest = heapq.nsmallest(8 * count, self._waiting, key=_since)
        longest.sort(key=lambda conn: conn.idle and conn.has_sent())
        return [self.take_out(conn) for conn in longest[:count]]

    def take_surplus(self, most: int) -> Iterator[Connection]:
        """Those that have had us wait for longest, until the rest has us hold no more than `most` bytes."""
        holders = sorted((conn for conn in self._waiting if conn.size), key=_since)
        surplus = sum(conn.size for conn in holders) - most
        for conn in holders:
            if surplus <= 0:
                return
            surplus -= conn.size
            yield self.take_out(conn)

    def hasten_idle(self, since: float, seconds: float) -> None:
        """A client between two requests has no more than so many seconds from then, or from when it last got on."""
        for conn in self._waiting:
            if conn.idle:
                conn.deadline = min(conn.deadline, max(since, conn.waits_since) + seconds)

    def _ready(self, conn: Connection) -> None:
        if conn in self._waiting:  # and was not taken out for another reason earlier in this turn of the loop
            self._advance(self.take_out(conn), conn.step)
