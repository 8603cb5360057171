"""Fixtures: a database of notes, small enough to break, workers with caches, and somebody else who writes too."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backend.infrastructure.database import Database
from tests.conftest import Clock
from tests.infrastructure.worker import Worker


@pytest.fixture
def notes_path(tmp_path: Path) -> Path:
    """A database of notes, no two alike."""
    path = tmp_path / "notes.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE notes (text TEXT NOT NULL UNIQUE, number INTEGER CHECK (number > 0)) STRICT")
        connection.execute("CREATE TABLE tags (note TEXT NOT NULL REFERENCES notes (text)) STRICT")
    return path


@pytest.fixture
def database(notes_path: Path, clock: Clock) -> Iterator[Database]:
    database = Database(notes_path, clock=clock)
    yield database
    database.close()


@pytest.fixture
def outsider(notes_path: Path) -> Iterator[sqlite3.Connection]:
    """Somebody else's connection, which waits for nothing."""
    with closing(sqlite3.connect(notes_path, isolation_level=None, timeout=0)) as connection:
        yield connection


@pytest.fixture
def written(outsider: sqlite3.Connection) -> Callable[[], list[str]]:
    """What everybody can read by now."""
    return lambda: [text for (text,) in outsider.execute("SELECT text FROM notes ORDER BY text")]


@pytest.fixture
def write(database: Database) -> Callable[..., None]:
    """Write notes in one transaction: `write("a", "b")`."""

    def write(*texts: str) -> None:
        with database.transaction() as tx:
            for text in texts:
                tx.run("INSERT INTO notes (text) VALUES (:text)", text=text)

    return write


@pytest.fixture
def make_worker(database_path: Path) -> Iterator[Callable[..., Worker]]:
    made: list[Worker] = []

    def make(**changes: object) -> Worker:
        made.append(Worker(database_path, **changes))
        return made[-1]

    yield make
    for worker in made:
        worker.database.close()


@pytest.fixture
def worker(make_worker: Callable[..., Worker]) -> Worker:
    return make_worker()


@pytest.fixture
def product_writer(database_path: Path) -> Iterator[sqlite3.Connection]:
    """A program that knows nothing of caches."""
    with closing(sqlite3.connect(database_path, isolation_level=None, check_same_thread=False)) as connection:
        yield connection
