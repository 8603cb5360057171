"""Backups, for the operator: `backup FILE`, `verify FILE`, `restore FILE`. All raise BackupError."""

import signal
import sys
from pathlib import Path

from backend.operations.backup import backup
from backend.operations.restore import restore
from backend.operations.verify import verify
from backend.settings import Settings

MB = 2**20


def back_up(settings: Settings, file: Path) -> None:
    """Copy the database to `file`, with a line of progress on a terminal, and say what the copy has."""
    _clean_up_on_sigterm()
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    made = backup(settings.database_path, file, _show_progress if on_terminal else lambda *_: None)
    counts = f"users {made.users}, transactions {made.transactions}"
    print(f"{file}: {made.size / MB:.1f} MB, the database of {made.moment}: {counts}")


def check(file: Path) -> None:
    """Say what the backup has. Exits with 1 and a line for each problem if it is intact and the database was wrong."""
    found = verify(file)
    older = ", older than the code's: `restore` migrates it" if found.is_older else ""
    print(f"backup: {found.size / MB:.1f} MB, the database of {found.moment}")
    print(f"schema: {found.schema}{older}")
    print(f"rows: {', '.join(f'{table} {count}' for table, count in found.rows.items())}")
    if found.problems:
        sys.exit("\n".join(found.problems))
    print("integrity, foreign keys, ledger: good")


def put_back(settings: Settings, file: Path) -> None:
    """Replace the database by the backup, and say where the old one is."""
    _clean_up_on_sigterm()
    aside = restore(file, settings.database_path)
    print(f"restored from {file}; every login has ended")
    print(f"the database from before is {aside}" if aside else "there was no database before")


def _clean_up_on_sigterm() -> None:
    """Let SIGTERM end the command as Ctrl-C does, so that no unfinished file stays."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def _show_progress(remaining: int, total: int) -> None:
    percent = 100 * (total - remaining) // max(1, total)
    print(f"\r{percent:3} %", end="" if remaining else "\n", file=sys.stderr, flush=True)
