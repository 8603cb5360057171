"""What only production's database promises: bounded waits, bounded work, no use of a replaced file."""

import gc
import queue
import sqlite3
import threading
import time
from contextlib import closing

import pytest

from backend.errors import Unavailable
from backend.production.write_gate import WriteGate
from tests.at_once import asleep, at_once
from tests.forked import Forked, Signal
from tests.infrastructure.test_database_faults import (
    break_descriptors_of,
    count,
    is_marked,
    mark,
    write_from_outside,
)
from tests.waiting import wait_until
from tests.watching import descriptors_of, in_a_thread

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # 3.12: we fork beside threads on purpose

FOR_EVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT count(*) FROM n"
MANY_STEPS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000) SELECT max(i) FROM n"


def test_the_version_changes_with_each_commit(database, outsider, write):
    """This thread's, another thread's and another program's. Reads and rollbacks do not change it."""
    write("a")
    first = database.version()
    count(database)
    outsider.execute("BEGIN IMMEDIATE")
    outsider.execute("INSERT INTO notes (text) VALUES ('b')")
    outsider.execute("ROLLBACK")
    assert database.version() == first
    outsider.execute("INSERT INTO notes (text) VALUES ('b')")
    second = database.version()
    in_a_thread(lambda: write("c"))
    third = database.version()
    write("d")
    versions = [first, second, third, database.version()]
    assert all(a != b for n, a in enumerate(versions) for b in versions[:n])


def test_the_version_changes_with_a_new_connection(database):
    """Otherwise commits between the old connection and the new one would go unnoticed."""
    first = database.version()
    database.close()
    assert database.version() != first


@pytest.mark.parametrize("outer", ["transaction", "snapshot"])
def test_the_version_is_refused_inside_a_block(database, outer):
    """It would not change there."""
    with getattr(database, outer)(), pytest.raises(RuntimeError, match="nest"):
        database.version()


def test_a_single_statement_that_is_wrong_raises_its_own_error(database):
    """It is not Unavailable: a retry would fail too."""
    with pytest.raises(sqlite3.OperationalError, match="no such table"), database.read() as tx:
        tx.rows("SELECT * FROM nowhere")


def test_a_connection_of_single_statements_is_replaced_after_a_fault(database, notes_path):
    assert count(database) == 0
    before = database.version()
    write_from_outside(notes_path, "a")
    break_descriptors_of(notes_path)
    with pytest.raises(Unavailable), database.read() as tx:
        tx.rows("SELECT count(*) FROM notes")
    assert count(database) == 1
    assert database.version()[0] is not before[0]


def test_a_writer_that_works_too_long_is_interrupted(make_database, write):
    """An endless statement: Unavailable, rolled back, and the next writer is served."""
    database = make_database(busy_timeout=0.15)
    mark(database.transaction)
    with pytest.raises(Unavailable), database.transaction() as tx:
        tx.run("INSERT INTO notes (text) VALUES ('a')")
        tx.rows(FOR_EVER)
    assert count(database) == 0
    write("b")
    assert count(database) == 1
    assert is_marked(database.transaction)


def test_a_deadline_holds_for_its_own_block_alone(make_database):
    """SQLite sums the steps of BEGIN and COMMIT over all their runs, so thousands reach a check of the deadline."""
    database = make_database(busy_timeout=0)
    for _ in range(6_000):
        with database.transaction():
            pass


def test_a_reader_has_no_deadline(make_database):
    """It blocks no writer."""
    database = make_database(busy_timeout=0.0)
    for block in (database.snapshot, database.read):
        with block() as tx:
            assert tx.row(MANY_STEPS) == (200_000,)


def test_a_checkpoint_comes_every_16_megabytes(database):
    with database.transaction() as tx:
        assert tx.row("PRAGMA wal_autocheckpoint") == (4000,)


def test_only_threads_with_a_place_wait_for_the_whole_time_out(make_database):
    """With one place, one thread waits, and the other gives up after a tenth of the time-out."""
    database = make_database(busy_timeout=20, max_waiters=1)
    ended: queue.Queue[str] = queue.Queue()

    def wait():
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
        assert ended.get(timeout=30) == "refused"
        assert ended.empty()
    assert ended.get(timeout=30) == "written"
    for thread in threads:
        thread.join()


