"""The command line, run as an operator runs it: what it does, and that it fails with one line that says why."""

import contextlib
import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backend.web.openapi import openapi_document
from tests.conftest import PASSWORD

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, str(ROOT / "app.py")]
COMMANDS = ("serve", "migrate", "create-admin", "demo", "routes", "openapi", "check")
GOOD = {"ADMIN_PASSWORD": PASSWORD}


def environment(database: Path, **settings: str) -> dict[str, str]:
    return {"DATABASE_URL": f"sqlite:///{database}", "BCRYPT_ROUNDS": "4", **settings}


def run(database: Path, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """One command on that database, without a terminal, somewhere else than in the project."""
    return subprocess.run(
        [*COMMAND, *arguments], env=environment(database, **settings), cwd=database.parent, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def refused(done: "subprocess.CompletedProcess[str]") -> str:
    """The one line with which a command failed."""
    assert done.returncode != 0
    [line] = done.stderr.splitlines()
    return line


def change(database: Path, *statements: str) -> None:
    connection = sqlite3.connect(database)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def users_in(database: Path) -> list[Any]:
    connection = sqlite3.connect(database)
    rows = connection.execute("SELECT email, roles, active FROM users ORDER BY email").fetchall()
    connection.close()
    return rows


AGE = {
    "older": "DELETE FROM schema_migrations WHERE version = (SELECT max(version) FROM schema_migrations)",
    "newer": "INSERT INTO schema_migrations VALUES (9999, '9999_of_tomorrow', 0)",
}
UNBALANCED = {
    "EUR": "UPDATE accounts SET balance = balance + 1 WHERE kind = 'system' AND currency = 'EUR'",
    "entries": "UPDATE entries SET amount = amount + 1",
}


def test_help_lists_the_commands(tmp_path):
    done = run(tmp_path / "app.db", "--help")
    assert done.returncode == 0
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("    ")]
    assert set(COMMANDS) <= set(listed)


def test_migrate_makes_a_database_where_there_is_none_and_then_has_nothing_to_do(tmp_path):
    database = tmp_path / "new folder" / "app.db"
    database.parent.mkdir()
    first = run(database, "migrate")
    assert (first.returncode, first.stderr) == (0, "")
    files = sorted(file.stem for file in ROOT.glob("sql/sqlite/*.sql"))
    assert [line.split()[-1] for line in first.stdout.splitlines()] == files
    again = run(database, "migrate")
    assert (again.returncode, again.stderr) == (0, "")
    assert not any(file in again.stdout for file in files)
    assert run(database, "check").returncode == 0


@pytest.mark.parametrize(
    ("command", "age"),
    [("check", "older"), ("create-admin", "older"), ("check", "newer"), ("migrate", "newer"), ("serve", "newer")],
)
def test_another_schema_than_the_codes_is_refused(database_path, command, age):
    """In one line that says which of the two is the older and what to do; `migrate` and `serve` mend an older one."""
    change(database_path, AGE[age])
    arguments = ["ada@example.com"] if command == "create-admin" else []
    line = refused(run(database_path, command, *arguments, BIND=f"unix:{database_path}.socket", **GOOD))
    assert age in line
    assert ("python app.py migrate" in line) == (age == "older")


def test_create_admin_makes_a_user_with_both_roles_who_can_log_in(database_path, make_api):
    done = run(database_path, "create-admin", " Root@Example.com", **GOOD)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Root@Example.com" in done.stdout
    assert PASSWORD not in done.stdout
    api = make_api()
    me = api.get("/users/me", api.log_in("root@example.com")).json["data"]
    assert (set(me["roles"]), me["active"]) == ({"user", "admin"}, True)


def test_create_admin_grants_the_role_to_an_address_that_exists(database_path, api, ada):
    """However it is written, without a password, and the very next request of a login that is open has the role."""
    assert api.get("/users", ada).status_code == 403
    done = run(database_path, "create-admin", "ADA@example.com")
    assert (done.returncode, done.stderr) == (0, "")
    assert api.get("/users", ada).status_code == 200
    assert run(database_path, "create-admin", "ada@example.com", ADMIN_PASSWORD="another one").returncode == 0
    assert api.log_in("ada@example.com", PASSWORD)
    assert len(users_in(database_path)) == 1


@pytest.mark.parametrize(
    ("email", "password", "told"),
    [
        ("nobody", PASSWORD, "e-mail"),
        ("root@example.com", "short", "password"),
        ("root@example.com", "Password123", "password"),
        ("root@example.com", "ROOT@example.com", "password"),
        ("root@example.com", "", "ADMIN_PASSWORD"),
    ],
)
def test_create_admin_refuses_what_nobody_should_have(database_path, email, password, told):
    """A line that says what is wrong, without the password; nobody is made."""
    line = refused(run(database_path, "create-admin", email, ADMIN_PASSWORD=password))
    assert told in line
    assert not password or password not in line
    assert users_in(database_path) == []


def test_create_admin_asks_on_a_terminal_and_shows_nothing(database_path, make_api):
    ours, terminal = os.openpty()
    command = [*COMMAND, "create-admin", "root@example.com"]
    pipes = {"stdin": terminal, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment(database_path), start_new_session=True, **pipes) as process:
        os.close(terminal)
        asked = b""
        while not asked.endswith(b": "):
            asked += os.read(process.stderr.fileno(), 100) or pytest.fail(f"ended with {asked!r}")
        os.write(ours, PASSWORD.encode() + b"\n")
        shown, _ = process.communicate(timeout=60)
        assert process.returncode == 0
    os.set_blocking(ours, False)
    with contextlib.suppress(OSError):  # nothing was echoed, and nobody holds the other end
        shown += os.read(ours, 1000)
    os.close(ours)
    assert PASSWORD.encode() not in shown
    assert make_api().log_in("root@example.com", PASSWORD)


def test_routes_prints_every_route_with_who_may_call_it(tmp_path, app):
    """Without a database, and without making one."""
    done = run(tmp_path / "absent.db", "routes")
    assert (done.returncode, done.stderr) == (0, "")
    printed = {tuple(line.split(maxsplit=2)) for line in done.stdout.splitlines()}
    assert printed == {(route.method, route.path, route.access.value) for route in app.routes}
    assert not (tmp_path / "absent.db").exists()


def test_openapi_prints_the_document_that_is_served(tmp_path, api):
    done = run(tmp_path / "absent.db", "openapi")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == api.get("//openapi.json").json == openapi_document(api.app.routes)
    assert not (tmp_path / "absent.db").exists()


@pytest.mark.parametrize("told", UNBALANCED)
def test_check_finds_a_ledger_that_does_not_add_up(database_path, api, admin, ada, told):
    """0 while all is well; else the currency or the account is named."""
    account = api.account(ada, balance=100, admin=admin)
    assert run(database_path, "check").returncode == 0
    change(database_path, UNBALANCED[told])
    line = refused(run(database_path, "check"))
    assert told in line
    assert told == "EUR" or account in line


@pytest.mark.parametrize(
    ("command", "name", "value"),
    [
        ("check", "BCRYPT_ROUNDS", "3"),
        ("migrate", "DATABASE_URL", "mysql://localhost/app"),
        ("serve", "RATE_LIMIT_AUTH", "many"),
        ("serve", "WEB_CONCURRENCY", "none"),
        ("routes", "JWT_SECRETS", "too short to be told"),
    ],
)
def test_a_bad_setting_stops_every_command_with_one_line(database_path, command, name, value):
    """It names the variable, what it was (unless it is secret) and what it may be."""
    line = refused(run(database_path, command, **{name: value}))
    assert line.startswith(name)
    assert "must be" in line
    assert (value in line) == (name != "JWT_SECRETS")


def test_serve_migrates_and_answers_until_it_is_interrupted(tmp_path):
    address, database = tmp_path / "socket", tmp_path / "app.db"
    command = environment(database, BIND=f"unix:{address}", WEB_CONCURRENCY="1")
    with subprocess.Popen([*COMMAND, "serve"], env=command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert b"Serving on" in process.stdout.readline()
        while b"Booting worker" not in process.stderr.readline():
            assert process.poll() is None
        connection = http.client.HTTPConnection("localhost", timeout=30)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(address))
        connection.request("GET", "/readyz")
        assert connection.getresponse().status == 200
        connection.close()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert run(database, "check").returncode == 0


def test_the_demo_goes_as_it_is_told(tmp_path):
    """Against a server of its own; the database of the settings is not touched."""
    done = run(tmp_path / "untouched.db", "demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []
