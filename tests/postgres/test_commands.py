"""The command line on PostgreSQL."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest

from backend.operations.backup import backup
from backend.postgres import migrations
from tests.cli.running import ROOT, development_server, refused, run_here
from tests.cli.test_development_server import change, checkout, health  # noqa: F401 - a fixture
from tests.conftest import PASSWORD, SECRET
from tests.postgres_server import BINARIES, take_over, url_of
from tests.test_readme import take_tour
from tests.waiting import wait_until

README = (ROOT / "backend/postgres/README.md").read_text(encoding="utf-8")
TOOLS = os.pathsep.join([str(BINARIES), os.environ["PATH"]])


@pytest.fixture
def command(tmp_path, url):
    """One command on the test's database, run in this process: `command("users", JWT_SECRETS="…")`."""

    def command(*arguments, **settings):
        return run_here(tmp_path / "app.db", *arguments, **{"DATABASE_URL": url, "JWT_SECRETS": SECRET, **settings})

    return command


@pytest.fixture
def database_with(url):
    """The URL of a new database: `database_with("ENCODING 'LATIN1'")`."""
    name = f"special_{os.getpid()}"
    with psycopg.connect(url, autocommit=True) as connection:
        yield lambda options: connection.execute(f"CREATE DATABASE {name} {options}") and url_of(name)
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def source(world, database_path):
    """A filled database of SQLite."""
    return database_path


@pytest.fixture
def filled(url, source):
    """The test's database has its rows."""
    take_over(source)


def good(done):
    """The output of a command that succeeded."""
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def one_line(done, status=1):
    """The one line that a failed command printed."""
    assert (done.returncode, done.stderr.count("\n")) == (status, 1)
    return done.stderr


def test_migrate_brings_the_schema_up_to_date(command, fresh_url):
    assert good(command("migrate", DATABASE_URL=fresh_url)).startswith("applied 0001")
    assert good(command("migrate", DATABASE_URL=fresh_url)) == "nothing to do: the schema is the newest\n"


def test_serve_migrates_an_empty_database_shows_the_whole_tour_and_reloads_changed_code(
    tmp_path, fresh_url, checkout  # noqa: F811 - the imported fixture
):  # fmt: skip
    """A new migration is applied, too; and no file of SQLite is made."""
    (folder := tmp_path / "here").mkdir()
    serving = [sys.executable, str(checkout / "app.py")]
    with development_server(folder / "app.db", serving, DATABASE_URL=fresh_url) as server:
        for _ in range(2):
            take_tour(folder / "app.db", server.port, DATABASE_URL=fresh_url, JWT_SECRETS=SECRET)
        (checkout / "sql/postgres/0999_notes.sql").write_text("CREATE TABLE notes (text text);\n")
        change(checkout / "backend/routes/service.py", 'Status("ok")', 'Status("changed")')
        wait_until(lambda: health(server.port) == "changed")
        status, printed = server.end(signal.SIGTERM)
        assert (status, printed.splitlines()[-1]) == (0, "Stopped")
        assert "Traceback" not in server.errors()
    with psycopg.connect(fresh_url) as connection:
        assert connection.execute("SELECT count(*) FROM notes").fetchone() == (0,)
    assert {file.name for file in folder.rglob("*") if file.is_file()} <= {"errors.log", "jwt-secret"}


def test_admins_are_made_and_users_listed_and_deactivated(command):
    for name in ("root", "ada"):
        assert good(command("create-admin", f"{name}@example.com", ADMIN_PASSWORD=PASSWORD, BCRYPT_ROUNDS="4"))
    assert "signed up already" in refused(command("create-admin", "ada@example.com", ADMIN_PASSWORD=PASSWORD))
    assert "is an admin" in good(command("create-admin", "--existing", "ada@example.com"))
    assert "deactivated" in good(command("users", "--deactivate", "ada@example.com"))
    assert "last" in refused(command("users", "--deactivate", "root@example.com"))
    _, root, ada = good(command("users")).splitlines()
    assert root.split()[2:] == ["active", "admin,user", "root@example.com"]
    assert ada.split()[2:] == ["deactivated", "admin,user", "ada@example.com"]


