"""When the database is busy, full or out of order: Unavailable, nothing written, and all well again afterwards."""

import os
import queue
import resource
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest

from backend.errors import Unavailable
from backend.infrastructure.database import Database
from tests.at_once import asleep, at_once
from tests.forked import Forked

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # 3.12: we fork beside threads on purpose

FOR_EVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT count(*) FROM n"
BUDGET = 0.15  # seconds


@pytest.fixture
def database(notes_path: Path) -> Iterator[Database]:
    database = Database(notes_path, busy_timeout=BUDGET)
    yield database
    database.close()


def count(database):
    with database.snapshot() as tx:
        return tx.row("SELECT count(*) FROM notes")[0]


def test_who_waits_too_long_for_an_outside_writer_is_told_when_to_come_back(database, outsider, write):
    """Once the budget is used up, not after SQLite's own 5 s; reads go on, and writes once the outsider is done."""
    outsider.execute("BEGIN IMMEDIATE")
    outsider.execute("INSERT INTO notes (text) VALUES ('a')")
    began = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        write("b")
    assert BUDGET <= time.monotonic() - began < 4
    assert int(caught.value.headers["Retry-After"]) >= 1
    with pytest.raises(Unavailable):
        database.check_writable()
    assert count(database) == 0
    outsider.execute("COMMIT")
    write("b")
    assert count(database) == 2


def test_who_waits_shorter_gets_his_turn(notes_path):
    patient = Database(notes_path, busy_timeout=30)
    outsider = sqlite3.connect(notes_path, isolation_level=None, check_same_thread=False)
    outsider.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.05, outsider.close)
    timer.start()
    patient.check_writable()
    timer.join()
    patient.close()


def test_a_writer_of_ours_holds_others_up_no_longer_than_their_budget(database, notes_path, write):
    """In this process or by another Database; what the holder did stands."""
    refused: queue.Queue[BaseException] = queue.Queue()
    other = Database(notes_path, busy_timeout=BUDGET)

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
    other.close()


def test_few_may_wait_for_long(notes_path):
    """One thread waits patiently, the other gives up after a tenth of the budget, and reads are served."""
    database = Database(notes_path, busy_timeout=5, patient=1)
    ended: queue.Queue[str] = queue.Queue()

    def wait() -> None:
        try:
            database.check_writable()
            ended.put("written")
        except Unavailable:
            ended.put("refused")
        finally:
            database.close()

    threads = [threading.Thread(target=wait) for _ in range(2)]
    with database.transaction():
        for thread in threads:
            thread.start()
        assert ended.get(timeout=4) == "refused"
        assert ended.empty()
    assert ended.get(timeout=4) == "written"
    for thread in threads:
        thread.join()
    database.close()


def test_a_patient_transaction_waits_for_the_whole_budget_and_takes_no_place(notes_path, written):
    """Two of them wait, and the one place is still free for another writer; the next is refused after a tenth."""
    database = Database(notes_path, busy_timeout=5, patient=1)
    refused: queue.Queue[str] = queue.Queue()

    def wait(text: str, **patient: bool) -> None:
        try:
            with database.transaction(**patient) as tx:
                tx.run("INSERT INTO notes (text) VALUES (:text)", text=text)
        except Unavailable:
            refused.put(text)
        finally:
            database.close()

    threads = [threading.Thread(target=wait, args=(text,), kwargs={"patient": True}) for text in ("a", "b")]
    threads += [threading.Thread(target=wait, args=(text,)) for text in ("c", "d")]
    with database.transaction():
        for thread in threads:
            thread.start()
            asleep(thread)
        assert refused.get(timeout=4) == "d"
    for thread in threads:
        thread.join()
    assert (written(), refused.qsize()) == (["a", "b", "c"], 0)
    database.close()


def test_who_holds_the_lock_too_long_is_interrupted(database, write):
    """A statement without an end: Unavailable, rolled back, and the next has a connection that works."""
    with pytest.raises(Unavailable), database.transaction() as tx:
        tx.run("INSERT INTO notes (text) VALUES ('a')")
        tx.rows(FOR_EVER)
    assert count(database) == 0
    write("b")
    assert count(database) == 1