def test_a_dedicated_thread_waits_for_the_whole_time_out_and_takes_no_place(make_database, written):
    """Two of them wait, and the one place is free for another thread. The next is refused after a tenth."""
    database = make_database(busy_timeout=20, max_waiters=1)
    refused: queue.Queue[str] = queue.Queue()

    def write(text, dedicated):
        if dedicated:
            database.dedicate_thread()
        try:
            with database.transaction() as tx:
                tx.run("INSERT INTO notes (text) VALUES (:text)", text=text)
        except Unavailable:
            refused.put(text)
        finally:
            database.close()

    threads = [threading.Thread(target=write, args=(text, text in "ab")) for text in "abcd"]
    with database.transaction():
        for thread in threads[:-1]:
            thread.start()
            asleep(thread)
        threads[-1].start()
        assert refused.get(timeout=30) == "d"
    for thread in threads:
        thread.join()
    assert (written(), refused.qsize()) == (["a", "b", "c"], 0)


def test_a_dedicated_thread_waits_although_another_has_timed_out(make_database, written):
    database = make_database(busy_timeout=20, max_waiters=1)

    def write():
        database.dedicate_thread()
        with database.transaction() as tx:
            tx.run("INSERT INTO notes (text) VALUES ('a')")
        database.close()

    thread = threading.Thread(target=write)
    with database.transaction():
        with pytest.raises(Unavailable):
            at_once([lambda: database.check_writable(at_most=0.05)])
        thread.start()
        asleep(thread, 2.2)  # longer than a tenth of the time
    thread.join()
    assert written() == ["a"]


def test_after_one_time_out_threads_without_a_place_are_refused_at_once(make_database):
    """Until the lock is acquired again. So threads are free for reads while the lock is stuck, and only then."""
    tenth = 1.0
    database = make_database(busy_timeout=10 * tenth, max_waiters=1)

    def write():
        database.check_writable()
        database.close()

    def seconds_until_refused():
        began = time.monotonic()
        with pytest.raises(Unavailable):
            at_once([write])
        return time.monotonic() - began

    for _ in range(2):  # stuck, free again, and stuck again
        has_place = threading.Thread(target=write)
        with database.transaction():
            has_place.start()
            asleep(has_place)
            assert seconds_until_refused() >= tenth
            assert min(seconds_until_refused() for _ in range(5)) < tenth
        has_place.join()


def test_another_process_that_writes_is_no_sign_that_the_lock_is_stuck(make_database):
    """A process that has not written yet lets a thread without a place wait for a tenth of the time."""
    tenth = 1.0
    busy, fresh = make_database(), make_database(busy_timeout=10 * tenth, max_waiters=1)

    def write():
        fresh.check_writable()
        fresh.close()

    has_place = threading.Thread(target=write)
    with busy.transaction():
        has_place.start()
        asleep(has_place)
        began = time.monotonic()
        with pytest.raises(Unavailable):
            write()
        assert time.monotonic() - began >= tenth
    has_place.join()


def test_the_time_out_bounds_the_wait_for_gate_and_lock_together(statements, make_database, notes_path, outsider):
    """The thread gets the gate late, and then waits for another program's lock only for the rest of the time."""
    database, gate = make_database(busy_timeout=20), WriteGate(notes_path)

    def wait():
        database.check_writable()
        database.close()

    thread = threading.Thread(target=wait)
    outsider.execute("BEGIN IMMEDIATE")
    assert gate.acquire(0)
    thread.start()
    asleep(thread, 1.0)
    gate.release()
    wait_until(lambda: bool(statements.busy_timeouts()))
    outsider.execute("ROLLBACK")
    thread.join()
    [rest] = statements.busy_timeouts()
    assert rest <= 19_000


def test_without_a_gate_writes_are_refused(database, notes_path, caplog):
    """Its file cannot be opened. Reads are served, and the log has the reason."""
    notes_path.with_name("notes.db-gate").mkdir()
    with pytest.raises(Unavailable):
        database.check_writable()
    assert count(database) == 0
    assert "Is a directory" in caplog.text


@pytest.mark.parametrize("known", [True, False], ids=["connected before", "not connected before"])
def test_a_database_that_was_deleted_is_neither_read_nor_written(database, notes_path, known):
    """A write would be lost. No file is made in its place, and once it is back, it is used again."""
    if known:
        count(database)
        database.check_writable()
    aside = notes_path.rename(notes_path.with_name("aside.db"))
    for use in (database.snapshot, database.transaction):
        with pytest.raises(Unavailable), use():
            raise AssertionError("not to be reached")
    for use in (database.version, database.check_writable):
        with pytest.raises(Unavailable):
            use()
    assert not notes_path.exists()
    aside.rename(notes_path)
    database.check_writable()
    assert count(database) == 0


def test_a_database_that_was_replaced_needs_a_restart(database, notes_path, write):
    """The `-wal` of the old file lies beside the new one. Until the restart no thread reads or writes it."""
    write("old")
    new = notes_path.with_name("new.db")
    with closing(sqlite3.connect(new)) as connection:
        connection.execute("CREATE TABLE notes (text TEXT NOT NULL)")
    before = new.read_bytes()
    new.replace(notes_path)
    for _ in range(2):
        with pytest.raises(Unavailable):
            count(database)
        with pytest.raises(Unavailable):
            write("lost")
        database.close()
    assert notes_path.read_bytes() == before


