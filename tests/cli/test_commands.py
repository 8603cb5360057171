"""The commands, run as an operator runs them: their effects, and one line of error if they fail."""

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backend import __version__
from backend.infrastructure.migrations import write_gate
from backend.openapi.document import openapi_document
from tests.at_once import process_asleep
from tests.cli.running import COMMAND, ROOT, environment, refused, run, run_here
from tests.conftest import PASSWORD
from tests.waiting import wait_until
from tests.watching import holds_gate

COMMANDS = ("serve", "migrate", "create-admin", "users", "demo", "routes", "openapi", "check")
OF_A_DATABASE = ("serve", "migrate", "create-admin", "users", "check")
GOOD = {"ADMIN_PASSWORD": PASSWORD}


def run_on(database: Path, command: str, by: Any = run, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Run a command with all arguments it needs, on the test's address and database."""
    arguments = ["root@example.com"] if command == "create-admin" else []
    return by(database, command, *arguments, **{"BIND": "127.0.0.1:0", **GOOD, **settings})


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
    assert {*COMMANDS, "backup", "verify", "restore"} <= set(listed)


def test_version_is_that_of_the_package(tmp_path):
    done = run(tmp_path / "app.db", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"reference-backend {__version__}\n", "")


def test_migrate_creates_an_absent_database_and_is_idempotent(tmp_path):
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
    """The one line says which of the two is older and what to do. `migrate` and `serve` migrate an older one."""
    change(database_path, AGE[age])
    arguments = ["ada@example.com"] if command == "create-admin" else []
    line = refused(run_here(database_path, command, *arguments, BIND="127.0.0.1:0", **GOOD))
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


@pytest.mark.parametrize(
    "arguments", [["create-admin", "new@example.com"], ["users", "--deactivate", "ada@example.com"]]
)
def test_a_command_that_writes_waits_for_its_turn_beside_a_server_that_writes(
    database_path, api, admin, ada, arguments
):
    """It takes the gate of production's writers: SQLite's own lock alone would let it pass between them at any time."""
    api.app.close()
    before = users_in(database_path)
    with write_gate(database_path):
        command = subprocess.Popen(
            [*COMMAND, *arguments], env=environment(database_path, **GOOD),
            cwd=database_path.parent, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        )  # fmt: skip
        wait_until(lambda: command.poll() is not None or holds_gate(command.pid, database_path))
        assert command.poll() is None
        assert users_in(database_path) == before
    command.communicate(timeout=60)
    assert command.returncode == 0
    assert users_in(database_path) != before


def test_create_admin_refuses_an_address_that_exists(database_path, api, ada):
    """In any case of its letters: another person may have signed up with it."""
    before = users_in(database_path)
    line = refused(run_here(database_path, "create-admin", "ADA@example.com", ADMIN_PASSWORD="another pass word"))
    assert "ADA@example.com" in line and "--existing" in line
    assert users_in(database_path) == before
    assert api.get("/users", ada).status_code == 403
    assert api.log_in("ada@example.com", PASSWORD)


@pytest.mark.parametrize("times", [1, 2])
def test_create_admin_grants_the_role_to_an_existing_user_with_existing(database_path, api, ada, times):
    """That user's logins end, for they may be another person's; the password stays, and the command says both."""
    for _ in range(times):
        ada = api.log_in(ada.email)
        done = run_here(
            database_path, "create-admin", "--existing", "ADA@example.com", ADMIN_PASSWORD="another pass word"
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "password stays" in done.stdout and "login" in done.stdout
        answer = api.get("/users/me", ada)
        assert (answer.status_code, answer.json["error"]["details"]) == (401, {"reason": "revoked"})
    assert api.post("/auth/refresh", json={"refreshToken": ada.refresh}).status_code == 401
    assert api.get("/users", api.log_in("ada@example.com", PASSWORD)).status_code == 200
    assert len(users_in(database_path)) == 1


@pytest.mark.parametrize("existing", [[], ["--existing"]])
def test_create_admin_refuses_a_deactivated_user(database_path, api, admin, ada, existing):
    api.patch(f"/users/{ada.id}", admin, {"active": False})
    before = users_in(database_path)
    line = refused(run_here(database_path, "create-admin", *existing, "ada@example.com", **GOOD))
    assert "deactivated" in line and "--existing" not in line
    assert users_in(database_path) == before


def test_create_admin_finds_no_existing_user(database_path):
    assert "No user" in refused(run_here(database_path, "create-admin", "--existing", "ada@example.com", **GOOD))
    assert users_in(database_path) == []


def test_create_admin_makes_no_user_if_the_role_cannot_be_given(database_path, make_api):
    """A user without the role would make the next try fail."""
    change(
        database_path,
        "CREATE TRIGGER no_admins BEFORE UPDATE ON users BEGIN SELECT RAISE(ABORT, 'no admins today'); END",
    )
    assert run(database_path, "create-admin", "root@example.com", **GOOD).returncode == 1
    assert users_in(database_path) == []


@pytest.mark.parametrize(
    ("email", "password", "named"),
    [
        ("no-address", PASSWORD, "e-mail"),
        ("=?utf-8?q?root?=@example.com", PASSWORD, "e-mail"),
        ("root@example.com", "short", "password"),
        ("root@example.com", "Password123", "password"),
        ("root@example.com", "ROOT@example.com", "password"),
        ("root@example.com", "", "ADMIN_PASSWORD"),
    ],
)
def test_create_admin_refuses_a_bad_address_or_password(database_path, email, password, named):
    """A line that says what is wrong, without the password; no user is made."""
    line = refused(run_here(database_path, "create-admin", email, ADMIN_PASSWORD=password))
    assert named in line and "{" not in line
    assert not password or password not in line
    assert users_in(database_path) == []


@contextlib.contextmanager
def create_admin_on_a_terminal(database_path, email, *launcher):
    """The process of `create-admin`, and our end of the terminal that is its standard input."""
    ours, terminal = os.openpty()
    command = [*launcher, *COMMAND, "create-admin", email]
    pipes = {"stdin": terminal, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment(database_path), start_new_session=True, **pipes) as process:
        os.close(terminal)
        try:
            yield process, ours
        finally:
            process.kill()
    os.close(ours)


def test_create_admin_prompts_on_a_terminal_without_echo(database_path, make_api):
    with create_admin_on_a_terminal(database_path, "root@example.com") as (process, ours):
        asked = b""
        while not asked.endswith(b": "):
            asked += os.read(process.stderr.fileno(), 100) or pytest.fail(f"ended with {asked!r}")
        os.write(ours, PASSWORD.encode() + b"\n")
        shown, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        os.set_blocking(ours, False)
        with contextlib.suppress(OSError):  # nothing was echoed, and the other end is closed
            shown += os.read(ours, 1000)
    assert PASSWORD.encode() not in shown
    assert make_api().log_in("root@example.com", PASSWORD)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_line_end_behind_the_password_does_not_count(database_path, make_api, end):
    """A password that is read from a file often ends in one; on a terminal it ends the input."""
    done = run_here(database_path, "create-admin", "root@example.com", ADMIN_PASSWORD=f" {PASSWORD} {end}")
    assert (done.returncode, done.stderr) == (0, "")
    assert make_api().log_in("root@example.com", f" {PASSWORD} ")


def test_a_password_that_is_not_utf_8_is_refused(database_path):
    """The error is one line without the password. No user is created."""
    line = refused(run(database_path, "create-admin", "root@example.com", ADMIN_PASSWORD="correct h\udcf6rse battery"))
    assert "UTF-8" in line and "rse" not in line
    assert users_in(database_path) == []


def test_a_user_signed_up_while_the_password_is_typed_gets_no_role(database_path, api):
    """The command looks at the address before it asks, and again when it writes."""
    with create_admin_on_a_terminal(database_path, "ADA@example.com") as (process, ours):
        assert process.stderr.read(1)  # the prompt, or a warning that the input cannot be hidden
        ada = api.sign_up("Ada")
        os.write(ours, b"another pass word\n")
        _, told = process.communicate(timeout=60)
        assert (process.returncode, b"--existing" in told.splitlines()[-1]) == (1, True)
    assert users_in(database_path) == [("ada@example.com", "user", 1)]
    assert api.get("/users/me", ada).status_code == 200
    assert api.log_in("ada@example.com", PASSWORD)


@pytest.mark.parametrize(("key", "status"), [(b"\x03", 130), (b"\x04", 1)], ids=["Ctrl-C", "Ctrl-D"])
def test_the_prompt_can_be_left(database_path, key, status):
    """Without a traceback; no user is made."""
    launcher = (sys.executable, "-c", TAKE_TERMINAL)
    with create_admin_on_a_terminal(database_path, "root@example.com", *launcher) as (process, ours):
        shown = b""
        while b"Password: " not in shown:
            shown += os.read(ours, 1000)
        process_asleep(process.pid)  # Python would notice a Ctrl-C that came just before its read at the next key
        os.write(ours, key)
        assert process.wait(60) == status
        assert b"Traceback" not in process.stderr.read() + process.stdout.read()
    assert users_in(database_path) == []


TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_routes_prints_every_route_with_its_access(tmp_path, app):
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
    """Exit status 0 while the sums are right; else the line names the currency or the account."""
    account = api.account(ada, balance=100, admin=admin)
    assert run_here(database_path, "check").returncode == 0
    change(database_path, UNBALANCED[told])
    line = refused(run_here(database_path, "check"))
    assert told in line
    assert told == "EUR" or account in line


@pytest.mark.parametrize(
    ("command", "name", "value"),
    [
        ("check", "BCRYPT_ROUNDS", "3"),
        ("migrate", "DATABASE_URL", "mysql://localhost/app"),
        ("serve", "RATE_LIMIT_AUTH", "many"),
        ("serve", "WEB_CONCURRENCY", "none"),
        ("routes", "JWT_SECRETS", "too short and not shown"),
        *((command, "BIND", "nonsense") for command in COMMANDS),
        ("check", "BIND", "127.0.0.1:99999"),
        ("check", "WEBHOOK_SECRET", "x"),
    ],
)
def test_a_bad_setting_stops_every_command_with_one_line(database_path, command, name, value):
    """The line has the variable, its value (unless secret) and the allowed values."""
    line = refused(run_on(database_path, command, run_here, **{name: value}))
    assert line.startswith(name)
    assert "must be" in line
    assert (value in line.partition(";")[0]) == (name not in ("JWT_SECRETS", "WEBHOOK_SECRET"))


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def text(path: Path) -> Path:
    path.write_text("To do: back up the database.\n")
    return path


def in_a_file(path: Path) -> Path:
    text(path)
    return path / "app.db"


def in_an_unwritable_folder(path: Path) -> Path:
    path.mkdir(mode=0o555)
    return path / "app.db"


def in_a_folder_that_cannot_be_made(path: Path) -> Path:
    return in_an_unwritable_folder(path).parent / "var" / "app.db"


def unreadable(path: Path) -> Path:
    path.touch(0o000)
    return path


@pytest.mark.parametrize("command", OF_A_DATABASE)
@pytest.mark.parametrize(
    "make", [folder, text, in_a_file, in_an_unwritable_folder, in_a_folder_that_cannot_be_made, unreadable]
)
def test_what_cannot_be_the_database_stops_every_command_with_one_line(tmp_path, command, make):
    """It names the variable, what it was and what it may be; if there is no database yet, the line names `migrate`."""
    path = make(tmp_path / "place")
    line = refused(run_on(tmp_path / "app.db", command, DATABASE_URL=f"sqlite:///{path}"))
    assert str(path) in line
    assert (line.startswith("DATABASE_URL was ") and "must be" in line) or (
        line.startswith("there is no database at ")
        and "migrate" in line
        and command in ("check", "create-admin", "users")
    )
    (tmp_path / "place").chmod(0o755)


@pytest.mark.parametrize("command", ["routes", "openapi"])
def test_commands_that_need_no_database_ignore_its_path(tmp_path, command):
    assert run_here(tmp_path / "app.db", command, DATABASE_URL=f"sqlite:///{tmp_path}").returncode == 0


@pytest.mark.parametrize("command", ["serve", "create-admin", "check"])
@pytest.mark.parametrize(("content", "mode"), [("", 0o600), ("x", 0o600), ("s" * 48, 0o644), ("s" * 48, 0o000)])
def test_an_unusable_secret_stops_every_command_that_signs(database_path, command, content, mode):
    """The error is one line that names the file and shows none of its content."""
    file = database_path.with_name("jwt-secret")
    file.write_text(content)
    file.chmod(mode)
    line = refused(run_on(database_path, command))
    assert str(file) in line and "JWT_SECRETS" in line and "must be" in line
    assert "sss" not in line


def test_a_command_line_that_cannot_be_read_is_a_usage_error(tmp_path):
    for arguments in (
        ["nonsense"],
        ["create-admin"],
        ["serve", "--nonsense"],
        ["users", "--activate", "a@example.com", "--deactivate", "a@example.com"],
        ["users", "--activate", os.fsdecode(b"\xff@example.com")],
        ["users", "--deactivate", os.fsdecode(b"\xff@example.com")],
        ["backup"],
        ["restore", os.fsdecode(b"\xff.db")],
    ):
        done = run_here(tmp_path / "app.db", *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("usage: ") and "Traceback" not in done.stderr


def test_a_reader_that_leaves_early_causes_no_message(tmp_path):
    """`python app.py openapi | head -1`: the pipe is closed while much is still to be written."""
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(
        [*COMMAND, "openapi"], env=environment(tmp_path / "app.db"), stdout=theirs, stderr=subprocess.PIPE, timeout=60,
        check=False,
    )  # fmt: skip
    os.close(theirs)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("command", ["check", "users", "routes", "openapi"])
def test_without_a_standard_output_nothing_is_printed(database_path, command):
    """`python app.py check >&-`, as some supervisors start programs."""
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, command]
    done = subprocess.run(closed, env=environment(database_path), capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
