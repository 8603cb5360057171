"""Fixtures: this process's PostgreSQL database, emptied, and the service's database class on it."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests import postgres_server

if not postgres_server.available():
    collect_ignore_glob = ["test_*"]


@pytest.fixture
def url() -> str:
    return postgres_server.emptied_database()


@pytest.fixture
def make_database(url: str) -> Iterator[Callable[..., Any]]:
    from backend.postgres.database import PostgresDatabase

    made = []

    def make(**options: Any) -> PostgresDatabase:
        made.append(PostgresDatabase(url, **options))
        return made[-1]

    yield make
    for database in made:
        database.close()


@pytest.fixture
def database(make_database: Callable[..., Any]) -> Any:
    return make_database()


@pytest.fixture
def outsider(url: str) -> Iterator[Any]:
    """Another program's connection, which commits each statement."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Gets an entry for each connection that is opened from now on, by any thread of this process."""
    import psycopg

    connect, opened = psycopg.Connection.connect.__func__, list[object]()
    counted = classmethod(lambda kind, *given, **more: opened.append(kind) or connect(kind, *given, **more))
    monkeypatch.setattr(psycopg.Connection, "connect", counted)
    return opened


@pytest.fixture(params=["postgres"])
def wiring(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def fresh_url(url: str) -> Iterator[str]:
    """An empty database beside that of the other tests."""
    name = f"fresh_{os.getpid()}"
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield postgres_server.url_of(name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
