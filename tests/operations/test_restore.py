"""`restore`: the backup takes the database's place whole or not at all, and the old one stays beside it."""

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from backend.errors import Unavailable
from backend.infrastructure.database import connect
from backend.operations.restore import restore
from tests.cli.running import COMMAND, development_server, environment, run
from tests.forked import Forked
from tests.operations.conftest import back_up, note, notes_in
from tests.operations.refusals import files_in, on_a_full_disk, refused
from tests.production.real_service import service
from tests.waiting import wait_until
from tests.watching import files_of
from tests.wirings import database_class_of


def killed_server(database: Path, text: str) -> None:
    """Leave what a killed server leaves: the newest row in the `-wal` alone."""
    copy = database.with_name("copy")
    copy.mkdir()
    with closing(sqlite3.connect(database)) as server:
        server.execute("INSERT INTO reset_requests VALUES ('killed', ?, 1)", (text,))
        server.commit()
        for suffix in ("", "-wal", "-shm"):
            shutil.copy(f"{database}{suffix}", copy / f"app.db{suffix}")
    for file in copy.iterdir():
        file.replace(database.with_name(file.name))
    copy.rmdir()


def set_aside(database: Path) -> list[Path]:
    """The databases that were set aside, oldest first, without their companions."""
    return [path for path in sorted(database.parent.glob("*.before-restore-*")) if not path.name.endswith(("l", "m"))]


