"""Copies of the database, for the operator: `backup`, `verify`, `restore`, `move`. All raise BackupError.

The first three are for SQLite. PostgreSQL has programs of its own for backups, which a refusal names.
"""

import shlex
import signal
import sys
from pathlib import Path

from backend.infrastructure.migrations import check_schema
from backend.operations.backup import backup, faults_as_one_line
from backend.operations.restore import restore
from backend.operations.seal import BackupError
from backend.operations.verify import verify
from backend.settings import Settings, SettingsError

MB = 2**20
DUMP = 'pg_dump -Fc --file={} "$DATABASE_URL"'
RESTORE = 'pg_restore --single-transaction --no-owner --dbname="$DATABASE_URL" {}, into an empty database'


def run_backup(settings: Settings, file: Path) -> None:
    """Copy the database to `file`, with a line of progress on a terminal, and say what the copy has."""
    _require_sqlite(settings, DUMP, file)
    _clean_up_on_sigterm()
    made = backup(settings.database_path, file, _show_progress)
    counts = f"users {made.users}, transactions {made.transactions}"
    print(f"{file}: {made.size / MB:.1f} MB, the database of {made.moment}: {counts}")


def run_verify(file: Path) -> None:
    """Say what the backup has. Exits with 1 and a line for each problem if it is intact and the database was wrong."""
    found = verify(file)
    older = ", older than the code's: `restore` migrates it" if found.is_older else ""
    print(f"backup: {found.size / MB:.1f} MB, the database of {found.moment}")
    print(f"schema: {found.schema}{older}")
    print(f"rows: {', '.join(f'{table} {count}' for table, count in found.rows.items())}")
    if found.problems:
        sys.exit("\n".join(found.problems))
    print("integrity, foreign keys, ledger: good")


def run_restore(settings: Settings, file: Path) -> None:
    """Replace the database by the backup, and say where the old one is."""
    _require_sqlite(settings, RESTORE, file)
    _clean_up_on_sigterm()
    aside = restore(file, settings.database_path)
    print(f"restored from {file}; every login has ended")
    print(f"the database from before is {aside}" if aside else "there was no database before")


def run_move(settings: Settings, file: Path) -> None:
    """Copy the SQLite database `file` into the empty PostgreSQL database, and say what it has. Raises AppError, too."""
    if settings.postgres_url is None:
        raise BackupError("DATABASE_URL is of SQLite; it must be the PostgreSQL database to move to")
    from backend.cli.move import move  # needs psycopg, an extra

    if not file.is_file():
        raise BackupError(f"there is no database at {file}")
    with faults_as_one_line(file):
        try:
            check_schema(file)
        except SettingsError:
            raise BackupError(f"{file} is a database of another application") from None
        moved = move(file, settings.postgres_url, lambda table: _show(f"copying {table}\n"))
    print(f"moved {file}: {', '.join(f'{table} {count}' for table, count in moved.items())}")
    print("every row has arrived; the ledger adds up")


def _require_sqlite(settings: Settings, instead: str, file: Path) -> None:
    if settings.postgres_url:
        raise BackupError(f"this is for SQLite; for PostgreSQL run {instead.format(shlex.quote(str(file)))}")


def _clean_up_on_sigterm() -> None:
    """Let SIGTERM end the command as Ctrl-C does, so that no unfinished file stays."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def _show_progress(remaining: int, total: int) -> None:
    percent = 100 * (total - remaining) // max(1, total)
    _show(f"\r{percent:3} %" + ("" if remaining else "\n"))


def _show(progress: str) -> None:
    """Write to the terminal, if there is one."""
    if sys.stderr is not None and sys.stderr.isatty():
        print(progress, end="", file=sys.stderr, flush=True)
