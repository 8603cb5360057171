"""Migrations: files are applied once, in order, each as a whole, also after a kill and by several processes at once."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from app import create_app
from backend.errors import Unavailable
from backend.infrastructure.migrations import (
    DIRECTORY,
    SchemaMismatch,
    check_database,
    check_schema,
    migrate,
    write_gate,
)
from backend.settings import Settings, SettingsError
from tests.at_once import at_once
from tests.forked import Forked
from tests.waiting import wait_until

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # 3.12: we fork beside threads on purpose

FOR_EVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT count(*) FROM n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "var" / "app.db"


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., Path]:
    """A folder of migrations: `files(a="CREATE …", b="…")` writes 0001_a.sql and 0002_b.sql."""

    def files(**scripts: str) -> Path:
        folder = tmp_path / "sql"
        folder.mkdir(exist_ok=True)
        for n, (name, script) in enumerate(scripts.items(), 1):
            (folder / f"{n:04}_{name}.sql").write_text(script, encoding="utf-8")
        return folder

    return files


def query(path: Path, sql: str) -> list[tuple]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def tables(path: Path) -> set[str]:
    return {name for (name,) in query(path, "SELECT name FROM sqlite_schema WHERE type = 'table'")}


def test_every_file_is_applied_once_and_in_order(path, files):
    """The folder of the database is created. The result names what was applied; a second run applies nothing."""
    folder = files(b="CREATE TABLE b (x)", a="INSERT INTO b VALUES (1)")
    (folder / "README.md").write_text("not a migration")
    assert migrate(path, folder) == ["0001_b", "0002_a"]
    assert migrate(path, folder) == []
    files(b="", a="", c="INSERT INTO b VALUES (2)")
    assert migrate(path, folder) == ["0003_c"]
    assert query(path, "SELECT x FROM b") == [(1,), (2,)]
    assert query(path, "SELECT version, name FROM schema_migrations") == [(1, "0001_b"), (2, "0002_a"), (3, "0003_c")]


def test_a_semicolon_within_a_statement_does_not_end_it(path, files):
    """Semicolons in a trigger's body, a string, a comment or a name; the last statement has none."""
    folder = files(
        a="""
        CREATE TABLE "odd;name" (x TEXT DEFAULT 'a;b'); -- a comment; with one
        /* another;
        */
        CREATE TABLE log (x TEXT);
        CREATE TRIGGER two AFTER INSERT ON "odd;name" BEGIN
            INSERT INTO log VALUES (NEW.x);
            INSERT INTO log VALUES (CASE WHEN NEW.x = 'a;b' THEN 'yes;' END);
        END;
        INSERT INTO "odd;name" DEFAULT VALUES;
        INSERT INTO log VALUES ('last')
        """
    )
    assert migrate(path, folder) == ["0001_a"]
    assert query(path, "SELECT x FROM log") == [("a;b",), ("yes;",), ("last",)]


@pytest.mark.parametrize("broken", ["CREATE TABLE a (y)", "INSERT INTO a VALUES (1, 2)", "SELECT * FROM nowhere", "?"])
def test_a_file_that_fails_is_undone_as_a_whole(path, files, broken):
    """The error is raised, earlier files stay applied, and the corrected file is applied by the next run."""
    folder = files(first="CREATE TABLE first (x);", second=f"CREATE TABLE a (x);\n{broken};\nCREATE TABLE c (x);")
    with pytest.raises(sqlite3.Error):
        migrate(path, folder)
    assert tables(path) == {"schema_migrations", "first"}
    assert query(path, "SELECT name FROM schema_migrations") == [("0001_first",)]
    with pytest.raises(SchemaMismatch):
        check_schema(path, folder)
    files(first="", second="CREATE TABLE a (x);")
    assert migrate(path, folder) == ["0002_second"]
    check_schema(path, folder)


def test_of_three_processes_at_once_one_migrates(path, files):
    """Each file is in the result of exactly one process."""
    folder = files(**{f"n{n}": f"CREATE TABLE t{n} (x);\nINSERT INTO t{n} VALUES (1);" for n in range(9)})
    path.parent.mkdir()
    children = [Forked(lambda: migrate(path, folder)) for _ in range(3)]
    applied = [child.result() for child in children]
    assert sorted(name for names in applied for name in names) == [f"000{n + 1}_n{n}" for n in range(9)]
    assert all(query(path, f"SELECT count(*) FROM t{n}") == [(1,)] for n in range(9))


def test_many_threads_at_once_leave_the_newest_schema(path):
    at_once([lambda: migrate(path)] * 5)
    check_schema(path)


def test_a_kill_between_two_statements_leaves_nothing(path, files):
    """The killed process has filled a table so far that pages are in the write-ahead log; the next run starts over."""
    folder = files(first="CREATE TABLE first (x);")
    migrate(path, folder)
    files(first="", second=f"CREATE TABLE a (x);\nINSERT INTO a VALUES (zeroblob(9000000));\n{FOR_EVER};")
    child, log = Forked(lambda: migrate(path, folder)), path.with_name("app.db-wal")
    wait_until(lambda: log.exists() and log.stat().st_size > 4_000_000)
    child.kill()
    assert tables(path) == {"schema_migrations", "first"}
    files(first="", second="CREATE TABLE a (x);\nCREATE TABLE b (x);")
    assert migrate(path, folder) == ["0002_second"]
    assert tables(path) == {"schema_migrations", "first", "a", "b"}


