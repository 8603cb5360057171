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
def never_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, a kept connection is not tried before its next use, nor replaced."""
    from backend.postgres import database as module

    monkeypatch.setattr(module, "IDLE_SECONDS", 3600)


@pytest.fixture
def make_database(url: str, never_idle: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Patient databases: `make_database(busy_timeout=0.2)` bounds the waits for locks, and the URL's options hold."""
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    from backend.postgres import database as module

    monkeypatch.setattr(module, "WORK_SECONDS", 600)
    made = []

    def make(given: str = url, busy_timeout: float = 600) -> module.PostgresDatabase:
        options = f"-c idle_in_transaction_session_timeout=600s {conninfo_to_dict(given).get('options', '')}"
        patient = make_conninfo(given, connect_timeout=600, options=options)
        made.append(module.PostgresDatabase(patient, busy_timeout))
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
def opened(never_idle: None, monkeypatch: pytest.MonkeyPatch) -> list[object]:
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
