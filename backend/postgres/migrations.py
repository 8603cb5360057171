"""Migrations on PostgreSQL: each file `sql/postgres/NNNN_name.sql` is one change of the schema, applied once, in order.

All files and their records are one transaction, since DDL is transactional here. An advisory lock makes hosts that
migrate at the same time take turns; the later ones find the records.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import errors

from backend.infrastructure.migrations import MIGRATE, SchemaMismatch, migration_files
from backend.postgres.database import PostgresDatabase
from backend.settings import SettingsError

DIRECTORY = Path(__file__).parents[2] / "sql" / "postgres"
OLDEST = 140000  # PostgreSQL 14
RECORDS = """CREATE TABLE IF NOT EXISTS schema_migrations
    (version bigint PRIMARY KEY, name text COLLATE "C" NOT NULL, applied_at bigint NOT NULL)"""
RECORD = "INSERT INTO schema_migrations VALUES (%s, %s, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)"
VERSIONS = "SELECT version FROM schema_migrations"
UNUSABLE = (  # a server that is gone or a replica, missing rights, another application's tables
    psycopg.OperationalError, errors.ReadOnlySqlTransaction, errors.InsufficientPrivilege, errors.DuplicateTable,
)  # fmt: skip
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('schema_migrations', 0))"


def migrate(url: str, directory: Path = DIRECTORY) -> list[str]:
    """Bring the database to the newest schema. Returns the names of the applied files.

    Raises SettingsError, with nothing changed, if the database cannot be used; psycopg.Error for a mistake in a file.
    """
    with _connected(url) as connection:
        connection.execute(LOCK)
        connection.execute(RECORDS)
        applied = {version for (version,) in connection.execute(VERSIONS)}
        missing = {version: file for version, file in migration_files(directory).items() if version not in applied}
        for version, file in missing.items():
            connection.execute(file.read_text(encoding="utf-8").encode())
            connection.execute(RECORD, (version, file.stem))
    return [file.stem for file in missing.values()]


def check_schema(url: str, directory: Path = DIRECTORY) -> None:
    """Raises SchemaMismatch unless exactly the files of `directory` have been applied, and SettingsError."""
    with _connected(url) as connection:
        _check(lambda sql: connection.execute(sql).fetchall(), directory)


def check_schema_of(database: PostgresDatabase, directory: Path = DIRECTORY) -> None:
    """The same over the service's connections. Raises SchemaMismatch, Unavailable."""
    with database.read() as tx:
        _check(tx.rows, directory)


def _check(rows: Callable[[str], list[Any]], directory: Path) -> None:
    wanted = migration_files(directory).keys()
    ((exists,),) = rows("SELECT to_regclass('schema_migrations') IS NOT NULL")
    applied = {version for (version,) in rows(VERSIONS)} if exists else set()
    if wanted - applied:
        raise SchemaMismatch(f"the schema of the database is older than the code: {MIGRATE}")
    if applied - wanted:
        raise SchemaMismatch("the schema of the database is newer than the code: deploy the newer code")


@contextmanager
def _connected(url: str) -> Iterator[psycopg.Connection]:
    """A transaction. Raises SettingsError if the database cannot be used. No password is in the message."""
    try:
        with psycopg.connect(url, connect_timeout=5) as connection:
            _check_server(connection.info)
            yield connection
    except UNUSABLE as error:
        raise SettingsError(f"DATABASE_URL: the PostgreSQL database cannot be used ({first_line(error)})") from None
    except psycopg.ProgrammingError as error:
        if error.sqlstate:
            raise  # a mistake in a migration
        raise SettingsError("DATABASE_URL is no URL that PostgreSQL's client can read") from None  # the error quotes it


def _check_server(server: psycopg.ConnectionInfo) -> None:
    if server.server_version < OLDEST:
        raise SettingsError("DATABASE_URL: the PostgreSQL server is older than version 14")
    if (encoding := server.parameter_status("server_encoding")) != "UTF8":
        raise SettingsError(f"DATABASE_URL: the PostgreSQL database has the encoding {encoding}; it must be UTF8")


def first_line(error: psycopg.Error) -> str:
    """The error without its details, which may quote a row."""
    return str(error).strip().splitlines()[0]
