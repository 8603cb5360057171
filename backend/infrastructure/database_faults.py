"""Which errors of SQLite are faults of the machine or of the moment, not of the statement: they become Unavailable."""

import sqlite3

BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
BROKEN = {
    sqlite3.SQLITE_READONLY, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOTADB,
}  # fmt: skip
UNIQUE = {sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY}


def is_busy(error: sqlite3.Error) -> bool:
    return _primary(error) in BUSY


def is_broken(error: sqlite3.Error) -> bool:
    return _primary(error) in BROKEN


def is_duplicate(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) in UNIQUE


def _primary(error: sqlite3.Error) -> int:
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF
