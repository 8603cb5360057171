"""When the database is busy, full or broken: Unavailable, nothing written, and the next use works again."""

import os
import queue
import resource
import sqlite3
import tempfile
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from backend.errors import Unavailable
from backend.infrastructure.database import Database
from tests.at_once import at_once
from tests.forked import Forked
from tests.watching import descriptors_of

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # 3.12: we fork beside threads on purpose

BUDGET = 0.15  # seconds


@pytest.fixture
def database(make_database):
    return make_database(busy_timeout=BUDGET)


def count(database):
    with database.snapshot() as tx:
        return tx.row("SELECT count(*) FROM notes")[0]


def mark(verb):
    """Mark the connection by a setting that lasts until it closes."""
    with verb() as tx:
        tx.rows("PRAGMA cache_size = 777")


def is_marked(verb):
    """Whether it is the marked connection."""
    with verb() as tx:
        return tx.row("PRAGMA cache_size") == (777,)


def test_a_writer_that_waits_too_long_for_another_program_gets_unavailable_with_retry_after(
    statements, database, outsider, write
):
    """Unavailable comes when the busy timeout is over, and not after SQLite's own 5 s.

    Reads work meanwhile, and writes once the outsider is done."""
    outsider.execute("BEGIN IMMEDIATE")
    outsider.execute("INSERT INTO notes (text) VALUES ('a')")
    began = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        write("b")
    assert time.monotonic() - began >= BUDGET
    assert statements.busy_timeouts()[-1] <= BUDGET * 1000
    assert int(caught.value.headers["Retry-After"]) >= 1
    with pytest.raises(Unavailable):
        database.check_writable()
    assert count(database) == 0
    outsider.execute("COMMIT")
    write("b")
    assert count(database) == 2


def test_a_writer_waits_for_a_short_transaction_of_another_program(make_database, notes_path):
    database = make_database(busy_timeout=30)
    outsider = sqlite3.connect(notes_path, isolation_level=None, check_same_thread=False)
    outsider.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.05, outsider.close)
    timer.start()
    database.check_writable()
    timer.join()


def test_a_transaction_can_have_a_shorter_timeout(make_database, outsider):
    """Behind another program, and behind a thread of this process."""
    database, began = make_database(busy_timeout=3600), time.monotonic()
    outsider.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable):
        database.check_writable(at_most=0.05)
    outsider.execute("ROLLBACK")
    with database.transaction(), pytest.raises(Unavailable):
        at_once([lambda: database.check_writable(at_most=0.05)])
    database.check_writable(at_most=0.05)
    assert time.monotonic() - began < 600


