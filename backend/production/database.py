"""Group commit: writers of one process that wait together share one transaction and one wait for the disk.

The textbook database commits each transaction by itself. With 2 processes of 8 threads it writes 2,000 to 4,000 small
transactions a second, and the longest wait is 600 to 700 ms. A fair queue alone (write_gate.py) lowers the rate to 500
to 1,700, because the lock moves between the processes at each turn. With groups the rate is 5,000 to 8,000, and the
longest wait is 20 to 80 ms. (Measured on 2 busy cores with a disk that takes 1 to 2 ms for a write.)

The first writer acquires the gate (write_gate.py) and begins a transaction on the write connection of the process.
Later writers wait in line. When the first block has ended, its thread passes the gate and the open transaction to the
head of the line, which works inside a SAVEPOINT, and so on. The thread that finds the line empty, or the group
OPEN_SECONDS old, commits for all. A lone writer pays for no savepoint and no wait.

Promised:
- A member sees the work of the members before it. No other connection sees any of it before COMMIT.
- A failing member rolls back to its savepoint but still waits for COMMIT: its error may depend on uncommitted writes.
- `busy_timeout` bounds the wait for gate and lock together. It also bounds the block's work: a longer statement is
  interrupted.
- A stuck lock leaves threads for reads. `max_waiters` threads wait for the whole `busy_timeout`. Others wait for a
  tenth of it; after a wait has timed out, they do not wait at all until the next group begins. A dedicated thread
  always waits for the whole `busy_timeout`.
- After the database file was deleted or replaced, reads and writes raise Unavailable.
- Checkpoints run under the gate, since only writers make them. This rules out SQLite's WAL-reset bug (3.7.0 to 3.51.2),
  except while two processes hold the gate because its file was deleted.
- A forked child has its own connections and gate, and does not touch its parent's.

Not promised: that the members of a group fail independently. If SQLite rolls back everything (disk full, I/O error,
interrupt) or COMMIT fails, every member gets Unavailable, and nothing is written.
"""

import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from weakref import WeakMethod

from backend.errors import Unavailable
from backend.infrastructure import database as core
from backend.infrastructure.database import Database, PerThread, Tx
from backend.production.write_gate import WriteGate

OPEN_SECONDS = 0.03  # for which a group admits members; then other processes have their turn
STEPS = 10_000  # of SQLite's virtual machine, about 0.2 ms, between two looks at the deadline
INHERITED: list[object] = []  # in a forked child: its parent's connections, which it must neither use nor close


