"""Fixtures: a database with rows of the service, and a backup of it."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from backend.operations.backup import backup


def note(database: Path, text: str) -> None:
    """Commit one more row, a request for a reset of the address `text`, as another process would."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("INSERT INTO reset_requests (id, email) VALUES (hex(randomblob(16)), ?)", (text,))
        connection.commit()


def notes_in(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return [text for (text,) in connection.execute("SELECT email FROM reset_requests ORDER BY email")]


def back_up(database: Path, file: Path) -> Path:
    """A backup without a word."""
    backup(database, file, lambda *_: None)
    return file


@pytest.fixture
def saved(database_path: Path, tmp_path: Path) -> Path:
    """A backup of the test's database, in a folder of its own."""
    (tmp_path / "backups").mkdir()
    return back_up(database_path, tmp_path / "backups" / "nightly.db")
