"""Group commit: the waiting writers of a process share one BEGIN IMMEDIATE, one COMMIT, and so one wait for the disk.

Who comes first passes the gate (`write_gate.py`) and begins a transaction on the one connection that the process has
for writing. Others come while he works, and wait at the gate. When he is done he does not commit: he hands the gate on,
and with it the connection and the open transaction, to whoever has waited longest, who works inside a SAVEPOINT, and
so on. Who finds nobody waiting any more, or the group OPEN_SECONDS old, commits for all and opens the gate. Only
then do they all go on, each with what he wanted to do after the commit. A thread is in a group at most once, for it
waits for the commit; so a group is no larger than the number of threads. A writer who is alone notices none of this.

Promised: each member sees the work of those before him, and nobody else sees any of it before the COMMIT. A member that
raises is rolled back alone. He too waits for the COMMIT: what he refuses, or does not find, may follow from what those
before him have done, so nobody must hear of it unless that is on disk.

Not promised: that one member's misfortune is his alone. What SQLite answers by rolling back everything (disk full, an
input or output error, interrupted at the deadline), or a COMMIT that fails, fails them all: each gets Unavailable, and
nothing of any is written.
"""

import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from weakref import WeakMethod

from backend.domain import Timestamp
from backend.errors import Unavailable
from backend.infrastructure.connections import Connection
from backend.infrastructure.database_faults import is_broken, is_fault
from backend.infrastructure.transaction import Tx
from backend.infrastructure.write_gate import WriteGate

OPEN_SECONDS = 0.03  # then other processes have their turn


class GroupCommit:
    """The writers of a process. Thread-safe."""

    def __init__(
        self, gate: WriteGate, connect: Callable[[], Connection], check_file: Callable[[], None],
        now: Callable[[], Timestamp],
    ) -> None:  # fmt: skip
        self._gate = gate
        self._connect = connect
        self._check_file = check_file
        self._now = now
        self._begin()
        begin = WeakMethod(self._begin)
        os.register_at_fork(after_in_child=lambda: (again := begin()) and again())

    def _begin(self) -> None:
        """Nobody writes: true at the start, and after a fork, where those who did are the parent's threads."""
        self._connection: Connection | None = None  # this and the group are the gate's holder's
        self._group: _Group | None = None
        self._mine = threading.local()

    @property
    def inside(self) -> bool:
        """Whether this thread is in a transaction."""
        return getattr(self._mine, "inside", False)

    @contextmanager
    def transaction(self, at_most: float = math.inf, patient: bool = False) -> Iterator[Tx]:
        """All or nothing; `actions` are left to the caller. Raises sqlite3.Error, Unavailable.

        It waits `busy_timeout` for the lock, and no longer than `at_most` seconds; `patient` is the gate's.
        """
        group = self._joined(at_most, patient)
        self._mine.inside = True
        try:
            with group.member(self._now) as tx:
                yield tx
        finally:
            self._mine.inside = False
            self._part(group)

    def close(self) -> None:
        """Close the connection, unless somebody uses it; the next use opens another."""
        with suppress(OSError):
            if self._connection is not None and self._gate.lock.acquire(0):  # and so no group is open
                self._drop()
                self._gate.lock.release()

    def _joined(self, at_most: float, patient: bool) -> "_Group":
        """The open group, or a new one, with the gate ours."""
        with self._gate.entered(at_most, patient) as seconds_left:
            if self._group is None:
                self._group = self._opened(seconds_left)
            self._group.connection.deadline = time.monotonic() + self._gate.busy_timeout + seconds_left
            return self._group

    def _opened(self, seconds_left: float) -> "_Group":
        self._check_file()  # it may have gone while we waited
        if self._connection is None:
            self._connection = self._connect()
        try:
            self._connection.wait_for_lock(seconds_left)
            self._connection.sqlite.execute("BEGIN IMMEDIATE")
            return _Group(self._connection)
        except BaseException as error:
            if is_broken(error) or not is_fault(error):  # in want of memory too: it may have begun
                self._drop()
            raise

    def _part(self, group: "_Group") -> None:
        """Hand the gate on, or commit for all; either way it is committed when this returns."""
        if group.is_open() and self._gate.lock.pass_on():
            group.wait()
        else:
            self._commit(group)

    def _commit(self, group: "_Group") -> None:
        try:
            if group.lost is None:
                self._check_file()
                group.connection.sqlite.execute("COMMIT")
        except BaseException as error:
            group.lost = error
            raise
        finally:
            try:
                self._let_go(group)
            finally:  # even if the connection is lost: kept shut, the gate would end all writing
                self._group = None
                self._gate.lock.release()
                group.settle()

    def _let_go(self, group: "_Group") -> None:
        sound, group.connection.deadline = False, math.inf
        try:
            with suppress(sqlite3.Error):
                if group.connection.sqlite.in_transaction:  # not so after SQLITE_FULL, which has rolled back by itself
                    group.connection.sqlite.execute("ROLLBACK")
                sound = not is_broken(group.lost)
        finally:
            if not sound:  # in want of memory too: still in its transaction, it would end all writing
                self._drop()

    def _drop(self) -> None:
        """Close the connection, whatever still refers to it; the next group opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class _Group:
    """An open transaction and those who share it; only the gate's holder touches it, until it is settled."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.lost: BaseException | None = None  # why nothing of it will be committed
        self._until = time.monotonic() + OPEN_SECONDS
        self._members = 0
        self._settled = threading.Lock()  # shut until then; an Event would take five times as long
        self._settled.acquire()

    @contextmanager
    def member(self, now: Callable[[], Timestamp]) -> Iterator[Tx]:
        """One member's work: what he has written is undone if the block raises, and only that if it can be."""
        sqlite, self._members = self.connection.sqlite, self._members + 1
        alone = self._members == 1  # needs no savepoint: if he fails there is nobody else's work to be kept
        tx = Tx(sqlite, now())  # with the lock: times follow the order of commits
        try:
            if not alone:
                sqlite.execute("SAVEPOINT member")
            yield tx
            if not alone:
                sqlite.execute("RELEASE member")
        except BaseException as error:
            self.connection.deadline = math.inf
            self.lost = error
            if not (alone or is_fault(error)):
                self._undo()
                self.lost = None
            raise
        finally:
            tx.end()

    def _undo(self) -> None:
        """Raises Unavailable if there is no transaction any more: then nothing is so that he may have refused for."""
        try:
            self.connection.sqlite.execute("ROLLBACK TO member")
            self.connection.sqlite.execute("RELEASE member")
        except sqlite3.Error as error:
            raise Unavailable("The database cannot do this just now.") from error

    def is_open(self) -> bool:
        return self.lost is None and time.monotonic() < self._until

    def settle(self) -> None:
        self._settled.release()

    def wait(self) -> None:
        """Until it is settled. Raises Unavailable if nothing was committed."""
        with self._settled:  # and open again for the next who waits
            pass
        if self.lost is not None:
            raise Unavailable("The database cannot do this just now.") from self.lost
