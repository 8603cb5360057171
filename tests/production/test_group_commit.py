"""Writers that wait together are committed together: one COMMIT, no result before it, all or none after a fault."""

import random
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace

import pytest

from backend.errors import NotFound, Unavailable
from backend.production import database as group_commit
from backend.production.database import GroupCommitDatabase
from tests.at_once import asleep, at_once
from tests.conftest import Clock
from tests.waiting import wait_until

FOR_EVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT count(*) FROM n"


class Crowd:
    """Writers in threads that come one after another while `first` is in its transaction, and their outcomes."""

    def __init__(self, database: GroupCommitDatabase) -> None:
        self.outcomes: dict[str, object] = {}
        self._database = database
        self._members: list[tuple[str, Callable[..., None]]] = []
        self._threads: list[threading.Thread] = []

    def add(self, text: str, then: Callable[..., None] = lambda tx: None) -> None:
        """Add a writer that notes `text` and then calls `then`."""
        self._members.append((text, then))

    def write(self) -> None:
        """Let `first` write. At the end of its block all others are in line. Returns when all have ended."""
        try:
            with self._database.transaction() as tx:
                tx.run("INSERT INTO notes (text) VALUES ('first')")
                for member in self._members:
                    self._threads.append(threading.Thread(target=self._live, args=member))
                    self._threads[-1].start()
                    asleep(self._threads[-1])
        finally:
            for thread in self._threads:
                thread.join()

    def _live(self, text: str, then: Callable[..., None]) -> None:
        try:
            with self._database.transaction() as tx:
                tx.run("INSERT INTO notes (text) VALUES (:text)", text=text)
                tx.after_commit(lambda: self.outcomes.update({f"after {text}": True}))
                then(tx)
            self.outcomes[text] = "written"
        except Exception as error:
            self.outcomes[text] = type(error)
        finally:
            self._database.close()


@pytest.fixture(autouse=True)
def groups_that_stay_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slow machine, too."""
    monkeypatch.setattr(group_commit, "OPEN_SECONDS", 30)


@pytest.fixture
def database(make_database):
    return make_database(busy_timeout=30, max_waiters=16)


@pytest.fixture
def crowd(database) -> Crowd:
    return Crowd(database)


def refuse(tx):
    raise NotFound


def test_writers_that_wait_together_share_one_commit(crowd, statements, written):
    for text in "abcd":
        crowd.add(text)
    crowd.write()
    assert crowd.outcomes == {key: value for t in "abcd" for key, value in ((t, "written"), (f"after {t}", True))}
    assert written() == [*"abcd", "first"]
    assert (statements.ran.count("BEGIN IMMEDIATE"), statements.ran.count("COMMIT")) == (1, 1)


def test_a_lone_writer_needs_no_savepoint(database, statements, write):
    write("a")
    assert not [sql for sql in statements.ran if sql.startswith("SAVEPOINT")]


def test_a_member_sees_the_writes_of_those_before_it(crowd):
    seen = []
    for text in "ab":
        crowd.add(text, lambda tx: seen.append(tx.rows("SELECT text FROM notes ORDER BY text")))
    crowd.write()
    assert seen == [[("a",), ("first",)], [("a",), ("b",), ("first",)]]


def test_a_member_that_raises_is_rolled_back_alone(crowd, statements, written):
    """Its own error is raised, and its after-commit actions do not run."""
    crowd.add("a")
    crowd.add("b", refuse)
    crowd.add("c")
    crowd.add("d", refuse)
    crowd.write()
    assert crowd.outcomes == {
        "a": "written", "after a": True, "b": NotFound, "c": "written", "after c": True, "d": NotFound,
    }  # fmt: skip
    assert written() == ["a", "c", "first"]
    assert statements.ran.count("COMMIT") == 1


@pytest.mark.parametrize("then", [lambda tx: None, refuse], ids=["it has written", "it refuses"])
def test_no_member_goes_on_before_the_commit(crowd, written, then):
    """Its error may depend on writes that are not on disk yet."""
    before = []

    def look(tx):
        time.sleep(0.05)
        before.append(dict(crowd.outcomes))

    crowd.add("a", then)
    crowd.add("b", look)
    crowd.write()
    assert before == [{}]
    assert {"b", "first"} <= set(written())


def test_a_commit_that_fails_fails_them_all(crowd, database, notes_path, written):
    """A member that raised gets Unavailable, too: it saw writes that were lost. Later writes succeed."""
    aside = notes_path.with_name("aside.db")
    crowd.add("a")
    crowd.add("b", refuse)
    crowd.add("c", lambda tx: notes_path.rename(aside))
    with pytest.raises(Unavailable):
        crowd.write()
    assert crowd.outcomes == dict.fromkeys("abc", Unavailable)
    aside.rename(notes_path)
    assert written() == []
    database.check_writable()


def test_a_commit_that_sqlite_refuses_is_logged_once(crowd, database, statements, written, caplog):
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode, full.sqlite_errorname = sqlite3.SQLITE_FULL, "SQLITE_FULL"
    statements.fail("COMMIT", full)
    crowd.add("a")
    with pytest.raises(Unavailable):
        crowd.write()
    assert crowd.outcomes == {"a": Unavailable}
    assert written() == []
    assert len([record for record in caplog.records if "disk is full" in record.getMessage()]) == 1
    database.check_writable()


def test_a_connection_that_may_be_broken_is_replaced_after_its_group(database, written):
    """Whichever member had the fault."""
    unreadable = sqlite3.OperationalError("disk I/O error")
    unreadable.sqlite_errorcode, unreadable.sqlite_errorname = sqlite3.SQLITE_IOERR_READ, "SQLITE_IOERR_READ"

    def fail():
        with suppress(Unavailable), database.transaction() as tx:
            tx.rows("PRAGMA cache_size = 777")  # lasts as long as the connection
            raise unreadable

    member = threading.Thread(target=fail)
    with pytest.raises(Unavailable), database.transaction() as tx:
        tx.run("INSERT INTO notes (text) VALUES ('a')")
        member.start()
        asleep(member)
    member.join()
    with database.transaction() as tx:
        assert tx.row("PRAGMA cache_size") != (777,)
    assert written() == []


def fill(tx):
    tx.rows("PRAGMA max_page_count = 8")
    tx.run("INSERT INTO notes (text) VALUES (:long)", long="x" * 100_000)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The database's monotonic clock."""
    clock = Clock()
    monkeypatch.setattr(group_commit, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + clock.ahead))
    return clock


