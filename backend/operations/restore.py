"""Restore: put a backup in the place of the database.

Done by hand, this fails silently. A `-wal` that a killed server has left is replayed into the restored file and
damages it; a server that still runs writes into a file without a name; and clients keep what they got after the
backup's moment.

  check    The backup is verified. The database must be out of use. Every open connection holds SQLite's shared lock on
           the file for as long as it lives, so an exclusive lock on the same bytes shows whether there is one.
  prepare  In a folder beside the database: copy the backup, migrate it, make it safe for clients (below), verify it.
  fold     SQLite moves what the old `-wal` holds into the old database, and removes `-wal` and `-shm`.
  swap     Under the exclusive lock: give the old database a second name, then rename the new one into its place. One
           rename: at every moment the path has the whole old or the whole new database.

A process that opens the old file at the very moment of the swap finds by `connect` that it was replaced, and a
production server refuses a file that was not there at its start. So no write goes to the old database afterwards.

What clients have got since the backup's moment must not be taken for what the database now says:
- Every login ends, and every open password reset.
- Every version starts again at the time of the restore in microseconds. Otherwise a version that an ETag has named
  before the restore would come again with another content, and that ETag would give 304 or pass `If-Match`. No row
  changes once in a microsecond, so no version comes twice, even if the same backup is restored again. (Adding a
  constant would be wrong: the second restore would repeat the versions of the first.)

Not promised: that the world outside is put back. Mail and webhooks of events in the backup that were delivered later
are delivered again, with the same event id. An `Idempotency-Key` of a request after the backup's moment is forgotten,
as its effect is. And if the clock is set back between two restores, versions may repeat.
"""

import os
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, lockf
from pathlib import Path

from backend.infrastructure.database import TRANSIENT, Database, connect, is_fault
from backend.infrastructure.migrations import check_schema, gate_of, migrate, write_gate
from backend.infrastructure.private_files import FILE, FOLDER, make_folder
from backend.infrastructure.timestamps import iso_time
from backend.operations.backup import faults_as_one_line, sync
from backend.operations.seal import LENGTH, BackupError
from backend.operations.verify import problems_of, verify

LOCK_BYTES, FIRST_LOCK_BYTE = 512, 0x40000000  # of SQLite: https://sqlite.org/fileformat2.html#the_lock_byte_page
END_LOGINS = (
    "UPDATE sessions SET ended_at = :now WHERE ended_at IS NULL",
    "UPDATE password_resets SET ended_at = :now WHERE ended_at IS NULL",
    "DELETE FROM reset_requests",
)
VERSIONED = """SELECT tables.name FROM sqlite_schema AS tables JOIN pragma_table_info(tables.name) AS columns
    WHERE tables.type = 'table' AND columns.name = 'version' AND tables.name <> 'schema_migrations'"""


def restore(file: Path, database: Path) -> Path | None:
    """Replace the database by the backup, migrated to the code's schema. Returns where the old one is, None if absent.

    Raises BackupError, and Unavailable or SettingsError of the migrations, with the database unchanged: the backup is
    not good, the database is in use, or a step has failed.
    """
    gate_beside, database = database, database.resolve()
    with faults_as_one_line(database):
        _require_unused(database)
        _require_none(verify(file).problems, file)
        make_folder(database.parent)
        with write_gate(gate_beside), _folder(database) as folder:
            draft = folder / database.name
            _prepare(file, draft)
            for path in (draft, gate_of(gate_beside)):
                _give_to_owner_of_folder(path, database.parent)
            _fold(database)
            with _locked(database):
                aside = _swap(draft, database, _file_name_of(time.time()))
        check_schema(database)
    return aside


def _require_none(problems: list[str], file: Path) -> None:
    if problems:
        raise BackupError(f"{file} has {len(problems)} problems, and `verify` lists them; the first: {problems[0]}")


def _require_unused(database: Path) -> None:
    """Raises BackupError if a process has the database open, before the long work."""
    with _locked(database):
        pass


@contextmanager
def _locked(database: Path) -> Iterator[None]:
    """Hold SQLite's exclusive lock on the file, if there is one. Raises BackupError if a process has it open.

    Taken byte by byte and not through SQLite, because the file may be no database any more.
    """
    if not database.exists():
        yield
        return
    with database.open("rb+") as stream:
        try:
            lockf(stream, LOCK_EX | LOCK_NB, LOCK_BYTES, FIRST_LOCK_BYTE)
        except BlockingIOError:
            raise BackupError(
                f"{database} is in use: stop the server and every other program that has it open"
            ) from None
        yield


@contextmanager
def _folder(database: Path) -> Iterator[Path]:
    """A folder for the new database, on the same disk. A killed restore leaves it, and the next one empties it."""
    folder = database.with_name(f"{database.name}.restoring")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(FOLDER)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _prepare(file: Path, draft: Path) -> None:
    """Make the new database of the backup, on disk, in one file. Raises BackupError if it is not good."""
    draft.touch(FILE)
    shutil.copyfile(file, draft)
    os.truncate(draft, draft.stat().st_size - LENGTH)
    migrate(draft)
    _make_safe_for_clients(Database(draft))
    with closing(connect(draft, query_only=True)) as connection:
        _require_none(problems_of(connection), file)
    sync(draft)


def _give_to_owner_of_folder(path: Path, folder: Path) -> None:
    """If root runs the command, the service's user must be able to open the file."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def _make_safe_for_clients(database: Database) -> None:
    """End what clients could go on with, and raise every version above all that were ever given out."""
    with database.transaction() as tx:
        for statement in END_LOGINS:
            tx.run(statement, now=tx.now)
        for (table,) in tx.rows(VERSIONED):
            tx.run(f"UPDATE {table} SET version = max(version + 1, :least)", least=tx.now * 1000)  # noqa: S608 - our tables
    database.close()


def _fold(database: Path) -> None:
    """Move what the `-wal` holds into the database, and remove `-wal` and `-shm`. Raises sqlite3.Error on a full disk.

    If the file is no database any more, they stay, and `_swap` sets them aside too.
    """
    if not database.exists() or not database.stat().st_size:  # SQLite would delete the `-wal` of an empty file
        return
    try:
        with closing(connect(database, query_only=False)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except (sqlite3.Error, UnicodeDecodeError) as error:
        if is_fault(error, TRANSIENT):
            raise


def _file_name_of(seconds: float) -> str:
    """The time without what file names must not hold (`scp` takes a colon for a host's)."""
    return re.sub("[-:]", "", iso_time(int(seconds * 1000)))


def _swap(draft: Path, database: Path, moment: str) -> Path | None:
    """Set the old files aside and rename the new one into place. Returns the old one's new name, None if absent."""
    aside = database.with_name(f"{database.name}.before-restore-{moment}")
    for suffix in ("-wal", "-shm", "-journal"):  # there are none, unless the old database cannot be opened
        with suppress(FileNotFoundError):
            database.with_name(f"{database.name}{suffix}").rename(f"{aside}{suffix}")
    with suppress(FileNotFoundError):
        os.link(database, aside)
    draft.replace(database)
    sync(database.parent)
    return aside if aside.exists() else None
