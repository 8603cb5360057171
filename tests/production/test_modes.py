"""The service's files are private to its user, whatever the umask: other users of the machine can open none."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.running import run_here
from tests.conftest import PASSWORD
from tests.mailbox import Mailbox
from tests.production.gunicorn_server import ROOT
from tests.production.real_service import Caller, call, service

COMMAND = [sys.executable, str(ROOT / "app.py")]
NEW = {"email": "ada@example.com", "password": PASSWORD, "name": "Ada"}
WHILE_OPEN = ("app.db", "app.db-wal", "app.db-shm", "app.db-gate")


@pytest.fixture(params=[0o000, 0o022], ids=oct, autouse=True)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    """The umask of this process and of those that it starts."""
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """In a folder within a folder, neither of which exists yet."""
    return tmp_path / "srv" / "var" / "app.db"


def environment(database: Path) -> dict[str, str]:
    settings = {"BIND": "127.0.0.1:0", "BCRYPT_ROUNDS": "4", "ADMIN_PASSWORD": PASSWORD}
    return os.environ | {"DATABASE_URL": f"sqlite:///{database}"} | settings


def run(database: Path, *arguments: str) -> None:
    subprocess.run([*COMMAND, *arguments], env=environment(database), check=True, capture_output=True, timeout=60)


@contextlib.contextmanager
def development_server(database: Path) -> Iterator[Caller]:
    """A client of `serve`."""
    with subprocess.Popen(
        [*COMMAND, "serve"], env=environment(database), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            port = int(process.stdout.readline().rpartition(b":")[2])
            with Caller(("127.0.0.1", port), 30) as caller:
                yield caller
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)


def modes(folder: Path) -> dict[str, str]:
    return {path.name: oct(path.stat().st_mode & 0o777) for path in [folder, *folder.rglob("*")]}


def require_private(database: Path, *names: str) -> None:
    """These files exist, and all files and folders that were made are private."""
    made = database.parents[1]
    folders = {path.name for path in [made, *made.rglob("*")] if path.is_dir()}
    found = modes(made)
    assert found == {name: oct(0o700) if name in folders else oct(0o600) for name in found.keys() | names}


def test_what_each_command_makes_is_private(database):
    run(database, "migrate")
    require_private(database, "app.db", "app.db-gate")
    run(database, "create-admin", "root@example.com")
    require_private(database, "app.db", "app.db-gate", "jwt-secret")


def test_what_the_development_server_makes_is_private(database):
    """The folder, the secret and the mail, too."""
    with development_server(database) as caller:
        assert caller.call("POST", "/users", json_=NEW).status == 201
        assert caller.call("POST", "/auth/password-reset", json_={"email": NEW["email"]}).status == 202
        assert Mailbox(database.parent / "outbox").next_after(set())
        require_private(database, *WHILE_OPEN, "jwt-secret", "outbox")


def test_what_gunicorn_makes_is_private(tmp_path, database):
    run(database, "migrate")
    with service(tmp_path / "log", database, JWT_SECRETS="") as server:
        assert call(server, "POST", "/users", json_=NEW).status == 201
        require_private(database, *WHILE_OPEN, "jwt-secret")


def test_companions_that_are_made_again_are_private(database):
    """By whatever opens the database: SQLite takes over its mode."""
    run(database, "migrate")
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE notes (text)")
        require_private(database, *WHILE_OPEN)
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("INSERT INTO notes VALUES ('not yet committed')")
        require_private(database, "app.db", "app.db-journal")


@pytest.fixture
def check(database: Path) -> Callable[[], "subprocess.CompletedProcess[str]"]:
    """Runs `check` on a migrated database."""
    database.parent.mkdir(mode=0o700, parents=True)
    assert run_here(database, "migrate").returncode == 0
    return lambda: run_here(database, "check")


@pytest.mark.parametrize("name", ["app.db", "app.db-wal", "app.db-shm", "app.db-journal", "app.db-gate"])
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_a_file_that_admits_others_is_reported_and_not_changed(database, check, name, mode):
    """`check` fails with one line that names its path and mode."""
    file = database.with_name(name)
    with contextlib.closing(sqlite3.connect(database)) as other:
        other.execute("CREATE TABLE notes (text)")  # and keeps `-wal` and `-shm`
        file.touch()
        file.chmod(mode)
        done = check()
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        assert f"{file} has mode {mode:04o}" in done.stderr
        assert file.stat().st_mode & 0o777 == mode


@pytest.mark.parametrize(("mode", "status"), [(0o700, 0), (0o755, 0), (0o710, 0), (0o777, 1), (0o1777, 1)])
@pytest.mark.parametrize("name", ["", "outbox"])
def test_a_folder_that_admits_others_is_reported(database, check, name, mode, status):
    """`check` fails if others may write to it, since they could replace the database; not if they may only list it."""
    folder = database.parent / name
    folder.mkdir(exist_ok=True)
    folder.chmod(mode)
    done = check()
    assert (done.returncode, bool(done.stderr)) == (status, bool(status))
    assert (f"{folder} has mode {mode:04o}" in done.stdout) == (mode != 0o700)
    assert ("modes: good" in done.stdout) == (mode == 0o700)


def test_the_server_starts_and_warns_of_a_mode_that_admits_others(tmp_path, database):
    run(database, "migrate")
    database.chmod(0o644)
    with service(tmp_path / "log", database) as server:
        assert call(server, "POST", "/users", json_=NEW).status == 201
        [line] = [json.loads(line) for line in server.log.read_text().splitlines() if "has mode" in line]
        assert (line["level"], f"{database} has mode 0644" in line["message"]) == ("WARNING", True)