def test_a_transaction_during_which_the_file_is_moved_is_rolled_back(database, notes_path):
    """Otherwise it would be acknowledged and lost. The file has no row of it once it is back."""
    with pytest.raises(Unavailable), database.transaction() as tx:
        tx.run("INSERT INTO notes (text) VALUES ('a')")
        elsewhere = notes_path.rename(notes_path.with_name("elsewhere.db"))
    elsewhere.rename(notes_path)
    assert count(database) == 0


def texts(database):
    with database.snapshot() as tx:
        return [text for (text,) in tx.rows("SELECT text FROM notes ORDER BY text")]


def test_a_forked_child_has_connections_of_its_own(database, write):
    """It reads and writes, and its parent's snapshot does not change."""
    write("a")

    def work():
        write("b")
        return texts(database)

    with database.snapshot() as tx:
        assert tx.rows("SELECT text FROM notes") == [("a",)]
        assert Forked(work).result() == ["a", "b"]
        assert tx.rows("SELECT text FROM notes") == [("a",)]
    assert texts(database) == ["a", "b"]


def test_a_forked_child_neither_ends_nor_shares_the_transaction_of_its_parent(make_database, outsider, written):
    """Its threads, its `close` and its end leave the parent the lock and the rows that are in the `-wal` already."""
    database = make_database(busy_timeout=60)

    def work():
        in_a_thread(lambda: texts(database))
        found = texts(database)
        database.close()
        with pytest.raises(Unavailable):
            database.check_writable(at_most=0.05)
        return found

    many = [f"{n:0500}" for n in range(10_000)]
    with database.transaction() as tx:
        for text in many[1:]:
            tx.run("INSERT INTO notes (text) VALUES (:text)", text=text)
        assert Forked(work).result() == []
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            outsider.execute("BEGIN IMMEDIATE")
        tx.run("INSERT INTO notes (text) VALUES (:text)", text=many[0])
    assert written() == many
    assert outsider.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_forked_child_leaves_the_transaction_of_another_thread_alone(make_database, outsider, written):
    """That thread does not run in the child. Closing its connection there would undo its writes."""
    database = make_database(busy_timeout=60)
    forked, done, many = threading.Event(), threading.Event(), [f"{n:0500}" for n in range(10_000)]

    def write_slowly():
        with database.transaction() as tx:
            for text in many:
                tx.run("INSERT INTO notes (text) VALUES (:text)", text=text)
            forked.set()
            done.wait(60)

    def work():
        gc.collect()
        return texts(database)

    writer = threading.Thread(target=write_slowly)
    writer.start()
    assert forked.wait(60)
    assert Forked(work).result() == []
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        outsider.execute("BEGIN IMMEDIATE")
    done.set()
    writer.join()
    assert written() == many
    assert outsider.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_forked_child_does_not_close_the_connections_of_its_parent(database, notes_path, write):
    """SQLite forbids that. They stay open until the child ends."""
    write("a")
    texts(database)

    def work():
        gc.collect()
        return descriptors_of(notes_path)

    assert Forked(work).result() == descriptors_of(notes_path) == 2


def test_a_child_that_is_forked_while_threads_wait_for_the_gate_gets_its_own_turn(make_database, notes_path, written):
    database, gate, in_line = make_database(busy_timeout=30), WriteGate(notes_path), Signal()

    def write(text):
        with database.transaction() as tx:
            tx.run("INSERT INTO notes (text) VALUES (:text)", text=text)
        database.close()

    def work():
        with pytest.raises(Unavailable):
            database.check_writable(at_most=0.05)
        in_line.say()
        write("child")

    assert gate.acquire(0)
    thread = threading.Thread(target=write, args=("thread",))
    thread.start()
    asleep(thread)
    child = Forked(work)
    in_line.wait()
    gate.release()
    thread.join()
    child.result()
    assert written() == ["child", "thread"]


def test_a_broken_connection_is_closed_although_an_error_refers_to_it(database, notes_path, write):
    """At once, and not at the next garbage collection."""
    write("a")
    errors = []
    for fault in ("SQLITE_IOERR_READ", "SQLITE_CORRUPT"):
        error = sqlite3.OperationalError("on purpose")
        error.sqlite_errorcode, error.sqlite_errorname = getattr(sqlite3, fault), fault
        try:
            with database.transaction() as tx:
                tx.rows("SELECT * FROM notes")
                raise error
        except Unavailable as refused:
            errors.append(refused)
        assert descriptors_of(notes_path) == 0
