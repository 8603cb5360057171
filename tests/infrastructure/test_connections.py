"""One connection a thread: closed with it, of no use to a forked child, and never on a file that is not there."""

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from backend.errors import Unavailable
from backend.infrastructure.database import Database
from tests.at_once import at_once
from tests.forked import Forked

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # 3.12: we fork beside threads on purpose


def in_a_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def descriptors_of(path: Path) -> int:
    """How often this process has the database file itself open."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found += link.readlink() == path
    return found


def texts(database: Database) -> list[str]:
    with database.snapshot() as tx:
        return [text for (text,) in tx.rows("SELECT text FROM notes ORDER BY text")]


def test_each_thread_has_a_view_of_its_own(database, write):
    """A snapshot in one thread keeps to its moment while another writes and reads."""
    with database.snapshot() as tx:
        assert tx.rows("SELECT text FROM notes") == []
        in_a_thread(lambda: write("a"))
        assert tx.rows("SELECT text FROM notes") == []
    assert texts(database) == ["a"]


def test_the_version_tells_of_commits(database, outsider, write):
    """One's own, another thread's and an outsider's; not of reads, or of what was rolled back."""
    write("a")
    first = database.version()
    texts(database)
    outsider.execute("BEGIN IMMEDIATE")
    outsider.execute("INSERT INTO notes (text) VALUES ('b')")
    outsider.execute("ROLLBACK")
    assert database.version() == first
    outsider.execute("INSERT INTO notes (text) VALUES ('b')")
    second = database.version()
    in_a_thread(lambda: write("c"))
    third = database.version()
    write("d")
    assert len({first, second, third, database.version()}) == 4


def test_the_version_tells_of_a_new_connection(database, write):
    """What happened between the old one and the new one, nobody knows."""
    first = database.version()
    database.close()
    assert database.version() != first


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_connection_is_closed_with_its_thread(database, notes_path, write):
    """One for each of ten threads to read with, none when they are over; `close` closes the one for writing."""
    all_in = threading.Barrier(10, action=lambda: opened.append(descriptors_of(notes_path)))
    opened: list[int] = []

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


def test_what_fails_in_an_ended_thread_leaves_no_connection_behind(database, notes_path):
    def fail() -> None:
        with suppress(RuntimeError), database.transaction() as tx:
            tx.run("INSERT INTO notes (text) VALUES ('a')")
            raise RuntimeError

    for _ in range(3):
        in_a_thread(fail)
    assert descriptors_of(notes_path) == 1  # the process's own, to write with
    database.close()
    assert descriptors_of(notes_path) == 0


def test_a_forked_child_has_connections_of_its_own(database, outsider, write):
    """It reads and writes while the parent's snapshot stays what it was."""
    write("a")

    def work() -> list[str]:
        write("b")
        return texts(database)

    with database.snapshot() as tx:
        assert tx.rows("SELECT text FROM notes") == [("a",)]
        assert Forked(work).result() == ["a", "b"]
        assert tx.rows("SELECT text FROM notes") == [("a",)]
    assert texts(database) == ["a", "b"]


def test_a_forked_child_neither_ends_nor_shares_its_parents_transaction(database, outsider, written):
    """Its threads, its `close` and its end: the parent has its lock, and all that had spilled into the log."""

    def work() -> list[str]:
        in_a_thread(lambda: texts(database))
        found = texts(database)
        database.close()
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


def test_a_child_leaves_the_connections_of_its_parents_other_threads_alone(database, outsider, written):
    """They vanish with their threads in the child, without a word to the database that they were of."""
    forked, done = threading.Event(), threading.Event()

    def write_slowly() -> None:
        with database.transaction() as tx:
            tx.run("INSERT INTO notes (text) VALUES ('a')")
            forked.set()
            done.wait(10)

    writer = threading.Thread(target=write_slowly)
    writer.start()
    assert forked.wait(10)
    assert Forked(lambda: texts(database)).result() == []
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        outsider.execute("BEGIN IMMEDIATE")
    done.set()
    writer.join()
    assert written() == ["a"]


def test_many_questions_for_news_cost_few_looks_at_the_file(database, notes_path, monkeypatch):
    """A look takes thrice as long as the question."""
    looks, stat = [], os.stat

    def counted(path, *more, **options):
        if path == notes_path:
            looks.append(path)
        return stat(path, *more, **options)

    monkeypatch.setattr(os, "stat", counted)
    for _ in range(200):
        database.version()
    assert 1 <= len(looks) < 100


@pytest.mark.parametrize("known", [True, False], ids=["connected before", "not connected before"])
def test_a_database_that_was_deleted_is_an_error_and_not_a_new_one(notes_path, known):
    """Neither written (it would be lost) nor read; nothing is made in its place. Put back, it is as it was."""
    database = Database(notes_path)
    if known:
        texts(database)
    aside = notes_path.rename(notes_path.with_name("aside.db"))
    for use in (database.snapshot, database.transaction):
        with pytest.raises(Unavailable), use():
            raise AssertionError("not to be reached")
    with pytest.raises(Unavailable):
        database.version()
    with pytest.raises(Unavailable):
        database.check_writable()
    assert not notes_path.exists()
    aside.rename(notes_path)
    database.check_writable()
    assert texts(database) == []
    database.close()


def test_a_database_that_was_replaced_needs_a_restart(database, notes_path, write):
    """The old one's log lies beside the new file: until then neither is read or written, whatever the thread."""
    write("old")
    new = notes_path.with_name("new.db")
    with closing(sqlite3.connect(new)) as connection:
        connection.execute("CREATE TABLE notes (text TEXT NOT NULL)")
    before = new.read_bytes()
    new.replace(notes_path)
    for _ in range(2):
        with pytest.raises(Unavailable):
            texts(database)
        with pytest.raises(Unavailable):
            write("lost")
        database.close()
    assert notes_path.read_bytes() == before