class GroupCommitDatabase(Database):
    """Thread-safe. `busy_timeout` is in seconds; `clock` returns Unix time in seconds."""

    # These belong to the process; only the thread that holds the gate uses the group, the writer and the deadline.
    _group: "_Group | None"
    _writer: sqlite3.Connection | None
    _deadline: float  # monotonic; a statement that runs past it is interrupted
    _stuck: bool  # a wait for the gate has timed out, and no writer has begun since

    def __init__(
        self, path: Path, busy_timeout: float = 5.0, clock: Callable[[], float] = time.time, max_waiters: int = 4
    ) -> None:
        super().__init__(path, busy_timeout, clock)
        self._file, self._max_waiters = core.file_at(path), max_waiters
        self._begin_process()
        after_fork = WeakMethod(self._after_fork)
        os.register_at_fork(after_in_child=lambda: (method := after_fork()) and method())

    def version(self) -> tuple[sqlite3.Connection, int]:
        """Equal to this thread's previous one if nothing was committed in between. Raises Unavailable.

        Every lookup in the cache calls it, so it avoids the context manager of a block: 4 µs, not 6.
        """
        if self._thread.inside:
            raise RuntimeError("transactions do not nest")  # inside one, the version does not change
        try:
            connection = self._connection(query_only=True)
            return connection, connection.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error as error:
            self._check_fault(error)
            raise

    def dedicate_thread(self) -> None:
        """The calling thread serves no reads, so its transactions always wait for the whole `busy_timeout`."""
        self._dedicated.thread = True

    def close(self) -> None:
        """Close this thread's connection, and the write connection unless it is in use."""
        super().close()
        with suppress(OSError):  # of the gate
            if self._gate.acquire(0):
                try:
                    self._close_writer()
                finally:
                    self._gate.release()

    def empty_wal(self) -> None:
        with self._block():
            if not self._gate.acquire(0):
                return
            try:
                core.empty_wal(self._open_writer())
            except BaseException as error:
                self._end(error)
                raise
            self._end(None)

    @contextmanager
    def _write(self, seconds: float) -> Iterator[Tx]:
        asked = time.monotonic()
        group = self._join(seconds)
        began = time.monotonic()
        try:
            with self._member(group) as tx:
                yield tx
        finally:
            if not (group.is_open() and self._gate.pass_on()):
                self._settle(group)
            self._tell_listeners(asked, began)
            group.wait()

    def _join(self, seconds: float) -> "_Group":
        """Acquire the gate, and with it the open group or a new one. Raises Unavailable, sqlite3.Error."""
        end = time.monotonic() + seconds
        dedicated = hasattr(self._dedicated, "thread")
        has_place = not dedicated and self._places.acquire(blocking=False)
        if not (dedicated or has_place):
            seconds = 0.0 if self._stuck else min(seconds, self._busy_timeout / 10)
        try:
            if not self._gate.acquire(seconds):
                self._stuck = True
                raise Unavailable("Too many requests are waiting to write.")
            self._group = self._group or self._begin(end)
            self._stuck = False
            return self._group
        except (OSError, RuntimeError) as error:  # no descriptor, no thread, or no room for the gate's file
            core.log.warning("the write gate cannot be used: %s", error)
            raise Unavailable(core.UNAVAILABLE) from error
        finally:
            if has_place:
                self._places.release()

    def _begin(self, end: float) -> "_Group":
        """A new group. If it raises Unavailable or sqlite3.Error, the gate has been released."""
        try:
            writer = self._open_writer()
            core.set_busy_timeout(writer, end)
            writer.execute("BEGIN IMMEDIATE")
            return _Group(writer)
        except BaseException as error:
            self._end(error)
            raise

    @contextmanager
    def _member(self, group: "_Group") -> Iterator[Tx]:
        """One writer's block. If it raises, only its work is rolled back; if that fails, the group is lost."""
        group.members += 1
        writer, is_first = group.writer, group.members == 1
        try:
            if not is_first:  # a rollback of the first member undoes no other's work
                writer.execute("SAVEPOINT member")
            tx = Tx(writer, self.now())
            self._deadline = time.monotonic() + self._busy_timeout
            try:
                yield tx
            finally:
                tx.over, self._deadline = True, math.inf
            if not is_first:
                writer.execute("RELEASE member")
        except BaseException as error:
            group.lost = error
            if not (is_first or core.is_fault(error)):
                with suppress(sqlite3.Error):  # there is no savepoint if SQLite has rolled back everything
                    writer.execute("ROLLBACK TO member")
                    group.lost = None
            raise

    def _settle(self, group: "_Group") -> None:
        """Commit or roll back for all members."""
        try:
            if group.lost is None:
                self._check_file()
                group.writer.execute("COMMIT")
        except BaseException as error:  # also on MemoryError
            group.lost = error
        if group.lost is not None and group.members > 1:
            core.log.warning("the transactions of %d writers are lost: %r", group.members, group.lost)
        try:
            self._end(group.lost)
        finally:
            group.settled.release()

    def _end(self, error: BaseException | None) -> None:
        """Roll back if there is an `error`. Always release the gate: otherwise no process could write again."""
        try:
            broken = error is not None and core.is_broken(error)
            if self._writer is not None and (broken or not core.rolled_back(self._writer)):
                self._close_writer()
        finally:
            self._group = None
            self._gate.release()

    def _open_writer(self) -> sqlite3.Connection:
        """The write connection. Only for the thread that holds the gate."""
        self._check_file()
        self._writer = self._writer or self._connect_writer()
        return self._writer

    def _connect_writer(self) -> sqlite3.Connection:
        writer = core.connect(self._path, query_only=False)
        # In pages, four times the default. It gives an eighth more transfers under load and costs 16 MB of `-wal`.
        writer.execute("PRAGMA wal_autocheckpoint = 4000")
        writer.set_progress_handler(lambda: time.monotonic() > self._deadline, STEPS)
        return writer

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()  # the error of a failed commit may still refer to it
            self._writer = None

    def _connection(self, query_only: bool) -> sqlite3.Connection:
        self._check_file()
        return super()._connection(query_only)

    def _check_file(self) -> None:
        """Raises Unavailable unless the file of the start is at the path.

        Writes to a deleted file would be lost, and a file in its place would be read with the `-wal` of the old one.
        """
        if core.file_at(self._path) != self._file:
            raise Unavailable("The database file is not the one that was there at the start.")

    def _begin_process(self) -> None:
        self._thread, self._dedicated = PerThread(), threading.local()
        self._gate, self._places = WriteGate(self._path), threading.BoundedSemaphore(self._max_waiters)
        self._group, self._writer, self._deadline, self._stuck = None, None, math.inf, False

    def _after_fork(self) -> None:
        INHERITED.append((self._thread, self._writer))
        self._begin_process()


class _Group:
    """An open transaction and its members. Until it is settled, only the thread that holds the gate uses it."""

    def __init__(self, writer: sqlite3.Connection) -> None:
        self.writer = writer
        self.members = 0
        self.lost: BaseException | None = None  # why none of it is committed
        self.settled = threading.Lock()  # held until the group is settled; an Event takes 4 µs to make
        self.settled.acquire()
        self._until = time.monotonic() + OPEN_SECONDS

    def is_open(self) -> bool:
        return self.lost is None and time.monotonic() < self._until

    def wait(self) -> None:
        """Wait until it is settled. If it is lost, raises Unavailable, or the error itself if it had one member."""
        with self.settled:
            pass
        if self.lost is not None and self.members > 1:
            raise Unavailable(core.UNAVAILABLE) from self.lost
        if self.lost is not None:
            raise self.lost
