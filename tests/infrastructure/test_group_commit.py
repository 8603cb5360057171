"""Writers that wait together are committed together: one COMMIT, nobody heard before it, all or none after a fault."""

import random
import sqlite3
import threading
import time
from collections.abc import Callable

import pytest

from backend.errors import NotFound, Unavailable
from backend.infrastructure import group_commit
from backend.infrastructure.database import Database
from tests.at_once import at_once
from tests.production.gunicorn_server import wait_until

FOR_EVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT count(*) FROM n"


class Crowd:
    """Writers in threads that come while `first` is in its transaction, one after the other; what became of each."""

    def __init__(self, database: Database) -> None:
        self.outcomes: dict[str, object] = {}
        self.commits = 0
        self._database = database
        self._members: list[tuple[str, Callable[..., None]]] = []
        self._threads: list[threading.Thread] = []

    def add(self, text: str, then: Callable[..., None] = lambda tx: None) -> None:
        """A writer who notes `text` and then does `then`."""
        self._members.append((text, then))

    def write(self) -> None:
        """`first` writes; when all have come and it ends, it is their turn. Returns when all have gone."""
        try:
            with self._database.transaction() as tx:
                tx.run("INSERT INTO notes (text) VALUES ('first')")
                tx._connection.set_trace_callback(self._count)
                for number, member in enumerate(self._members, 1):
                    self._threads.append(threading.Thread(target=self._live, args=member))
                    self._threads[-1].start()
                    wait_until(lambda: len(self._database._writers._gate.lock._line) == number)  # noqa: B023 - at once
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

    def _count(self, sql: str) -> None:
        self.commits += sql == "COMMIT"


@pytest.fixture(autouse=True)
def groups_that_stay_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is."""
    monkeypatch.setattr(group_commit, "OPEN_SECONDS", 30)


@pytest.fixture
def crowd(database: Database) -> Crowd:
    return Crowd(database)


def refuse(tx):
    raise NotFound


def test_those_who_have_waited_are_committed_at_once(crowd, written):
    for text in "abcd":
        crowd.add(text)
    crowd.write()
    assert crowd.outcomes == {key: value for t in "abcd" for key, value in ((t, "written"), (f"after {t}", True))}
    assert written() == [*"abcd", "first"]
    assert crowd.commits == 1


def test_each_sees_what_those_before_him_wrote(crowd):
    seen = []
    for text in "ab":
        crowd.add(text, lambda tx: seen.append(tx.rows("SELECT text FROM notes ORDER BY text")))
    crowd.write()
    assert seen == [[("a",), ("first",)], [("a",), ("b",), ("first",)]]


def test_who_raises_is_rolled_back_alone(crowd, written):
    """His own error comes out, and nothing that was to follow his commit happens."""
    crowd.add("a")
    crowd.add("b", refuse)
    crowd.add("c")
    crowd.write()
    assert crowd.outcomes == {"a": "written", "after a": True, "b": NotFound, "c": "written", "after c": True}
    assert written() == ["a", "c", "first"]
    assert crowd.commits == 1


@pytest.mark.parametrize("then", [lambda tx: None, refuse], ids=["who has written", "who refuses"])
def test_nobody_goes_on_before_the_commit(crowd, written, then):
    """What he refuses may follow from what is not on disk yet."""
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
    """He who had refused hears of nothing else either: it was never so. Nothing follows, and then all is well again."""
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


def fill(tx):
    tx.rows("PRAGMA max_page_count = 8")
    tx.run("INSERT INTO notes (text) VALUES (:long)", long="x" * 100_000)


@pytest.mark.parametrize(
    "fault", [fill, lambda tx: tx.rows(FOR_EVER)], ids=["the disk is full", "it takes too long"]
)  # fmt: skip
def test_a_fault_of_the_database_loses_the_group_and_no_more(notes_path, written, fault):
    """Those in it get Unavailable; those behind are of the next."""
    database = Database(notes_path, busy_timeout=0.5)
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
    database.close()


class Failing:
    """A connection to SQLite that fails at one statement, at first or, if it is to be `done`, just after it."""

    def __init__(self, sqlite: sqlite3.Connection, at: str, error: Exception, done: bool = False) -> None:
        self._sqlite, self._at, self._error, self._done = sqlite, at, error, done

    def __getattr__(self, name: str) -> object:
        return getattr(self._sqlite, name)

    def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:
        if sql != self._at:
            return self._sqlite.execute(sql, *parameters)
        if self._done:
            self._sqlite.execute(sql, *parameters)
        raise self._error


def fail(database: Database, at: str, error: Exception, done: bool = False) -> None:
    connection = database._writers._connection
    connection.sqlite = Failing(connection.sqlite, at, error, done)


@pytest.mark.parametrize(
    ("error", "told"),
    [(sqlite3.OperationalError("no such savepoint"), Unavailable), (MemoryError(), MemoryError)],
    ids=["SQLite had rolled back everything", "no memory"],
)
def test_who_cannot_be_rolled_back_alone_loses_the_group(crowd, database, written, error, told):
    """Nothing of his is written; and his refusal, which may follow from what is not written either, is not heard."""

    def refuse_badly(tx):
        fail(database, "ROLLBACK TO member", error)
        raise NotFound

    crowd.add("a")
    crowd.add("b", refuse_badly)
    with pytest.raises(Unavailable):
        crowd.write()
    assert crowd.outcomes == {"a": Unavailable, "b": told}
    assert written() == []


@pytest.mark.parametrize(("at", "done"), [("BEGIN IMMEDIATE", True), ("ROLLBACK", False)])
def test_a_transaction_in_which_a_want_of_memory_left_the_connection_ends_with_it(
    database, write, written, outsider, at, done
):
    """Else nobody could write any more, in whichever process."""
    write("a")
    fail(database, at, MemoryError(), done)
    with pytest.raises(MemoryError), database.transaction():
        raise NotFound
    outsider.execute("INSERT INTO notes (text) VALUES ('b')")
    write("c")
    assert written() == ["a", "b", "c"]


def test_a_connection_is_closed_whoever_still_refers_to_it(database, write):
    """As the error of a failed commit does, until somebody collects the garbage."""
    write("a")
    connection = database._writers._connection
    database.close()
    with pytest.raises(sqlite3.ProgrammingError):
        connection.sqlite.execute("SELECT 1")


def test_a_group_that_is_old_takes_nobody_in(crowd, monkeypatch):
    """Other processes have their turn."""
    monkeypatch.setattr(group_commit, "OPEN_SECONDS", 0)
    for text in "abc":
        crowd.add(text)
    crowd.write()
    assert crowd.commits == 4


@pytest.mark.parametrize("seed", range(20))
def test_what_was_answered_is_there_and_what_was_refused_is_not(notes_path, written, seed):
    """Two processes' worth of eight threads, a third of whom raise in the middle; nobody is heard too early."""
    two = [Database(notes_path, busy_timeout=30, patient=16) for _ in range(2)]
    chance, answered, early = random.Random(seed), [], []

    def work(database: Database, name: str, fails: list[bool]) -> None:
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
                    database.close()  # the others' group is none of its business
            answered.append(f"{name}-{number}")
            with database.snapshot() as tx:
                early.extend([number] * (not tx.row("SELECT 1 FROM notes WHERE text = :t", t=f"{name}-{number}")))
        database.close()

    plans = [[chance.random() < 0.3 for _ in range(10)] for _ in range(16)]
    at_once(lambda n=n: work(two[n % 2], f"{n}", plans[n]) for n in range(16))
    assert written() == sorted(answered)
    assert early == []
