"""What `transaction` and `snapshot` promise. (Faults: test_database_faults.py.)"""

import logging
import sqlite3
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from backend.errors import Unavailable
from backend.infrastructure.database import Duplicate
from tests.at_once import asleep, at_once
from tests.watching import descriptors_of, in_a_thread


def test_a_transaction_is_visible_after_its_block_and_not_before(database, written):
    with database.transaction() as tx:
        assert tx.run("INSERT INTO notes (text) VALUES ('a'), ('b')") == 2
        assert tx.rows("SELECT text FROM notes ORDER BY text") == [("a",), ("b",)]
        assert written() == []
    assert written() == ["a", "b"]


@pytest.mark.parametrize("error", [RuntimeError, sqlite3.ProgrammingError, KeyboardInterrupt, GeneratorExit])
def test_a_block_that_raises_has_written_nothing(database, written, error, write):
    """Its error propagates unchanged, and the next transaction works."""
    with pytest.raises(error, match="on purpose"), database.transaction() as tx:
        tx.run("INSERT INTO notes (text) VALUES ('a')")
        raise error("on purpose")
    assert written() == []
    write("b")
    assert written() == ["b"]


def test_every_way_to_write_raises_duplicate(database, written, write):
    """Also a statement that returns rows, and one that runs for many rows."""
    write("a")
    insert = "INSERT INTO notes (text) VALUES (:text)"
    for run in (
        lambda tx: tx.row(f"{insert} RETURNING text", text="a"),
        lambda tx: tx.rows(f"{insert} RETURNING text", text="a"),
        lambda tx: tx.run_each(insert, [{"text": "b"}, {"text": "a"}]),
    ):
        with pytest.raises(Duplicate), database.transaction() as tx:
            run(tx)
    with database.transaction() as tx:
        tx.run_each(insert, [{"text": "b"}, {"text": "c"}])
    assert written() == ["a", "b", "c"]


def test_a_duplicate_that_is_caught_leaves_the_rest_of_the_transaction_intact(database, written, write):
    write("a")
    with database.transaction() as tx:
        tx.run("INSERT INTO notes (text) VALUES ('b')")
        with pytest.raises(Duplicate):
            tx.run("INSERT INTO notes (text) VALUES ('c'), ('a')")
    assert written() == ["a", "b"]
    with pytest.raises(Duplicate), database.transaction() as tx:
        tx.run("INSERT INTO notes (text) VALUES ('d')")
        tx.run("UPDATE notes SET text = 'a' WHERE text = 'b'")
    assert written() == ["a", "b"]


@pytest.mark.parametrize(
    "sql",
    ["INSERT INTO notes (text) VALUES (NULL)", "INSERT INTO notes VALUES ('b', 0)", "INSERT INTO tags VALUES ('?')"],
)
def test_other_constraints_are_no_duplicates(database, written, sql):
    """Not null, CHECK and foreign key stay sqlite3.IntegrityError."""
    with pytest.raises(sqlite3.IntegrityError), database.transaction() as tx:
        tx.run("INSERT INTO notes (text) VALUES ('a')")
        tx.run(sql)
    assert written() == []


@pytest.mark.parametrize(
    ("value", "error"),
    [(2**63, OverflowError), (-(2**63) - 1, OverflowError), ("\ud800", UnicodeEncodeError)],
    ids=["too great", "too small", "lone surrogate"],
)
def test_a_value_that_sqlite_cannot_hold_ends_in_a_rollback(database, written, value, error, write):
    with pytest.raises(error), database.transaction() as tx:
        tx.run("INSERT INTO notes (text) VALUES ('a')")
        tx.run("INSERT INTO notes (text) VALUES (:value)", value=value)
    assert written() == []
    write("b")


@pytest.mark.parametrize("outer", ["transaction", "snapshot"])
@pytest.mark.parametrize("inner", ["transaction", "snapshot", "check_writable"])
def test_nesting_is_refused_and_the_outer_block_goes_on(database, written, outer, inner):
    with getattr(database, outer)() as tx:
        if outer == "transaction":
            tx.run("INSERT INTO notes (text) VALUES ('a')")
        with pytest.raises(RuntimeError, match="nest"):
            begun = getattr(database, inner)()
            begun.__enter__()
        assert len(tx.rows("SELECT * FROM notes")) == (1 if outer == "transaction" else 0)
    assert written() == (["a"] if outer == "transaction" else [])


def test_a_snapshot_is_consistent(database, written, outsider):
    """Writes after its first read appear only in the next snapshot."""
    with database.snapshot() as tx:
        assert tx.rows("SELECT text FROM notes") == []
        outsider.execute("INSERT INTO notes (text) VALUES ('a')")
        assert tx.rows("SELECT text FROM notes") == []
    with database.snapshot() as tx:
        assert tx.row("SELECT text FROM notes") == ("a",)