def test_a_writer_delays_others_no_longer_than_their_timeout(database, make_database):
    """Writers of the same `Database` and of another. The holder's write is committed."""
    refused: queue.Queue[BaseException] = queue.Queue()
    other = make_database(busy_timeout=BUDGET)

    def write_elsewhere(by: Database) -> None:
        try:
            by.check_writable()
        except Unavailable as error:
            refused.put(error)
        finally:
            by.close()

    with database.transaction() as tx:
        tx.run("INSERT INTO notes (text) VALUES ('a')")
        threads = [threading.Thread(target=write_elsewhere, args=(by,)) for by in (database, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert refused.qsize() == 2
    assert count(database) == 1
    other.check_writable()


def test_a_full_disk_writes_nothing_and_later_writes_work(database, write):
    """SQLite has already rolled back. The connection stays open, because closing the last one would delete the `-shm`.

    (The test limits the file's size through the connection.)
    """
    write("a")
    mark(database.snapshot)
    mark(database.transaction)
    with pytest.raises(Unavailable), database.transaction() as tx:
        tx.rows("PRAGMA max_page_count = 8")
        tx.run("INSERT INTO notes (text) VALUES ('b')")
        tx.run("INSERT INTO notes (text) VALUES (:long)", long="x" * 100_000)
    assert count(database) == 1
    with database.transaction() as tx:
        tx.rows("PRAGMA max_page_count = 1000")
        tx.run("INSERT INTO notes (text) VALUES (:long)", long="b" * 100_000)
    assert count(database) == 2
    assert is_marked(database.snapshot)
    assert is_marked(database.transaction)


def test_a_file_that_is_no_database_is_distinguished_from_a_wrong_statement(tmp_path, make_database, database):
    """The file is Unavailable; the statement raises its own error, because it would fail again."""
    (tmp_path / "text.db").write_text("this is no database " * 100)
    broken = make_database(tmp_path / "text.db")
    for _ in range(3):
        with pytest.raises(Unavailable), broken.snapshot() as tx:
            tx.rows("SELECT * FROM notes")
    assert descriptors_of(tmp_path / "text.db") == 0
    with pytest.raises(sqlite3.OperationalError, match="no such table"), database.snapshot() as tx:
        tx.rows("SELECT * FROM nowhere")


def test_a_read_only_database_can_be_read_and_not_written(database_class):
    """A database of another user, in a folder without write access: writing is Unavailable and changes no byte."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "notes.db"
        Path(folder).chmod(0o755)
        holder = sqlite3.connect(path, isolation_level=None)  # while it is open, the -wal and -shm are there to be read
        holder.execute("PRAGMA journal_mode = WAL")
        holder.execute("CREATE TABLE notes (text TEXT)")
        first = database_class(path)
        first.check_writable()  # production makes its gate
        first.close()
        before = path.read_bytes()

        def read_and_write() -> tuple[int, str]:
            if os.geteuid() == 0:
                os.setuid(65534)
            else:
                for file in Path(folder).iterdir():
                    file.chmod(0o444)
            database = database_class(path)
            found = count(database)
            try:
                database.check_writable()
            except Unavailable:
                return found, "unavailable"
            return found, "writable"

        assert Forked(read_and_write).result() == (0, "unavailable")
        assert path.read_bytes() == before
        holder.close()


def break_descriptors_of(path: Path) -> None:
    """Make all open descriptors of `path` fail, as if its disk was unplugged; new descriptors work."""
    unreadable = os.open(os.devnull, os.O_WRONLY)
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if link.readlink() == path:
                os.dup2(unreadable, int(link.name))
    os.close(unreadable)


def write_from_outside(path: Path, text: str) -> None:
    """Another process writes into the database file itself, so cached pages and the log are stale."""

    def work() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("INSERT INTO notes (text) VALUES (?)", (text,))
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    Forked(work).result()


def test_a_failed_read_connection_is_replaced_at_the_next_use(database, notes_path):
    """The first read is Unavailable; the next one works without a restart."""
    assert count(database) == 0
    mark(database.snapshot)
    write_from_outside(notes_path, "a")
    break_descriptors_of(notes_path)
    with pytest.raises(Unavailable):
        count(database)
    assert count(database) == 1
    assert not is_marked(database.snapshot)


@pytest.mark.parametrize("when", ["before a transaction", "inside it"])
def test_a_failed_write_connection_is_replaced_at_the_next_use(database, notes_path, write, when):
    """One write is Unavailable; the next one works."""
    write("a")
    database.close()
    database.check_writable()
    write_from_outside(notes_path, "b")
    if when == "before a transaction":
        break_descriptors_of(notes_path)
    with pytest.raises(Unavailable), database.transaction() as tx:
        break_descriptors_of(notes_path)
        tx.run("INSERT INTO notes (text) VALUES ('c')")
    write("d")
    assert count(database) == 3


@pytest.mark.parametrize("verb", ["snapshot", "transaction"])
def test_a_failed_rollback_closes_the_connection(database, statements, outsider, verb):
    """Otherwise the connection would keep the snapshot or the write lock. The block's own error propagates."""
    statements.fail("ROLLBACK", MemoryError())
    with pytest.raises(ValueError, match="on purpose"), getattr(database, verb)() as tx:
        tx.rows("SELECT * FROM notes")
        raise ValueError("on purpose")
    outsider.execute("INSERT INTO notes (text) VALUES ('a')")
    assert count(database) == 1
    database.check_writable()


def test_a_transaction_that_began_despite_an_error_is_ended(database, statements, outsider):
    """An error after BEGIN has taken the lock, such as SQLITE_NOMEM, releases the lock."""
    statements.fail("BEGIN IMMEDIATE", MemoryError(), done=True)
    with pytest.raises(MemoryError), database.transaction():
        raise AssertionError("not to be reached")
    outsider.execute("INSERT INTO notes (text) VALUES ('a')")
    database.check_writable()


def test_a_connection_that_cannot_be_opened_is_a_temporary_fault(make_database):
    """With too many open files, reads and writes are Unavailable; both work once there are fewer."""

    def use() -> list[str]:
        database, outcomes = make_database(), []
        usual = resource.getrlimit(resource.RLIMIT_NOFILE)
        for limit in ((0, usual[1]), usual):
            for each in (lambda: count(database), database.check_writable):
                resource.setrlimit(resource.RLIMIT_NOFILE, limit)
                try:
                    each()
                    outcomes.append("served")
                except Unavailable:
                    outcomes.append("refused")
        return outcomes

    assert Forked(use).result() == ["refused"] * 2 + ["served"] * 2


def failing_with(name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(name)
    error.sqlite_errorcode, error.sqlite_errorname = getattr(sqlite3, name), name
    return error


@pytest.mark.parametrize(
    "name",
    [
        "SQLITE_IOERR_READ", "SQLITE_IOERR_SHMMAP", "SQLITE_CORRUPT", "SQLITE_CORRUPT_INDEX", "SQLITE_NOTADB",
        "SQLITE_CANTOPEN", "SQLITE_PROTOCOL", "SQLITE_READONLY", "SQLITE_READONLY_RECOVERY",
    ],
)  # fmt: skip
@pytest.mark.parametrize("verb", ["snapshot", "transaction"])
def test_a_fault_of_the_machine_closes_the_connection(database, verb, name):
    mark(getattr(database, verb))
    with pytest.raises(Unavailable), getattr(database, verb)():
        raise failing_with(name)
    assert not is_marked(getattr(database, verb))


@pytest.mark.parametrize(
    "name",
    [
        "SQLITE_BUSY", "SQLITE_BUSY_SNAPSHOT", "SQLITE_LOCKED", "SQLITE_INTERRUPT", "SQLITE_FULL", "SQLITE_IOERR_WRITE",
        "SQLITE_IOERR_FSYNC",
    ],
)  # fmt: skip
@pytest.mark.parametrize("verb", ["snapshot", "transaction"])
def test_a_temporary_fault_leaves_the_connection_open(database, verb, name):
    """Closing the last one would delete the `-shm`, and a full disk has no room for a new one."""
    mark(getattr(database, verb))
    with pytest.raises(Unavailable), getattr(database, verb)():
        raise failing_with(name)
    assert is_marked(getattr(database, verb))


@pytest.mark.parametrize("name", ["SQLITE_ERROR", "SQLITE_MISMATCH", "SQLITE_RANGE", "SQLITE_TOOBIG"])
@pytest.mark.parametrize("verb", ["snapshot", "transaction"])
def test_an_error_of_the_statement_propagates_unchanged(database, verb, name):
    mark(getattr(database, verb))
    with pytest.raises(sqlite3.OperationalError, match=name), getattr(database, verb)():
        raise failing_with(name)
    assert is_marked(getattr(database, verb))