@pytest.mark.parametrize("busy_with", ["another migration", "another program"])
def test_a_migration_that_waits_too_long_is_refused(path, files, busy_with):
    """It has changed nothing, and once the other is done, the next one does all the work."""
    migrate(path, files(a="CREATE TABLE a (x);"))
    folder = files(a="", b="CREATE TABLE b (x);")
    with closing(sqlite3.connect(path, isolation_level=None)) as outsider, ExitStack() as stack:
        if busy_with == "another program":
            outsider.execute("BEGIN IMMEDIATE")
        else:
            stack.enter_context(write_gate(path))
        with pytest.raises(Unavailable):
            migrate(path, folder, busy_timeout=0.05)
    assert migrate(path, folder) == ["0002_b"]


@pytest.mark.parametrize(("applied", "wanted", "told"), [(1, 2, ["older", "migrate"]), (2, 1, ["newer", "deploy"])])
def test_a_schema_of_another_version_is_refused_in_one_line_that_says_what_to_do(path, files, applied, wanted, told):
    scripts = {"a": "CREATE TABLE a (x);", "b": "CREATE TABLE b (x);"}
    folder = files(**dict(list(scripts.items())[:applied]))
    migrate(path, folder)
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(SchemaMismatch) as caught:
        check_schema(path, files(**dict(list(scripts.items())[:wanted])))
    (line,) = str(caught.value).splitlines()
    assert str(path) in line
    assert all(word in line for word in told)


def test_a_database_without_a_schema_is_older(path):
    path.parent.mkdir()
    path.touch()
    with pytest.raises(SchemaMismatch, match=r"older.*migrate"):
        check_schema(path)


def test_for_an_absent_database_the_error_names_the_command_that_creates_it(path, tmp_path, monkeypatch):
    """It also has the absolute path, because the working directory may be the wrong one. The check creates nothing."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SchemaMismatch) as caught:
        check_schema(path.relative_to(tmp_path))
    (line,) = str(caught.value).splitlines()
    assert "no database" in line and str(path) in line and "migrate" in line and "older" not in line
    assert list(tmp_path.iterdir()) == []


def test_without_migration_files_the_installation_is_incomplete(path, tmp_path):
    """An empty or absent folder does not pass for a schema without tables."""
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "absent"):
        for look in (migrate, check_schema, check_database):
            with pytest.raises(SchemaMismatch, match="no migration files") as caught:
                look(path, folder)
            assert str(folder) in str(caught.value)
    assert not path.parent.exists()


def test_only_the_owner_can_read_the_database_its_other_files_and_their_folder(path):
    """Read permission for the gate's file would be enough to take its lock and to stop all writing."""
    before = os.umask(0o022)
    migrate(path)
    os.umask(before)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO schema_migrations VALUES (9999, 'x', 0)")
        modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert modes.keys() >= {"app.db", "app.db-wal", "app.db-shm", "app.db-gate"}
    assert set(modes.values()) == {0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700


def rails(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE schema_migrations (version varchar PRIMARY KEY)")
        connection.execute("INSERT INTO schema_migrations VALUES ('20261122100000')")
        connection.commit()


def strangers(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE users (id)")


def cut(path):
    migrate(path)
    os.truncate(path, path.stat().st_size // 2)


NO_DATABASES = {
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
    "text": lambda path: path.write_text("To do: back up the database.\n" * 40),
    "short text": lambda path: path.write_text("no"),
    "half a database": cut,
    "a piece of a database": lambda path: path.write_bytes(b"SQLite format 3\0"),
    "link to nowhere": lambda path: path.symlink_to(path.parent / "nowhere" / "app.db"),
    "another application's": strangers,
    "another application's with migrations": rails,
}


def state(folder: Path) -> dict[str, object]:
    """The names and contents of the files in the folder."""
    return {file.name: file.read_bytes() if file.is_file() else None for file in folder.iterdir()}


@pytest.mark.parametrize("look", [migrate, check_database])
@pytest.mark.parametrize("kind", NO_DATABASES)
def test_what_is_no_database_of_this_service_is_refused_and_left_alone(path, kind, look):
    """The error is one line that has the variable, its value and what it must be."""
    path.parent.mkdir()
    NO_DATABASES[kind](path)
    before = state(path.parent)
    with pytest.raises(SettingsError) as caught:
        look(path)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"DATABASE_URL was 'sqlite:///{path}' (") and "it must be" in line
    assert state(path.parent) == before


@pytest.mark.parametrize("look", [migrate, check_database])
def test_a_database_inside_a_file_is_refused(tmp_path, look):
    (tmp_path / "file").write_text("x")
    path = tmp_path / "file" / "app.db"
    with pytest.raises(SettingsError if look is migrate else SchemaMismatch) as caught:
        look(path)
    assert str(path) in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "change",
    ["DELETE FROM schema_migrations WHERE version = 1", "INSERT INTO schema_migrations VALUES (9999, 'x', 0)"],
    ids=["older", "newer"],
)
def test_the_application_does_not_start_on_a_schema_of_another_version(path, change):
    migrate(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(change)
        connection.commit()
    with pytest.raises(SchemaMismatch):
        create_app(Settings(database_path=path))


def test_the_schema_is_strict_and_consistent_and_in_wal_mode(path):
    """Every table is STRICT, every foreign key has a target, and the numbers of the files have no gaps."""
    names = migrate(path)
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    assert names == sorted(file.stem for file in DIRECTORY.iterdir())
    assert query(path, "PRAGMA journal_mode") == [("wal",)]
    not_strict = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND name NOT LIKE 'sqlite_%' AND NOT strict"
    assert query(path, not_strict) == []
    assert query(path, "PRAGMA foreign_key_check") == query(path, "PRAGMA integrity_check(1)")[1:] == []
