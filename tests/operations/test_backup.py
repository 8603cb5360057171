"""Backups: one moment of a database that is written meanwhile, in one file, whole or not at all."""

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from backend.operations import backup as module
from backend.operations.backup import BackupError, backup
from tests.cli.running import COMMAND, environment, run
from tests.operations.conftest import back_up, note, notes_in
from tests.operations.refusals import files_in, on_a_full_disk, refused


def test_a_plain_copy_of_a_live_database_loses_rows_and_is_no_backup(database_path, tmp_path):
    """Its newest rows are in the `-wal`. SQLite opens the copy without a complaint; `verify` does not."""
    with closing(sqlite3.connect(database_path)) as server:
        server.execute("INSERT INTO reset_requests VALUES ('1', 'ada@example.com')")
        server.commit()
        naive = Path(shutil.copy(database_path, tmp_path / "naive.db"))
        whole = back_up(database_path, tmp_path / "whole.db")
    assert (notes_in(naive), notes_in(whole)) == ([], ["ada@example.com"])
    assert "is no backup" in refused(run(database_path, "verify", str(naive)))


def test_the_copy_is_one_moment_although_another_process_commits_at_every_step(database_path, tmp_path, monkeypatch):
    """It has what was committed before, nothing of what came later, and does not begin again."""
    monkeypatch.setattr(module, "PAGES", 3)
    note(database_path, "before")
    steps = []

    def commit(remaining: int, total: int) -> None:
        assert len(steps) <= total, "it begins again and again"
        steps.append(remaining)
        note(database_path, "later")

    backup(database_path, tmp_path / "copy.db", commit)
    assert len(steps) > 5
    assert steps == sorted(steps, reverse=True)
    assert notes_in(tmp_path / "copy.db") == ["before"]


def test_a_backup_is_one_private_file_that_needs_no_other(saved, database_path):
    """Of mode 0600 whatever the umask, and outside WAL mode: it can be read where nothing can be written."""
    assert [path.name for path in saved.parent.iterdir()] == ["nightly.db"]
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    with closing(sqlite3.connect(saved)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_the_command_says_what_was_copied(world, database_path, tmp_path):
    done = run(database_path, "backup", str(tmp_path / "copy.db"))
    assert (done.returncode, done.stderr) == (0, "")
    with closing(sqlite3.connect(database_path)) as connection:
        for table in ("users", "transactions"):
            ((count,),) = connection.execute(f"SELECT count(*) FROM {table}")
            assert count and f"{table} {count}" in done.stdout
    assert run(database_path, "verify", str(tmp_path / "copy.db")).returncode == 0


def test_progress_is_one_line_on_a_terminal(database_path, tmp_path):
    ours, terminal = os.openpty()
    command = [*COMMAND, "backup", str(tmp_path / "copy.db")]
    subprocess.run(command, env=environment(database_path), stderr=terminal, stdout=subprocess.PIPE, check=True)
    os.close(terminal)
    shown = os.read(ours, 10_000)
    os.close(ours)
    assert shown.startswith(b"\r") and shown.endswith(b"100 %\r\n")
    assert shown.count(b"\n") == 1


def test_a_newer_backup_takes_the_place_of_an_older_one(database_path, saved):
    note(database_path, "newer")
    assert run(database_path, "backup", str(saved)).returncode == 0
    assert notes_in(saved) == ["newer"]
    assert [path.name for path in saved.parent.iterdir()] == ["nightly.db"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError])
def test_a_backup_that_does_not_end_leaves_the_older_one_and_nothing_else(database_path, saved, error):
    def interrupted(*_: int) -> None:
        raise error

    before = files_in(saved.parent)
    with pytest.raises((error, BackupError)):
        backup(database_path, saved, interrupted)
    assert files_in(saved.parent) == before
    assert [path.name for path in saved.parent.iterdir()] == ["nightly.db"]


SIGTERM_WHILE_IT_COPIES = """
import signal, sys
def watch(event, arguments):
    if event == "sqlite3.connect" and ".partial" in str(arguments[0]):
        signal.raise_signal(signal.SIGTERM)
sys.addaudithook(watch)
sys.path.insert(0, sys.argv.pop(1))
from app import main
main()
"""


def test_sigterm_ends_it_without_a_trace(database_path, saved):
    """As a service manager stops it."""
    before = files_in(saved.parent)
    command = [sys.executable, "-c", SIGTERM_WHILE_IT_COPIES, str(Path(COMMAND[1]).parent), "backup", str(saved)]
    done = subprocess.run(command, env=environment(database_path), capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, b"")
    assert [path.name for path in saved.parent.iterdir()] == ["nightly.db"]
    assert files_in(saved.parent) == before


def linked(database: Path, place: Path) -> Path:
    place.symlink_to(database)
    return place


def hard_linked(database: Path, place: Path) -> Path:
    place.hardlink_to(database)
    return place


def text(database: Path, place: Path) -> Path:
    place.write_text("To do: back up the database.\n")
    return place


def folder(database: Path, place: Path) -> Path:
    place.mkdir()
    return place


def in_no_folder(database: Path, place: Path) -> Path:
    return place / "copy.db"


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal", "-gate"])
@pytest.mark.parametrize("used", [True, False])
def test_the_live_database_and_its_companions_are_no_target(database_path, suffix, used):
    """Whether they are there just now or not."""
    with closing(sqlite3.connect(database_path)) as server:
        if used:
            server.execute("SELECT 1 FROM users").fetchall()
        before = files_in(database_path.parent)
        target = database_path.with_name(f"{database_path.name}{suffix}")
        with pytest.raises(BackupError, match=target.name):
            back_up(database_path, target)
        assert files_in(database_path.parent) == before


@pytest.mark.parametrize("make", [linked, hard_linked, text, folder, in_no_folder])
def test_what_is_no_backup_is_not_replaced(database_path, tmp_path, make):
    target = make(database_path, tmp_path / "target")
    before = files_in(tmp_path)
    line = refused(run(database_path, "backup", str(target)))
    assert str(target.resolve()) in line
    assert files_in(tmp_path) == before


def test_without_a_database_there_is_no_backup(tmp_path):
    assert "there is no database at" in refused(run(tmp_path / "app.db", "backup", "copy.db"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"To do: back up the database.\n"])
def test_what_is_no_database_is_not_copied(tmp_path, content):
    (tmp_path / "app.db").write_bytes(content)
    assert str(tmp_path / "app.db") in refused(run(tmp_path / "app.db", "backup", "copy.db"))
    assert [path.name for path in tmp_path.iterdir()] == ["app.db"]


@pytest.mark.parametrize("room", [80, 300])
def test_on_a_full_disk_an_older_backup_stays(database_path, saved, room):
    before = files_in(saved.parent)
    assert str(saved) in refused(on_a_full_disk(room, database_path, "backup", str(saved)))
    assert files_in(saved.parent) == before
    assert [path.name for path in saved.parent.iterdir()] == ["nightly.db"]


def test_a_database_of_another_schema_can_be_backed_up(database_path, tmp_path):
    """The moment before `migrate` is when a backup is needed."""
    with closing(sqlite3.connect(database_path)) as connection:
        connection.execute("DELETE FROM schema_migrations WHERE version = (SELECT max(version) FROM schema_migrations)")
        connection.commit()
    assert run(database_path, "backup", str(tmp_path / "copy.db")).returncode == 0
