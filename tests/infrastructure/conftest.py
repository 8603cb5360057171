"""Fixtures: a database of notes, small enough to break, and somebody else who uses it too."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backend.infrastructure.database import Database
from tests.conftest import Clock


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
