"""Which errors of SQLite are faults of the machine or of the moment, not of the statement: they become Unavailable."""

import sqlite3

# The connection is none the worse for these. It must not be closed: the last one to close takes the `-shm` along, which
# a full disk has no room to make again, and then there are no reads either.
PASSING = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC,
}  # fmt: skip
BROKEN = {
    sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOTADB,
}  # fmt: skip
PRIMARY = 0xFF  # the bits of a code that name its kind
UNIQUE = {sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY}


def sqlite_warnings() -> list[str]:
    """What is to be said at the start about this version of SQLite."""
    if (3, 7, 0) <= sqlite3.sqlite_version_info <= (3, 51, 2):
        what = "has the WAL-reset bug: a program that writes without our gate may corrupt the database"
        return [f"SQLite {sqlite3.sqlite_version} {what}"]
    return []


def is_passing(error: sqlite3.Error) -> bool:
    return bool(PASSING & {_code(error), _code(error) & PRIMARY})


def is_broken(error: BaseException | None) -> bool:
    return isinstance(error, sqlite3.Error) and not is_passing(error) and _code(error) & PRIMARY in BROKEN


def is_fault(error: BaseException) -> bool:
    return isinstance(error, sqlite3.Error) and (is_passing(error) or is_broken(error))


def is_duplicate(error: sqlite3.Error) -> bool:
    return _code(error) in UNIQUE


def _code(error: sqlite3.Error) -> int:
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code
