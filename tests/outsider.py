"""Another program that uses the test's database beside the service: on SQLite, or on PostgreSQL."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.postgres_server import url_of

REFUSE = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'broken on purpose'; END $$"
NOT_WATCHED = {"rate_limits"}  # counts of PostgreSQL's limiter, which are not the service's data


class Outsider:
    """One connection, which commits each statement. SQL is as in the service. Used by one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: Any = sqlite3.connect(path, isolation_level=None)

    def rows(self, sql: str, **parameters: object) -> list[Any]:
        """Run one statement and return its rows."""
        return list(self._connection.execute(sql, parameters).fetchall())

    def tables(self) -> list[str]:
        return [name for (name,) in self.rows("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]

    def contents(self) -> list[str]:
        """All rows of all tables."""
        return list(self._connection.iterdump())

    def stored(self) -> bytes:
        """All that the database has stored."""
        return self._path.read_bytes() + self._path.with_name(f"{self._path.name}-wal").read_bytes()

    def version(self) -> object:
        """A value that changes with every write."""
        return self.rows("PRAGMA data_version")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep all writers waiting, and no reader."""
        self.rows("BEGIN IMMEDIATE")
        yield
        self.rows("ROLLBACK")

    @contextmanager
    def without(self, table: str) -> Iterator[None]:
        """Without this table, as far as the service can see."""
        self.rows(f"ALTER TABLE {table} RENAME TO gone")
        try:
            yield
        finally:
            self.rows(f"ALTER TABLE gone RENAME TO {table}")

    @contextmanager
    def refusing(self, table: str) -> Iterator[None]:
        """Every statement that inserts or updates a row of this table fails."""
        for verb in ("INSERT", "UPDATE"):
            self.rows(
                f"CREATE TRIGGER no_{verb} AFTER {verb} ON {table} BEGIN SELECT RAISE(ABORT, 'broken on purpose'); END"
            )
        yield
        for verb in ("INSERT", "UPDATE"):
            self.rows(f"DROP TRIGGER no_{verb}")

    @contextmanager
    def changed(self, sql: str) -> Iterator[None]:
        """With the schema's records changed by a statement."""
        kept = self.rows("SELECT version, name, applied_at FROM schema_migrations")
        self.rows(sql)
        try:
            yield
        finally:
            self.rows("DELETE FROM schema_migrations")
            for version, name, at in kept:
                self.rows(
                    "INSERT INTO schema_migrations VALUES (:version, :name, :at)", version=version, name=name, at=at
                )

    def nowhere(self) -> dict[str, object]:
        """Changes of the settings: a database that does not exist."""
        return {"database_path": self._path.with_name("absent.db")}

    def close(self) -> None:
        self._connection.close()


class PostgresOutsider(Outsider):
    """The same on PostgreSQL."""

    def __init__(self, url: str) -> None:
        import psycopg

        from backend.postgres.pipeline import Pipeline

        self._connection = psycopg.connect(url, autocommit=True)
        self._pipeline = Pipeline(self._connection)

    def rows(self, sql: str, **parameters: object) -> list[Any]:
        return self._pipeline.rows(self._pipeline.run([(sql, parameters)])[0])

    def tables(self) -> list[str]:
        names = self.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename")
        return [name for (name,) in names if name not in NOT_WATCHED]

    def contents(self) -> list[str]:
        return [
            f"{table} {row}"
            for table in self.tables()
            for (row,) in self.rows(f"SELECT one::text FROM {table} AS one ORDER BY 1")
        ]

    def stored(self) -> bytes:
        return "\n".join(self.contents()).encode()

    def version(self) -> object:
        """A row that is written anew has another `xmin`, even with the same values."""
        return [self.rows(f"SELECT xmin::text, one::text FROM {table} AS one ORDER BY 2") for table in self.tables()]

    def nowhere(self) -> dict[str, object]:
        return {"postgres_url": url_of("absent")}

    @contextmanager
    def locked(self) -> Iterator[None]:
        with self._connection.transaction(force_rollback=True):
            self.rows(f"LOCK TABLE {', '.join(self.tables())} IN EXCLUSIVE MODE")
            yield

    @contextmanager
    def refusing(self, table: str) -> Iterator[None]:
        self.rows(REFUSE)
        try:
            self.rows(f"CREATE TRIGGER refuse AFTER INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION refuse()")
            yield
        finally:
            self.rows("DROP FUNCTION refuse CASCADE")
