"""What repositories get as `tx`: SQL inside a transaction that somebody else began and will end."""

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias, cast

from backend.domain import Timestamp
from backend.infrastructure.database_faults import is_duplicate

Row: TypeAlias = Any  # one row as a tuple; what its columns hold is the SQL's business


class Duplicate(Exception):
    """The statement would have made two rows alike that must differ; it changed nothing."""


class Tx:
    """SQL with `:name` parameters, and one time for the whole transaction. Used by one thread."""

    __slots__ = ("_connection", "actions", "now")

    def __init__(self, connection: sqlite3.Connection, now: Timestamp) -> None:
        self._connection = connection
        self.actions: list[Callable[[], None]] = []
        self.now = now

    def run(self, sql: str, **parameters: object) -> int:
        """Run one statement; the number of rows it changed. Raises Duplicate."""
        try:
            return self._connection.execute(sql, parameters).rowcount
        except sqlite3.IntegrityError as error:
            if is_duplicate(error):
                raise Duplicate from error
            raise

    def run_each(self, sql: str, parameters: Iterable[Mapping[str, object]]) -> None:
        """Run one statement many times."""
        self._connection.executemany(sql, parameters)

    def row(self, sql: str, **parameters: object) -> Row | None:
        """The first row, or None. The rest is read too: an open cursor would hold the snapshot."""
        rows = self._connection.execute(sql, parameters).fetchall()
        return rows[0] if rows else None

    def rows(self, sql: str, **parameters: object) -> list[Row]:
        return self._connection.execute(sql, parameters).fetchall()

    def rows_for(self, sql: str, ids: Sequence[str]) -> list[Row]:
        """The rows for many ids at once: `IN (:ids)` becomes as many parameters as there are ids. No ids, no query."""
        if not ids:
            return []
        names = ", ".join(f":id{n}" for n in range(len(ids)))
        return self.rows(sql.replace(":ids", names), **{f"id{n}": value for n, value in enumerate(ids)})

    def after_commit(self, action: Callable[[], None]) -> None:
        """Run `action` once the commit has succeeded; what it raises is logged, for the write stands."""
        self.actions.append(action)

    def end(self) -> None:
        """The connection is another's from now on."""
        self._connection = cast(sqlite3.Connection, _Over())


class _Over:
    def __getattr__(self, name: str) -> NoReturn:
        raise RuntimeError("this transaction is over")