def test_check_reads_the_ledger(filled, command, outsider):
    lines = good(command("check")).splitlines()
    assert "ledger: every currency adds up to 0, every balance to its entries" in lines
    assert not [line for line in lines if line.startswith("secrets")]
    outsider.execute("UPDATE accounts SET balance = balance + 1 WHERE kind = 'system'")
    assert "adds up" in refused(command("check"))


def test_check_may_take_longer_than_a_request(filled, command, url, outsider):
    waiting = """SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
                 AND query_start < clock_timestamp() - interval '0.2 s'"""

    def release():
        wait_until(lambda: outsider.execute(waiting).fetchone())
        holder.rollback()

    with psycopg.connect(url) as holder, ThreadPoolExecutor(1) as pool:
        holder.execute("LOCK TABLE entries")
        released = pool.submit(release)
        good(command("check", BUSY_TIMEOUT_SECONDS="0.05"))
        released.result()


def test_check_warns_of_a_secret_that_other_hosts_do_not_have(command):
    assert "secrets: JWT_SECRETS is not set" in good(command("check", JWT_SECRETS=""))


def test_verify_reads_a_backup_of_sqlite_as_before(command, migrated, tmp_path):
    backup(migrated, tmp_path / "backup.db", lambda *_: None)
    assert "ledger: good" in good(command("verify", str(tmp_path / "backup.db")))


# Databases that cannot be used.


@pytest.mark.parametrize("name", ["check", "migrate", "serve", "users", "move"])
def test_a_server_that_cannot_be_reached_is_one_line_without_the_password(command, migrated, name):
    arguments = [name, str(migrated)] if name == "move" else [name]
    done = command(*arguments, DATABASE_URL="postgresql://ada:hunter2@127.0.0.1:1/app", BIND="127.0.0.1:0")
    line = one_line(done, 2 if name == "move" else 1)
    assert line.startswith("DATABASE_URL: the PostgreSQL database cannot be used (") and "refused" in line
    assert "hunter2" not in line


def test_a_server_that_is_too_old_is_one_line(command, monkeypatch):
    monkeypatch.setattr(migrations, "OLDEST", 1_000_000)
    assert one_line(command("check")) == "DATABASE_URL: the PostgreSQL server is older than version 14\n"


def test_a_database_that_cannot_hold_every_text_is_one_line(command, database_with):
    url = database_with("ENCODING 'SQL_ASCII' TEMPLATE template0")
    assert "SQL_ASCII; it must be UTF8" in one_line(command("migrate", DATABASE_URL=url))


