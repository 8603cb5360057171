"""The two verbs of the database: what a transaction and a snapshot promise. (Faults: test_database_faults.py.)"""

import logging
import sqlite3

import pytest

from backend.errors import Unavailable
from backend.infrastructure.transaction import Duplicate
from tests.at_once import at_once


def test_a_transaction_is_there_at_the_end_of_its_block_and_not_before(database, written):
    with database.transaction() as tx:
        assert tx.run("INSERT INTO notes (text) VALUES ('a'), ('b')") == 2
        assert tx.rows("SELECT text FROM notes ORDER BY text") == [("a",), ("b",)]
        assert written() == []
    assert written() == ["a", "b"]


@pytest.mark.parametrize("error", [RuntimeError, sqlite3.ProgrammingError, KeyboardInterrupt, GeneratorExit])
def test_a_block_that_raises_has_written_nothing(database, written, error, write):
    """Its error comes out as it is, and the next transaction is none the worse."""
    with pytest.raises(error, match="on purpose"), database.transaction() as tx:
        tx.run("INSERT INTO notes (text) VALUES ('a')")
        raise error("on purpose")
    assert written() == []
    write("b")
    assert written() == ["b"]


def test_a_duplicate_is_told_and_the_rest_of_the_transaction_stands_if_it_is_caught(database, written, write):
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
@pytest.mark.parametrize("inner", ["transaction", "snapshot", "version", "check_writable"])
def test_nothing_nests_and_what_is_open_goes_on(database, written, outer, inner):
    with getattr(database, outer)() as tx:
        if outer == "transaction":
            tx.run("INSERT INTO notes (text) VALUES ('a')")
        with pytest.raises(RuntimeError, match="nest"):
            begun = getattr(database, inner)()
            begun.__enter__()
        assert len(tx.rows("SELECT * FROM notes")) == (1 if outer == "transaction" else 0)
    assert written() == (["a"] if outer == "transaction" else [])


def test_a_snapshot_is_one_view(database, written, outsider):
    """What is written after its first read does not appear in it, but in the next one."""
    with database.snapshot() as tx:
        assert tx.rows("SELECT text FROM notes") == []
        outsider.execute("INSERT INTO notes (text) VALUES ('a')")
        assert tx.rows("SELECT text FROM notes") == []
    with database.snapshot() as tx:
        assert tx.row("SELECT text FROM notes") == ("a",)


def test_a_transaction_reads_what_was_committed_before_it_began(database, outsider):
    """It may write after it has read, although others write as well: it has had the lock from the start."""
    outsider.execute("INSERT INTO notes (text) VALUES ('a')")
    with database.transaction() as tx:
        assert tx.rows("SELECT text FROM notes") == [("a",)]
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            outsider.execute("INSERT INTO notes (text) VALUES ('b')")
        tx.run("UPDATE notes SET text = 'c'")


def test_a_snapshot_cannot_write_nor_can_a_transaction_that_is_over(database, written, write):
    """Neither before this thread has written for the first time nor right after."""
    for _ in range(2):
        with pytest.raises((Unavailable, sqlite3.OperationalError)), database.snapshot() as tx:
            tx.run("INSERT INTO notes (text) VALUES ('b')")
        write(f"a{len(written())}")
    with database.transaction() as tx:
        pass
    with pytest.raises(RuntimeError, match="over"):
        tx.run("INSERT INTO notes (text) VALUES ('c')")
    assert written() == ["a0", "a1"]


def test_what_is_to_follow_a_commit_follows_it_in_order(database, written, write):
    """It sees the write, as everybody does, and may use the database itself. After a rollback nothing follows."""
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


def test_what_fails_after_a_commit_is_logged_and_the_write_stands(database, written, caplog):
    """The other actions run all the same, and the caller hears nothing of it."""
    seen = []
    with caplog.at_level(logging.ERROR), database.transaction() as tx:
        tx.run("INSERT INTO notes (text) VALUES ('a')")
        tx.after_commit(lambda: 1 // 0)
        tx.after_commit(lambda: seen.append(written()))
    assert seen == [["a"]]
    (record,) = caplog.records
    assert record.exc_info[0] is ZeroDivisionError


def test_a_transaction_has_one_time(database, clock):
    """In milliseconds, and the next has a later one."""
    for block in (database.transaction, database.snapshot):
        with block() as tx:
            before = tx.now
            clock.advance(60)
            assert tx.now == before
            assert abs(before / 1000 + 60 - clock()) < 30
        with block() as tx:
            assert tx.now >= before + 60_000


def test_many_rows_are_found_by_one_query(database, write):
    """`:ids` becomes as many parameters as there are ids; none of them, no query."""
    write("a", "b", "c; DROP TABLE notes")
    with database.snapshot() as tx:
        sql = "SELECT text FROM notes WHERE text IN (:ids) ORDER BY text"
        assert tx.rows_for(sql, ["a", "c; DROP TABLE notes", "?"]) == [("a",), ("c; DROP TABLE notes",)]
        assert tx.rows_for("no SQL at all", []) == []
        assert tx.row("SELECT text FROM notes WHERE text = '?'") is None


def test_the_log_shrinks_once_a_long_reader_has_gone(database, notes_path):
    """While the snapshot lasts, SQLite can only append to the `-wal`; a few writes later it is at its limit again."""
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
    """The next one sees what was written since, and its own error has come out."""
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), database.snapshot() as tx:
            tx.rows("SELECT * FROM notes")
            outsider.execute("INSERT INTO notes (text) VALUES (hex(randomblob(8)))")
            raise error
    with database.snapshot() as tx:
        assert tx.row("SELECT count(*) FROM notes") == (2,)


def test_a_read_may_take_many_steps(database):
    """What is interrupted at its deadline is a transaction, which keeps other writers out."""
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000) SELECT max(i) FROM n"
    with database.snapshot() as tx:
        assert tx.row(many) == (200_000,)
    assert database.only_row(many) == (200_000,)


def test_a_single_statement_that_is_wrong_raises_its_own_error(database):
    """It would fail again, so it is no Unavailable."""
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        database.only_row("SELECT * FROM nowhere")


@pytest.mark.parametrize("verb", ["snapshot", "transaction"])
@pytest.mark.parametrize(
    ("pragma", "value"),
    [("synchronous", 2), ("foreign_keys", 1), ("trusted_schema", 0), ("wal_autocheckpoint", 4000)],
)
def test_every_connection_is_set_up_alike(database, verb, pragma, value):
    """An answered write is on disk (FULL is 2); no function of a strange schema runs; one checkpoint every 16 MB."""
    with getattr(database, verb)() as tx:
        assert tx.row(f"PRAGMA {pragma}") == (value,)