@pytest.mark.parametrize("fault", ["the disk is full", "it takes too long"])
def test_a_fault_of_the_database_loses_the_group_and_no_more(make_database, written, clock, fault):
    """All its members get Unavailable, and later writers form the next group."""

    def work_too_long(tx):
        clock.advance(60)
        tx.rows(FOR_EVER)

    database = make_database(busy_timeout=30)
    fault = fill if fault == "the disk is full" else work_too_long
    crowd = Crowd(database)
    crowd.add("a")
    crowd.add("b", fault)
    with pytest.raises(Unavailable):
        crowd.write()
    assert crowd.outcomes == {"a": Unavailable, "b": Unavailable}
    with database.transaction() as tx:
        tx.rows("PRAGMA max_page_count = 1000")
        tx.run("INSERT INTO notes (text) VALUES ('c')")
    assert written() == ["c"]


@pytest.mark.parametrize(
    "error",
    [sqlite3.OperationalError("no such savepoint"), MemoryError()],
    ids=["SQLite had rolled back everything", "no memory"],
)
def test_a_member_that_cannot_be_rolled_back_alone_loses_the_group(crowd, statements, written, error):
    """Nothing is written. Its own error is not raised, since it may depend on writes that are lost."""

    def refuse_badly(tx):
        statements.fail("ROLLBACK TO member", error)
        raise NotFound

    crowd.add("a")
    crowd.add("b", refuse_badly)
    with pytest.raises(Unavailable):
        crowd.write()
    assert crowd.outcomes == {"a": Unavailable, "b": Unavailable}
    assert written() == []


@pytest.mark.parametrize("at", ["COMMIT", "SAVEPOINT member"])
def test_a_memory_error_keeps_neither_the_gate_nor_the_lock(crowd, database, statements, written, outsider, at):
    """Otherwise no process could write again."""
    statements.fail(at, MemoryError())
    crowd.add("a")
    with pytest.raises(Unavailable):
        crowd.write()
    assert crowd.outcomes == {"a": Unavailable}
    outsider.execute("INSERT INTO notes (text) VALUES ('b')")
    database.check_writable()
    assert written() == ["b"]


def test_an_old_group_admits_no_member(crowd, statements, monkeypatch):
    """It ends, so that other processes have their turn."""
    monkeypatch.setattr(group_commit, "OPEN_SECONDS", 0)
    for text in "abc":
        crowd.add(text)
    crowd.write()
    assert statements.ran.count("COMMIT") == 4


@pytest.mark.parametrize("seed", range(20))
def test_what_was_answered_is_there_and_what_was_refused_is_not(make_database, written, seed):
    """Two databases of eight threads. A third of the transactions raise; none returns before its commit."""
    two = [make_database(busy_timeout=30, max_waiters=16) for _ in range(2)]
    chance, answered, early = random.Random(seed), [], []

    def work(database: GroupCommitDatabase, name: str, fails: list[bool]) -> None:
        for number, fail in enumerate(fails):
            try:
                with database.transaction() as tx:
                    tx.run("INSERT INTO notes (text) VALUES (:text)", text=f"{name}-{number}")
                    if fail:
                        raise NotFound
            except NotFound:
                continue
            finally:
                if number % 3 == 0:
                    database.close()  # does not touch the group of other threads
            answered.append(f"{name}-{number}")
            with database.snapshot() as tx:
                early.extend([number] * (not tx.row("SELECT 1 FROM notes WHERE text = :t", t=f"{name}-{number}")))
        database.close()

    plans = [[chance.random() < 0.3 for _ in range(10)] for _ in range(16)]
    at_once(lambda n=n: work(two[n % 2], f"{n}", plans[n]) for n in range(16))
    assert written() == sorted(answered)
    assert early == []


def test_a_member_has_held_the_lock_until_it_passed_it_on(crowd, database):
    """Not until the COMMIT: the first member is told while the last one still works."""
    heard = []
    database.on_write.append(lambda waited, held: heard.append(threading.current_thread().name))
    crowd.add("a", lambda tx: wait_until(lambda: len(heard) == 1))
    crowd.write()
    assert crowd.outcomes["a"] == "written"
    assert heard[0] == threading.current_thread().name