def test_the_database_of_another_application_is_one_line_and_stays_as_it_is(command, fresh_url):
    with psycopg.connect(fresh_url) as connection:
        connection.execute("CREATE TABLE users (name text)")
    assert 'relation "users" already exists' in one_line(command("migrate", DATABASE_URL=fresh_url))
    with psycopg.connect(fresh_url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    assert tables == [("users",)]


def test_a_user_without_the_right_to_create_tables_is_one_line(command, fresh_url):
    """As PostgreSQL 15 and newer have it for every user but the database's owner."""
    with psycopg.connect(fresh_url) as connection:
        connection.execute("DROP ROLE IF EXISTS reference_guest")
        connection.execute("CREATE ROLE reference_guest LOGIN")
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    try:
        done = command("migrate", DATABASE_URL=fresh_url.replace("test@", "reference_guest@"))
        assert "permission denied for schema public" in one_line(done)
    finally:
        with psycopg.connect(fresh_url) as connection:
            connection.execute("DROP ROLE reference_guest")


@pytest.mark.parametrize(("change", "word"), [
    ("DROP TABLE schema_migrations", "older"),
    ("DELETE FROM schema_migrations WHERE version = 8", "older"),
    ("INSERT INTO schema_migrations VALUES (9999, 'x', 0)", "newer"),
])  # fmt: skip
def test_another_schema_is_one_line_that_says_what_to_do(command, fresh_url, change, word):
    command("migrate", DATABASE_URL=fresh_url)
    with psycopg.connect(fresh_url) as connection:
        connection.execute(change)
    assert word in one_line(command("check", DATABASE_URL=fresh_url))


def test_migrate_does_not_call_a_newer_schema_the_newest(command, fresh_url):
    command("migrate", DATABASE_URL=fresh_url)
    with psycopg.connect(fresh_url) as connection:
        connection.execute("INSERT INTO schema_migrations VALUES (9999, 'x', 0)")
    assert "newer" in one_line(command("migrate", DATABASE_URL=fresh_url))


def test_without_the_extra_it_is_one_line_that_names_it(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert "with the extra `postgres`" in one_line(command("check"))


# Backup and restore.


@pytest.mark.parametrize(("name", "tool"), [("backup", "pg_dump -Fc --file='my file'"), ("restore", "pg_restore ")])
def test_backup_and_restore_name_the_tools_of_postgresql_and_touch_no_file(command, tmp_path, name, tool):
    line = one_line(command(name, "my file"), 2)
    assert tool in line and "'my file'" in line
    assert list(tmp_path.iterdir()) == []


def blocks(heading):
    """The shell blocks of a section of the room's README, in a form that runs here."""
    section = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    for block in section.split("```sh\n")[1:]:
        yield block.partition("```")[0].replace("reference-backend", f"{sys.executable} {ROOT / 'app.py'}")


@pytest.mark.skipif(not shutil.which("pg_dump", path=TOOLS), reason="this machine has no pg_dump")
def test_a_dump_restored_as_the_readme_says_is_the_database_without_its_logins(
    filled, url, fresh_url, outsider, tmp_path
):
    """Every version starts above all that were given out, so no ETag from after the dump fits."""
    dump, restore = blocks("Back up and restore")
    shell = {"PATH": TOOLS, "JWT_SECRETS": SECRET}
    for script, target in ((dump, url), (restore, fresh_url)):
        done = subprocess.run(["bash", "-euc", script], cwd=tmp_path, env=shell | {"DATABASE_URL": target},
                              capture_output=True, text=True, timeout=120, check=False)  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
    assert "ledger: every currency adds up to 0" in done.stdout
    assert (tmp_path / "backup.dump").stat().st_mode & 0o077 == 0
    same = ["accounts", "transactions", "entries", "orders", "order_items", "idempotency_keys", "outbox", "audit"]
    newest = "SELECT max(version) FROM users UNION ALL SELECT max(version) FROM products"
    with psycopg.connect(fresh_url) as restored:
        for table in same:
            query = f"SELECT one::text FROM {table} AS one ORDER BY 1"
            assert restored.execute(query).fetchall() == outsider.execute(query).fetchall(), table
        assert restored.execute("SELECT count(*) FROM sessions WHERE ended_at IS NULL").fetchone() == (0,)
        before, after = outsider.execute(newest).fetchall(), restored.execute(newest).fetchall()
    assert all(new > old + 10**15 for (old,), (new,) in zip(before, after, strict=True))


# Move.


def test_move_takes_over_an_sqlite_database_and_says_what_has_arrived(command, source):
    first, second = good(command("move", str(source))).splitlines()
    assert first.startswith(f"moved {source}: users 4, ")
    assert second == "every row has arrived; the ledger adds up"
    assert len(good(command("users")).splitlines()) == 5


def test_move_refuses_a_target_with_rows_or_without_the_schema(command, source, fresh_url):
    good(command("move", str(source)))
    assert "not empty" in one_line(command("move", str(source)), 2)
    assert "migrate" in one_line(command("move", str(source), DATABASE_URL=fresh_url), 2)


@pytest.mark.parametrize("fault", ["absent", "no database", "another application", "older", "a zero byte"])
def test_move_refuses_a_bad_source_in_one_line_and_writes_nothing(command, source, outsider, tmp_path, fault):
    file = tmp_path / "other.db"
    if fault == "no database":
        file.write_text("no database, but long enough to have a header" * 100)
    elif fault != "absent":
        if fault != "another application":
            shutil.copy(source, file)
        with closing(sqlite3.connect(file)) as database, database:
            database.execute({
                "another application": "CREATE TABLE notes (text TEXT)",
                "older": "DELETE FROM schema_migrations WHERE version = 8",
                "a zero byte": "UPDATE users SET name = 'a' || char(0)",
            }[fault])  # fmt: skip
    line = one_line(command("move", str(file)), 2)
    said = {"absent": "there is no database", "no database": "not a database", "a zero byte": "refused the move"}
    assert said.get(fault, fault) in line
    assert outsider.execute("SELECT count(*) FROM users").fetchone() == (0,)


def test_move_to_sqlite_is_refused(command, source):
    line = one_line(command("move", str(source), DATABASE_URL=f"sqlite:///{source}"), 2)
    assert "must be the PostgreSQL database" in line
