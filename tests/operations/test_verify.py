"""`verify`: tells a whole backup from everything else, and a good database in it from a bad one."""

import re
import shutil
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from backend.operations.restore import restore
from backend.operations.seal import BackupError
from backend.operations.verify import verify
from tests.cli.running import run
from tests.operations.conftest import back_up
from tests.operations.refusals import files_in, refused


def change(database: Path, *statements: str) -> None:
    with closing(sqlite3.connect(database)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def test_a_good_backup_is_told_with_its_moment_schema_and_rows(world, database_path, saved):
    done = run(database_path, "verify", str(saved))
    assert (done.returncode, done.stderr) == (0, "")
    moment = saved.read_bytes().splitlines()[-1].split()[2].decode().rstrip(",")
    with closing(sqlite3.connect(database_path)) as connection:
        ((schema,),) = connection.execute("SELECT max(name) FROM schema_migrations")
        ((users,),) = connection.execute("SELECT count(*) FROM users")
    for fact in (moment, schema, f"users {users}", "good"):
        assert fact in done.stdout


def test_it_only_reads(database_path, saved):
    """Where nothing can be written, and without the `-wal` and `-journal` of who knows what beside the file."""
    beside = saved.with_name(f"{saved.name}-journal")
    beside.write_bytes(bytes.fromhex("d9d505f920a163d7") + bytes(504))  # as a crashed writer's begins
    saved.with_name(f"{saved.name}-wal").write_bytes(b"x" * 5000)
    before = files_in(saved.parent)
    saved.chmod(0o400)
    saved.parent.chmod(0o500)
    done = run(database_path, "verify", str(saved))
    saved.parent.chmod(0o700)
    assert (done.returncode, done.stderr) == (0, "")
    assert files_in(saved.parent) == before


def flipped(at: float):
    def flip(content: bytes) -> bytes:
        place = min(int(len(content) * at), len(content) - 1)
        return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]

    return flip


@pytest.mark.parametrize(
    "damage",
    [
        *(pytest.param(flipped(at), id=f"a bit at {at}") for at in (0, 0.0001, 0.3, 0.5, 0.7, 0.99, 1)),
        pytest.param(lambda content: content[:-1], id="a byte short"),
        pytest.param(lambda content: content[: len(content) // 2], id="half of it"),
        pytest.param(lambda content: content[:100], id="its first bytes"),
        pytest.param(lambda content: content[4096:], id="without its beginning"),
        pytest.param(lambda content: content + b"\n", id="a byte more"),
        pytest.param(lambda content: content[-109:], id="the seal alone"),
        pytest.param(lambda content: b"", id="nothing"),
        pytest.param(lambda content: b"To do: back up the database.\n", id="text"),
    ],
)
def test_a_file_that_is_not_as_it_was_written_is_refused(world, database_path, saved, damage):
    saved.write_bytes(damage(saved.read_bytes()))
    before = files_in(database_path.parent)
    for command in (verify, partial(restore, database=database_path)):
        with pytest.raises(BackupError, match=re.escape(str(saved))):
            command(saved)
    assert files_in(database_path.parent) == before


@pytest.mark.parametrize("command", ["verify", "restore"])
def test_a_damaged_file_is_told_in_one_line(database_path, saved, command):
    saved.write_bytes(saved.read_bytes()[:-1])
    assert str(saved) in refused(run(database_path, command, str(saved)))


@pytest.mark.parametrize("command", ["verify", "restore"])
def test_no_file_and_a_folder_are_refused(database_path, tmp_path, command):
    for path in (tmp_path / "absent.db", tmp_path):
        assert str(path) in refused(run(database_path, command, str(path)))


@pytest.mark.parametrize("command", ["verify", "restore"])
def test_a_newer_schema_than_the_codes_is_refused(database_path, tmp_path, command):
    change(database_path, "INSERT INTO schema_migrations VALUES (9999, '9999_of_tomorrow', 0)")
    line = refused(run(database_path, command, str(back_up(database_path, tmp_path / "copy.db"))))
    assert "9999_of_tomorrow" in line and "newer" in line


def test_an_older_schema_is_told(database_path, tmp_path):
    change(database_path, "DELETE FROM schema_migrations WHERE version = 9")
    done = run(database_path, "verify", str(back_up(database_path, tmp_path / "copy.db")))
    assert done.returncode == 0
    assert "0008" in done.stdout and "older" in done.stdout


WRONG = {
    "EUR adds up to 1": "UPDATE accounts SET balance = balance + 1 WHERE kind = 'system' AND currency = 'EUR'",
    "not the sum of its entries": "UPDATE entries SET amount = amount + 1",
    "a row of transactions refers to none of accounts": "UPDATE transactions SET to_account_id = 'none'",
    "account \ufffd shows": "UPDATE accounts SET id = CAST(x'C7' AS TEXT) WHERE kind = 'system'",
    "integrity: ": "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET rootpage = 3 WHERE name = 'audit_by_action'",
}


@pytest.mark.parametrize("told", WRONG)
def test_what_was_wrong_in_the_database_is_told_line_by_line(world, database_path, tmp_path, told):
    """The backup is intact, so the exit status is 1. `restore` refuses it all the same."""
    with closing(sqlite3.connect(database_path)) as connection:
        connection.executescript(WRONG[told])
    copy = back_up(database_path, tmp_path / "copy.db")
    done = run(database_path, "verify", str(copy))
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert any(told in line for line in lines)
    assert all(line.startswith(("integrity: ", "foreign keys: ", "ledger: ")) for line in lines)
    line = refused(run(database_path, "restore", str(copy)))
    assert "verify" in line or told in line


def test_a_plain_copy_with_its_wal_is_no_backup_either(database_path, tmp_path):
    """It may be whole, but nothing says so. `backup` makes a backup of any database: of this one, too."""
    copy = Path(shutil.copy(database_path, tmp_path / "copy.db"))
    assert "is no backup" in refused(run(database_path, "verify", str(copy)))
    assert run(copy, "backup", str(tmp_path / "sealed.db")).returncode == 0
    assert run(database_path, "verify", str(tmp_path / "sealed.db")).returncode == 0