def test_a_transaction_reads_what_was_committed_before_it_began(database, outsider):
    """It can read and then write beside other writers, because it holds the write lock from the start."""
    outsider.execute("INSERT INTO notes (text) VALUES ('a')")
    with database.transaction() as tx:
        assert tx.rows("SELECT text FROM notes") == [("a",)]
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            outsider.execute("INSERT INTO notes (text) VALUES ('b')")
        tx.run("UPDATE notes SET text = 'c'")


def test_neither_a_snapshot_nor_a_finished_transaction_can_write(database, written, write):
    """Both before this thread's first write and right after it."""
    for _ in range(2):
        with pytest.raises((Unavailable, sqlite3.OperationalError)), database.snapshot() as tx:
            tx.run("INSERT INTO notes (text) VALUES ('b')")
        write(f"a{len(written())}")
    for verb in (database.transaction, database.snapshot):
        with verb() as tx:
            pass
        with pytest.raises(RuntimeError, match="over"):
            tx.run("INSERT INTO notes (text) VALUES ('c')")
    assert written() == ["a0", "a1"]


def test_after_commit_actions_run_in_order(database, written, write):
    """An action sees the committed write and may use the database. After a rollback none runs."""
    seen = []
    with pytest.raises(RuntimeError), database.transaction() as tx:
        tx.after_commit(lambda: seen.append("committed"))
        raise RuntimeError
    with database.transaction() as tx:
        tx.run("INSERT INTO notes (text) VALUES ('a')")
        tx.after_commit(lambda: seen.append(written()))
        tx.after_commit(lambda: write("b"))
        tx.after_commit(lambda: seen.append(written()))
        assert seen == []
    assert seen == [["a"], ["a", "b"]]


def test_an_after_commit_action_that_fails_is_logged_and_the_write_stands(database, written, caplog):
    """The other actions still run, and the caller gets no error."""
    seen = []
    with caplog.at_level(logging.ERROR), database.transaction() as tx:
        tx.run("INSERT INTO notes (text) VALUES ('a')")
        tx.after_commit(lambda: 1 // 0)
        tx.after_commit(lambda: seen.append(written()))
    assert seen == [["a"]]
    (record,) = caplog.records
    assert record.exc_info[0] is ZeroDivisionError


def test_a_transaction_has_one_time(database, clock):
    """In milliseconds; the next transaction has a later one."""
    for block in (database.transaction, database.snapshot):
        with block() as tx:
            before = tx.now
            clock.advance(60)
            assert tx.now == before
            assert abs(before / 1000 + 60 - clock()) < 30
        with block() as tx:
            assert tx.now >= before + 60_000


def test_one_query_finds_the_rows_of_many_ids(database, write):
    """`:ids` expands to one parameter per id. Without ids there is no query."""
    write("a", "b", "c; DROP TABLE notes")
    with database.snapshot() as tx:
        sql = "SELECT text FROM notes WHERE text IN (:ids) ORDER BY text"
        assert tx.rows_for(sql, ["a", "c; DROP TABLE notes", "?"]) == [("a",), ("c; DROP TABLE notes",)]
        assert tx.rows_for("no SQL at all", []) == []
        assert tx.row("SELECT text FROM notes WHERE text = '?'") is None


def test_the_wal_shrinks_once_a_long_snapshot_ends(database, notes_path):
    """While the snapshot lasts, SQLite can only append to the `-wal`; a few writes later it shrinks to its limit."""
    log = notes_path.with_name("notes.db-wal")

    def write(*texts: str) -> None:
        with database.transaction() as tx:
            for text in texts:
                tx.run("INSERT INTO notes (text) VALUES (:text)", text=text)

    with database.snapshot() as tx:
        tx.rows("SELECT * FROM notes")
        for n in range(10):
            at_once([lambda n=n: write(*(f"{n}-{k}" + "x" * 1_000_000 for k in range(5)))])
        assert log.stat().st_size > 90_000_000
    for text in "abc":
        write(text)
    assert log.stat().st_size <= 64 * 2**20


def test_a_snapshot_whose_block_raises_is_over(database, outsider):
    """Its error propagates, and the next snapshot sees what was written since."""
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), database.snapshot() as tx:
            tx.rows("SELECT * FROM notes")
            outsider.execute("INSERT INTO notes (text) VALUES (hex(randomblob(8)))")
            raise error
    with database.snapshot() as tx:
        assert tx.row("SELECT count(*) FROM notes") == (2,)


