"""Fixtures: a small database of notes in both implementations, workers with caches, and an outside writer."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from backend.infrastructure.database import Database
from backend.settings import Settings
from tests.conftest import Clock
from tests.infrastructure.worker import DELETE, PUT, Worker, workers
from tests.watching import Statements, watch_statements
from tests.wirings import WIRINGS, database_class_of

Put = Callable[[str, int | None], None]


@pytest.fixture
def notes_path(tmp_path: Path) -> Path:
    """A database of notes with unique texts."""
    path = tmp_path / "notes.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE notes (text TEXT NOT NULL UNIQUE, number INTEGER CHECK (number > 0)) STRICT")
        connection.execute("CREATE TABLE tags (note TEXT NOT NULL REFERENCES notes (text)) STRICT")
    return path


@pytest.fixture(params=WIRINGS)
def database_class(request: pytest.FixtureRequest) -> type[Database]:
    """The database of each wiring: a test that uses a database runs over both."""
    return database_class_of(request.param)


@pytest.fixture
def make_database(database_class: type[Database], notes_path: Path) -> Iterator[Callable[..., Any]]:
    """Databases of notes, closed after the test: `make_database(busy_timeout=30)`."""
    made = []

    def make(path: Path = notes_path, **options: Any) -> Database:
        made.append(database_class(path, **options))
        return made[-1]

    yield make
    for database in made:
        database.close()


@pytest.fixture
def database(make_database: Callable[..., Any], clock: Clock) -> Database:
    return make_database(clock=clock)


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Statements:
    return watch_statements(monkeypatch)


@pytest.fixture
def outsider(notes_path: Path) -> Iterator[sqlite3.Connection]:
    """Another program's connection, which never waits for a lock."""
    with closing(sqlite3.connect(notes_path, isolation_level=None, timeout=0)) as connection:
        yield connection


@pytest.fixture
def written(outsider: sqlite3.Connection) -> Callable[[], list[str]]:
    """The texts that are committed by now."""
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
def make_worker(settings: Settings, wiring: str) -> Iterator[Callable[..., Worker]]:
    with workers(settings, wiring) as make:
        yield make


@pytest.fixture
def worker(make_worker: Callable[..., Worker]) -> Worker:
    return make_worker()


@pytest.fixture
def product_writer(database_path: Path) -> Iterator[sqlite3.Connection]:
    """A program that invalidates no cache."""
    with closing(sqlite3.connect(database_path, isolation_level=None, check_same_thread=False)) as connection:
        yield connection


@pytest.fixture
def writer(request: pytest.FixtureRequest) -> str:
    """Which thread or process `put` writes in: tests choose by `parametrize`."""
    return str(request.param)


@pytest.fixture
def put(writer: str, worker: Worker, make_worker: Callable[..., Worker], product_writer: sqlite3.Connection) -> Put:
    """Write a product's stock in another place than the test's; None deletes the product."""

    def in_a_thread(product: str, stock: int | None) -> None:
        thread = threading.Thread(target=worker.put, args=(product, stock))
        thread.start()
        thread.join()

    def outside(product: str, stock: int | None) -> None:
        product_writer.execute(DELETE if stock is None else PUT, {"id": product, "stock": stock})

    writers: dict[str, Put] = {
        "itself": worker.put,
        "another thread": in_a_thread,
        "another worker": make_worker().put,
        "an outsider": outside,
    }
    return writers[writer]