def test_the_backup_takes_the_place_of_the_database_and_the_old_one_stays(database_path, saved):
    """Also what a killed server has left in the `-wal`, which would damage the new database."""
    killed_server(database_path, "newest")
    done = run(database_path, "restore", str(saved))
    assert (done.returncode, done.stderr) == (0, "")
    [old] = set_aside(database_path)
    assert str(old) in done.stdout
    assert sorted(files_in(database_path.parent)) == ["app.db", old.name, "backups/nightly.db"]
    assert (notes_in(database_path), notes_in(old)) == ([], ["newest"])
    assert stat.S_IMODE(database_path.stat().st_mode) == 0o600
    with closing(sqlite3.connect(database_path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert run(database_path, "check").returncode == 0


DAMAGES = {
    "no header": lambda content: b"x" * 5000,
    "unknown format": lambda content: content[:47] + b"\x63" + content[48:],
    "a malformed schema": lambda content: content.replace(b"CREATE TABLE", b"CREATE TABEL"),
    "a malformed name that is not UTF-8": lambda content: content.replace(
        b"tableusersusers", b"table" + b"\xc7" * 5 + b"users"
    ).replace(b"TABLE users", b"TABEL users"),
    "nothing": lambda content: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_database_that_cannot_be_opened_is_set_aside_with_its_companions(database_path, saved, damage):
    killed_server(database_path, "newest")
    database_path.write_bytes(DAMAGES[damage](database_path.read_bytes()))
    assert run(database_path, "restore", str(saved)).returncode == 0
    [old] = set_aside(database_path)
    left = b"".join(path.read_bytes() for path in database_path.parent.glob(f"{old.name}*"))
    assert b"newest" in left  # which was in the `-wal`; SQLite may have moved it into the database
    assert not database_path.with_name("app.db-wal").exists()
    assert run(database_path, "check").returncode == 0


def test_what_a_lost_database_has_left_does_not_get_into_the_new_one(database_path, saved):
    killed_server(database_path, "newest")
    database_path.unlink()
    assert run(database_path, "restore", str(saved)).returncode == 0
    assert not database_path.with_name("app.db-wal").exists()
    assert notes_in(database_path) == []


def test_on_a_new_machine_the_folder_is_made(tmp_path, saved):
    database = tmp_path / "service" / "app.db"
    done = run(tmp_path / "app.db", "restore", str(saved), DATABASE_URL=f"sqlite:///{database}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "no database before" in done.stdout
    assert stat.S_IMODE(database.parent.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can write files of another user")
def test_root_restores_for_the_user_of_the_service(database_path, saved):
    for path in (database_path.parent, database_path):
        os.chown(path, 4711, 4712)
    command = [*COMMAND, "restore", str(saved)]  # by `run` it would not have root's privileges
    subprocess.run(command, env=environment(database_path), stdout=subprocess.DEVNULL, check=True, timeout=60)
    for path in (database_path, database_path.with_name("app.db-gate"), *set_aside(database_path)):
        assert (path.stat().st_uid, path.stat().st_gid) == (4711, 4712)


def test_behind_a_link_the_file_itself_is_replaced(database_path, tmp_path, saved):
    link = tmp_path / "link.db"
    link.symlink_to(database_path)
    note(database_path, "newer")
    assert run(link, "restore", str(saved)).returncode == 0
    assert link.is_symlink()
    assert notes_in(link) == notes_in(database_path) == []


def test_a_backup_of_an_older_schema_is_migrated(database_path, tmp_path):
    with closing(sqlite3.connect(database_path)) as connection:
        connection.executescript("DROP TABLE mails; DELETE FROM schema_migrations WHERE name LIKE '%mails'")
    copy = back_up(database_path, tmp_path / "copy.db")
    assert run(database_path, "restore", str(copy)).returncode == 0
    assert run(database_path, "check").returncode == 0


@contextmanager
def idle_connection(database: Path) -> Iterator[None]:
    """Opened, and not used yet."""
    with closing(connect(database, query_only=True)):
        yield


@contextmanager
def idle_server(database: Path) -> Iterator[None]:
    """Gunicorn that no request has reached."""
    with service(database.with_name("gunicorn.log"), database) as server:
        wait_until(lambda: is_open_in(server.process.pid, database))
        yield


@contextmanager
def idle_development_server(database: Path) -> Iterator[None]:
    with development_server(database) as server:
        wait_until(lambda: is_open_in(server.process.pid, database))
        yield


def is_open_in(group: int, database: Path) -> bool:
    """Whether a process of the group has the file open: a server listens before its threads begin to work."""
    for pid in [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]:
        with suppress(OSError):  # it has just ended
            if os.getpgid(pid) == group and str(database) in files_of(pid):
                return True
    return False


@pytest.mark.parametrize("user", [idle_connection, idle_server, idle_development_server])
def test_a_database_in_use_is_not_replaced(database_path, saved, user):
    note(database_path, "newer")
    file = database_path.stat().st_ino
    with user(database_path):
        assert "in use" in refused(run(database_path, "restore", str(saved)))
        assert (database_path.stat().st_ino, notes_in(database_path)) == (file, ["newer"])
    assert run(database_path, "restore", str(saved)).returncode == 0


@pytest.mark.parametrize("wiring", ["core", "production"])
def test_a_process_that_has_only_just_opened_the_old_file_does_not_use_it(database_path, saved, monkeypatch, wiring):
    """Its first read comes after the swap. Without a check, it would work in the file that was set aside."""
    database = database_class_of(wiring)(database_path)
    opened = sqlite3.connect

    def restored_meanwhile(*arguments, **options):
        connection = opened(*arguments, **options)
        monkeypatch.setattr(sqlite3, "connect", opened)
        assert run(database_path, "restore", str(saved)).returncode == 0
        return connection

    monkeypatch.setattr(sqlite3, "connect", restored_meanwhile)
    with pytest.raises(Unavailable), database.snapshot():
        pass
    if wiring == "core":  # production wants a restart
        with database.snapshot() as tx:
            assert tx.rows("SELECT email FROM reset_requests") == []
    database.close()


@pytest.mark.parametrize("blocks", [80, 300])
def test_on_a_full_disk_nothing_changes(world, database_path, saved, blocks):
    before = files_in(database_path.parent)
    refused(on_a_full_disk(blocks, database_path, "restore", str(saved)))
    assert files_in(database_path.parent) == before


def restored_but_killed_at(step: int, file: Path, database: Path) -> bool:
    """Restore, unless this process dies before operation number `step` on a file beside the database or below."""
    folder, count = str(database.parent), 0

    def watch(_: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        count += any(folder in str(argument) for argument in arguments)
        if count == step:
            os._exit(1)

    sys.addaudithook(watch)
    restore(file, database)
    return True


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_killed_at_any_step_it_leaves_the_old_or_the_new_database_and_can_be_run_again(database_path, saved, tmp_path):
    killed_server(database_path, "old")
    database = tmp_path / "place" / "app.db"
    left: list[list[str]] = []
    clean = False
    while not clean:
        shutil.rmtree(database.parent, ignore_errors=True)
        database.parent.mkdir()
        for suffix in ("", "-wal", "-shm"):
            shutil.copy(f"{database_path}{suffix}", f"{database}{suffix}")
        with suppress(EOFError):
            clean = Forked(partial(restored_but_killed_at, len(left) + 1, saved, database)).result()
        looked_at = shutil.copytree(database.parent, tmp_path / f"looked-at-{len(left)}")
        left.append(notes_in(looked_at / "app.db"))
        restore(saved, database)
        assert notes_in(database) == []
        assert ["old"] in [notes_in(path) for path in set_aside(database)]
        assert not database.with_name("app.db.restoring").exists()
    swapped = left.index([])
    assert left == [["old"]] * swapped + [[]] * (len(left) - swapped)
    assert swapped > 20
    assert len(left) - swapped > 1


@pytest.mark.parametrize("command", ["backup", "verify", "restore"])
def test_a_bad_setting_is_one_line(database_path, saved, command):
    before = files_in(database_path.parent)
    assert refused(run(database_path, command, str(saved), BIND="nonsense")).startswith("BIND")
    assert files_in(database_path.parent) == before


def test_a_killed_restore_does_not_stand_in_the_way_of_the_next(database_path, saved):
    database_path.with_name("app.db.restoring").mkdir()
    database_path.with_name("app.db.restoring").joinpath("app.db").write_bytes(b"half of it")
    done = subprocess.run(
        [*COMMAND, "restore", str(saved)], env=environment(database_path), capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert not database_path.with_name("app.db.restoring").exists()