@pytest.mark.parametrize("verb", ["snapshot", "transaction"])
@pytest.mark.parametrize(
    ("pragma", "value"),
    [("synchronous", 2), ("foreign_keys", 1), ("trusted_schema", 0), ("journal_size_limit", 2**26)],
)
def test_every_connection_is_set_up_alike(database, verb, pragma, value):
    """A committed write is on disk (FULL is 2), and functions in a foreign schema do not run."""
    with getattr(database, verb)() as tx:
        assert tx.row(f"PRAGMA {pragma}") == (value,)


def texts(database):
    with database.snapshot() as tx:
        return [text for (text,) in tx.rows("SELECT text FROM notes ORDER BY text")]


def test_each_thread_has_its_own_snapshot(database, write):
    """A snapshot in one thread does not change while another thread writes and reads."""
    with database.snapshot() as tx:
        assert tx.rows("SELECT text FROM notes") == []
        in_a_thread(lambda: write("a"))
        assert tx.rows("SELECT text FROM notes") == []
    assert texts(database) == ["a"]


def test_transactions_of_many_threads_are_serialised(make_database, written):
    """Each reads the write of the one before, and their times are in commit order."""
    database = make_database(busy_timeout=600)

    def work(thread):
        for number in range(20):
            with database.transaction() as tx:
                (count, last) = tx.row("SELECT count(*), max(number) FROM notes")
                tx.run("INSERT INTO notes VALUES (:text, :now)", text=f"{count:04}-{thread}-{number}", now=tx.now)
                assert tx.now >= (last or 0)
        database.close()

    at_once(lambda n=n: work(n) for n in range(8))
    assert [int(text[:4]) for text in written()] == list(range(160))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_connection_closes_when_its_thread_ends(database, notes_path, write):
    """Ten threads have ten reading connections, and none once they end; `close` closes that of the calling thread."""
    all_in = threading.Barrier(10, action=lambda: opened.append(descriptors_of(notes_path)))
    opened = []

    def work() -> None:
        texts(database)
        all_in.wait()

    at_once([work] * 10)
    assert opened == [10]
    assert descriptors_of(notes_path) == 0
    write("a")
    assert descriptors_of(notes_path) == 1
    database.close()
    assert descriptors_of(notes_path) == 0
    assert texts(database) == ["a"]


def test_a_failed_transaction_leaves_no_connection_behind(database, notes_path):
    def fail():
        with suppress(RuntimeError), database.transaction() as tx:
            tx.run("INSERT INTO notes (text) VALUES ('a')")
            raise RuntimeError

    for _ in range(3):
        in_a_thread(fail)
    assert descriptors_of(notes_path) <= 1  # the process's write connection
    database.close()
    assert descriptors_of(notes_path) == 0


def test_an_absent_database_is_an_error_and_is_not_created(make_database, notes_path):
    """Reads and writes fail, and no file is created. Once it is back, it works without a restart."""
    database = make_database()
    aside = notes_path.rename(notes_path.with_name("aside.db"))
    for use in (database.snapshot, database.transaction):
        with pytest.raises(Unavailable), use():
            raise AssertionError("not to be reached")
    with pytest.raises(Unavailable):
        database.check_writable()
    assert not notes_path.exists()
    aside.rename(notes_path)
    database.check_writable()
    assert texts(database) == []


def test_each_read_sees_the_latest_commit(database, write):
    with database.read() as tx:
        assert tx.rows("SELECT text FROM notes") == []
        threading_write = threading.Thread(target=write, args=["a"])
        threading_write.start()
        threading_write.join()
        assert tx.rows("SELECT text FROM notes") == [("a",)]


def test_a_read_cannot_write_and_is_over_after_its_block(database, written):
    with database.read() as tx, pytest.raises(sqlite3.OperationalError, match="readonly"):
        tx.run("INSERT INTO notes (text) VALUES ('a')")
    with pytest.raises(RuntimeError):
        tx.rows("SELECT text FROM notes")
    assert written() == []


def test_a_listener_learns_how_long_each_transaction_waited_for_the_lock_and_held_it(database, write):
    """Also one that raises. Reads do not count."""
    heard = {}  # by thread: the lock is free before its holder calls, so the second thread may be the first to call
    database.on_write.append(lambda *seconds: heard.update({threading.current_thread(): seconds}))
    with suppress(RuntimeError), database.transaction():
        second = threading.Thread(target=write, args=["second"])
        second.start()
        asleep(second, 0.2)
        raise RuntimeError
    second.join()
    assert texts(database) == ["second"]
    (first_waited, first_held), (second_waited, _) = heard.pop(threading.current_thread()), heard.pop(second)
    assert first_held >= 0.2
    assert second_waited >= 0.2
    assert first_waited >= 0
    assert not heard