def test_a_full_disk_writes_nothing_and_is_no_lasting_harm(database, write):
    """SQLite has rolled back by itself, and the connection is kept: closing the last would take the `-shm` along.

    (Here the file may not grow: the limit belongs to the connection.)
    """
    write("a")
    opened, _ = database.version()
    with pytest.raises(Unavailable), database.transaction() as tx:
        tx.rows("PRAGMA max_page_count = 8")
        tx.run("INSERT INTO notes (text) VALUES ('b')")
        tx.run("INSERT INTO notes (text) VALUES (:long)", long="x" * 100_000)
    assert count(database) == 1
    with database.transaction() as tx:
        tx.rows("PRAGMA max_page_count = 1000")
        tx.run("INSERT INTO notes (text) VALUES (:long)", long="b" * 100_000)
    assert count(database) == 2
    assert database.version()[0] == opened


def test_a_file_that_is_no_database_is_told_from_a_wrong_statement(tmp_path, database):
    """Unavailable for the one; the statement's own error for the other, which would fail again."""
    (tmp_path / "text.db").write_text("this is no database " * 100)
    broken = Database(tmp_path / "text.db")
    with pytest.raises(Unavailable), broken.snapshot() as tx:
        tx.rows("SELECT * FROM notes")
    broken.close()
    with pytest.raises(sqlite3.OperationalError, match="no such table"), database.snapshot() as tx:
        tx.rows("SELECT * FROM nowhere")


def test_a_connection_lost_inside_a_transaction_does_not_keep_the_gate_shut(database, write):
    with pytest.raises(sqlite3.ProgrammingError), database.transaction():
        database._writers._connection.sqlite.close()
    write("a")
    assert count(database) == 1


def test_without_a_gate_there_is_no_writing(database, notes_path, caplog):
    """Its file cannot be opened: reads go on, and the log says why."""
    notes_path.with_name("notes.db-gate").mkdir()
    with pytest.raises(Unavailable):
        database.check_writable()
    assert count(database) == 0
    assert "Is a directory" in caplog.text


def test_a_file_that_goes_during_a_transaction_gets_nothing_of_it(database, notes_path):
    """It would be acknowledged and lost; for the file that is back it never was."""
    with pytest.raises(Unavailable), database.transaction() as tx:
        tx.run("INSERT INTO notes (text) VALUES ('a')")
        elsewhere = notes_path.rename(notes_path.with_name("elsewhere.db"))
    elsewhere.rename(notes_path)
    assert count(database) == 0


def test_a_read_only_database_can_be_read_and_not_written():
    """Another user's, in a folder that one may not write to: Unavailable, and not a byte of it changed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "notes.db"
        Path(folder).chmod(0o755)
        holder = sqlite3.connect(path, isolation_level=None)  # while it is open, the -wal and -shm are there to be read
        holder.execute("PRAGMA journal_mode = WAL")
        holder.execute("CREATE TABLE notes (text TEXT)")
        Database(path).check_writable()  # makes the gate, which this user may open: the database alone refuses
        path.with_name("notes.db-gate").chmod(0o644)
        before = path.read_bytes()

        def read_and_write() -> tuple[int, str]:
            if os.geteuid() == 0:
                os.setuid(65534)
            else:
                for file in Path(folder).iterdir():
                    file.chmod(0o444)
            database = Database(path)
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
    """What this process has open of `path` fails from now on, as a disk that was unplugged; a new one works."""
    unreadable = os.open(os.devnull, os.O_WRONLY)
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if link.readlink() == path:
                os.dup2(unreadable, int(link.name))
    os.close(unreadable)


def write_from_outside(path: Path, text: str) -> None:
    """By another process, into the database file itself: nothing that is cached or in the log holds any more."""

    def work() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("INSERT INTO notes (text) VALUES (?)", (text,))
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    Forked(work).result()


@pytest.mark.parametrize("use", ["snapshot", "version", "only_row"])
def test_a_connection_to_read_with_that_fails_is_replaced_at_the_next_use(database, notes_path, use):
    """The first read is refused, the next one served, without a restart."""

    def read() -> None:
        if use == "snapshot":
            count(database)
        elif use == "version":
            database.version()
        else:
            database.only_row("SELECT count(*) FROM notes")

    assert count(database) == 0
    opened, _ = database.version()
    write_from_outside(notes_path, "a")
    break_descriptors_of(notes_path)
    with pytest.raises(Unavailable):
        for _ in range(2):  # `version` itself does not read the file, and the next read does
            read()
            count(database)
    read()
    assert count(database) == 1
    assert database.version()[0] > opened  # its figures are not comparable with those of the old one


@pytest.mark.parametrize("when", ["before a transaction", "inside it"])
def test_a_connection_to_write_with_that_fails_is_replaced_at_the_next_use(database, notes_path, write, when):
    """One writer is refused, and the very next one is served."""
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


def test_a_snapshot_that_cannot_be_ended_ends_with_its_connection(notes_path, monkeypatch):
    """Else its thread would be inside it for ever, and could neither read nor write."""
    errors: list[BaseException] = []

    class Failing(sqlite3.Connection):
        def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:
            if errors and sql == "ROLLBACK":
                raise errors.pop()
            return super().execute(sql, *parameters)

    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Failing))
    database = Database(notes_path)
    errors.append(MemoryError())
    with pytest.raises(MemoryError), database.snapshot():
        raise ValueError
    assert errors == []
    assert count(database) == 0
    database.check_writable()
    database.close()


def test_a_connection_that_cannot_be_opened_is_a_fault_of_the_moment(notes_path):
    """Too many open files: Unavailable to read and to write, and all is well when there are fewer."""

    def use() -> list[str]:
        database, outcomes = Database(notes_path), []
        uses = [lambda: count(database), database.version, database.check_writable]
        usual = resource.getrlimit(resource.RLIMIT_NOFILE)
        for limit in ((0, usual[1]), usual):
            for each in uses:
                resource.setrlimit(resource.RLIMIT_NOFILE, limit)
                try:
                    each()
                    outcomes.append("served")
                except Unavailable:
                    outcomes.append("refused")
        return outcomes

    assert Forked(use).result() == ["refused"] * 3 + ["served"] * 3


def test_once_one_has_waited_in_vain_the_impatient_are_refused_at_once_until_the_lock_is_had_again(notes_path):
    """So that the threads of a process are left to reads while the lock is stuck, and only then."""
    tenth = 1.0
    database = Database(notes_path, busy_timeout=10 * tenth, patient=1)

    def write() -> None:
        database.check_writable()
        database.close()

    def seconds_until_refused() -> float:
        began = time.monotonic()
        with pytest.raises(Unavailable):
            at_once([write])
        return time.monotonic() - began

    for _ in range(2):  # stuck, free again, and stuck again
        patient = threading.Thread(target=write)
        with database.transaction():
            patient.start()
            asleep(patient)
            assert seconds_until_refused() >= tenth
            assert sum(seconds_until_refused() for _ in range(5)) < 5 * tenth
        patient.join()
    database.close()


def test_a_process_that_has_not_written_yet_lets_the_impatient_wait_for_their_tenth(notes_path):
    """That another process writes just then is no sign that the lock is stuck."""
    tenth = 0.3
    busy, fresh = Database(notes_path), Database(notes_path, busy_timeout=10 * tenth, patient=1)

    def write() -> None:
        fresh.check_writable()
        fresh.close()

    patient = threading.Thread(target=write)
    with busy.transaction():
        patient.start()
        asleep(patient)
        began = time.monotonic()
        with pytest.raises(Unavailable):
            write()
        assert time.monotonic() - began >= tenth
    patient.join()
    fresh.close()
    busy.close()


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
def test_a_fault_that_may_lie_with_the_connection_is_the_end_of_it(database, name):
    before = database.version()
    with pytest.raises(Unavailable), database.snapshot():
        raise failing_with(name)
    assert database.version() != before


@pytest.mark.parametrize(
    "name",
    [
        "SQLITE_BUSY", "SQLITE_BUSY_SNAPSHOT", "SQLITE_LOCKED", "SQLITE_INTERRUPT", "SQLITE_FULL", "SQLITE_IOERR_WRITE",
        "SQLITE_IOERR_FSYNC",
    ],
)  # fmt: skip
def test_a_fault_of_the_moment_leaves_the_connection_open(database, name):
    """To close the last one would delete the `-shm`, and a full disk has no room for another."""
    before = database.version()
    with pytest.raises(Unavailable), database.snapshot():
        raise failing_with(name)
    assert database.version() == before


@pytest.mark.parametrize("name", ["SQLITE_ERROR", "SQLITE_MISMATCH", "SQLITE_RANGE", "SQLITE_TOOBIG"])
def test_an_error_of_the_statement_comes_out_as_it_is(database, name):
    before = database.version()
    for block in (database.snapshot, database.transaction):
        with pytest.raises(sqlite3.OperationalError, match=name), block():
            raise failing_with(name)
    assert database.version() == before
