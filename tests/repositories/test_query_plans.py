"""The cost of an SQL statement depends on what it finds, not on what its tables hold: no scan of a table, no sort.

The statements are recorded, not listed: every public function of every repository runs with every combination of its
optional arguments, and every route is requested once, for the statements of the infrastructure. SQLite's plans must be
good on a database with the statistics of years and on one without any, since the server never runs ANALYZE.
"""

import ast
import importlib
import inspect
import itertools
import re
import shutil
import sqlite3
import time
import types
import typing
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from backend import repositories
from backend.infrastructure.database import Duplicate, Tx
from backend.repositories import users
from backend.settings import Settings
from tests.conftest import SECRET, Api
from tests.every_route import VALID, allowed_caller, build_world, send
from tests.wirings import WIRINGS, make_app

# Exceptions: a step of the plan and the beginning of the statement, and the reason.
BY_DESIGN = {
    r"SCAN users.*: SELECT count\(\*\) FROM users": "an offset list shows the total",
    r"SCAN users.*: SELECT .* LIMIT :limit OFFSET": "an offset list reads the rows before its page",
    r"SCAN \w+: SELECT .* FROM \w+ (WHERE 1 = 1 )?ORDER BY id DESC LIMIT": "reads the newest rows only",
    r"SCAN \w+: DELETE FROM \w+ .* \(SELECT id, created_at FROM \w+ ORDER BY id LIMIT": "reads the oldest rows only",
    r"USE TEMP B-TREE FOR ORDER BY: SELECT .* FROM transactions JOIN .* AS page": "sorts the page that it shows",
    r"USE TEMP B-TREE FOR ORDER BY: SELECT .* FROM sessions WHERE user_id": "a user has at most 100 live logins",
    r"no index answers created_at: SELECT id FROM password_resets WHERE user_id": "a user has at most one open request",
    r"SCAN accounts: SELECT currency, sum\(balance\)": "`check` adds up the whole ledger",
    r"SCAN accounts: SELECT id, balance FROM accounts WHERE balance <>": "`check` adds up the whole ledger",
    r"USE TEMP B-TREE FOR GROUP BY: SELECT currency, sum\(balance\)": "`check` adds up the whole ledger",
    r"SCAN deliveries USING COVERING INDEX .*: WITH RECURSIVE owed": "reads one entry",
}
OF_INFRASTRUCTURE = {
    r".*: SELECT coalesce\(\(SELECT min\(seq\) FROM cache_invalidations": "the log keeps 10,000 entries",
    r"SCAN schema_migrations": "a row for each migration",
    r"SCAN sqlite_schema": "a row for each table, index and trigger",
}
ROWS = 1_000_000  # of each table, after years
DISTINCT = {
    "user_id": 10_000, "owner_id": 10_000, "account_id": 10_000, "session_id": 100_000, "order_id": 300_000,
    "created_at": 100_000, "expires_at": 100_000, "status": 3, "kind": 3, "currency": 3, "action": 20, "active": 2,
    "roles": 3, "subscriber": 3, "due_at": 1000, "resource_type": 8, "aggregate": 1000,
}  # fmt: skip
MODULES = [
    importlib.import_module(f"{repositories.__name__}.{path.stem}")
    for path in sorted(Path(repositories.__path__[0]).glob("*.py"))
    if path.stem != "__init__"
]
FUNCTIONS = [
    function
    for module in MODULES
    for function in vars(module).values()
    if inspect.isfunction(function) and function.__module__ == module.__name__ and function.__name__[0] != "_"
]
Statements = set[str]


class Recorder(sqlite3.Connection):
    """A connection that records the statements it executes."""

    seen: typing.ClassVar[Statements] = set()

    def execute(self, sql, parameters=()):
        self.seen.add(" ".join(sql.split()))
        return super().execute(sql, parameters)

    def executemany(self, sql, parameters):
        self.seen.add(" ".join(sql.split()))
        return super().executemany(sql, parameters)


class Null(dict):
    """Parameters by any name: plans do not depend on their values."""

    def __missing__(self, name):
        return None


numbers = itertools.count()


def values_of(annotation, name: str) -> list:
    """A value of every shape that a parameter may have: absent and present, and each of a few choices."""
    if isinstance(annotation, typing.NewType):
        return values_of(annotation.__supertype__, name)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return list(arguments)
    if origin in (typing.Union, types.UnionType):
        return [value for part in arguments for value in values_of(part, name)]
    if is_dataclass(annotation):
        hints = typing.get_type_hints(annotation)
        return [annotation(*(values_of(hints[field.name], field.name)[0] for field in fields(annotation)))]
    if origin is not None and issubclass(origin, typing.Mapping):
        keys, values = arguments
        return [{}] if values is object else [{values_of(keys, name)[0]: value for value in values_of(values, name)}]
    if origin is not None and issubclass(origin, typing.Iterable):
        return [tuple(values_of(arguments[0], name)[0] for _ in range(2))]
    if name == "sort":
        return list(users.ORDERS)
    simple = {str: f"{name}-{next(numbers)}", int: 1, bool: True, bytes: str(next(numbers)).encode()}
    if annotation is type(None):
        return [None]
    assert annotation in simple, f"say here what a {annotation} may be"
    return [simple[annotation]]


def run_with_all_arguments(function, tx: Tx) -> None:
    hints = typing.get_type_hints(function)
    names = [name for name in inspect.signature(function).parameters if hints[name] is not Tx]
    for values in itertools.product(*(values_of(hints[name], name) for name in names)):
        arguments = dict(zip(names, values, strict=True))
        with suppress(Duplicate):  # the same noun once more
            function(**({"tx": tx} if Tx in hints.values() else {}), **arguments)


@pytest.fixture(scope="module")
def template(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copy(migrated, tmp_path_factory.mktemp("plans") / "app.db"))


@pytest.fixture(scope="module")
def of_repositories(template: Path) -> Statements:
    """The statements of the repositories' functions."""
    path = shutil.copy(template, template.with_name("repositories.db"))
    with closing(sqlite3.connect(path, isolation_level=None, factory=Recorder)) as connection:
        connection.seen = set()
        connection.execute("PRAGMA ignore_check_constraints = ON")  # the values are any, the statements count
        for function in FUNCTIONS:
            run_with_all_arguments(function, Tx(connection, time.time_ns() // 1_000_000))
        return connection.seen


@pytest.fixture(scope="module")
def of_the_application(template: Path) -> Statements:
    """The statements that run when every route is requested once, over each wiring."""
    world = build_world(Path(shutil.copy(template, template.with_name("world.db"))))
    settings = Settings(world.path, (SECRET,), bcrypt_rounds=4, rate_limit_default=None, rate_limit_auth=None)
    seen: Statements = set()
    with pytest.MonkeyPatch.context() as patch:
        connect = sqlite3.connect
        patch.setattr(Recorder, "seen", seen)
        patch.setattr(sqlite3, "connect", lambda *given, **more: connect(*given, **more, factory=Recorder))
        for wiring in WIRINGS:
            app = make_app(settings, wiring=wiring)
            for key in VALID:
                send(Api(app), world, key, allowed_caller(world, key))
            app.close()
    return seen


@pytest.fixture(scope="module")
def statements(of_repositories: Statements, of_the_application: Statements) -> Statements:
    both = of_repositories | of_the_application
    return {sql for sql in both if sql.startswith(("SELECT", "INSERT", "UPDATE", "DELETE", "WITH"))}


@pytest.fixture(scope="module")
def costly_steps(statements: Statements, template: Path) -> list[str]:
    """Every step that reads more than it finds, with its statement, on databases with and without statistics."""
    steps = set()
    for name in ("statistics of years", "no statistics"):
        path = Path(shutil.copy(template, template.with_name(f"{name}.db")))
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            if name == "statistics of years":
                add_statistics(connection)
        with closing(sqlite3.connect(path)) as connection:  # a new one, because it reads the statistics when it opens
            steps |= {f"{fault}: {sql}" for sql in statements for fault in faults(connection, sql)}
    return sorted(steps)


def add_statistics(connection: sqlite3.Connection) -> None:
    """Write what ANALYZE would find: the number of rows, and how many share the first columns of each index."""
    connection.execute("ANALYZE")  # makes the table
    connection.execute("DELETE FROM sqlite_stat1")
    for table in tables_of(connection):
        for _, index, unique, origin, partial in connection.execute(f"PRAGMA index_list({table})").fetchall():
            rows = ROWS // 10 if partial else ROWS
            columns = [name for *_, name in connection.execute(f"PRAGMA index_info({index})")]
            few = itertools.accumulate(
                (min(rows, DISTINCT.get(column, rows)) for column in columns), lambda a, b: a * b
            )
            shares = [max(1, rows // distinct) for distinct in few]
            shares[-1] = 1 if unique else shares[-1]
            name = table if origin == "pk" else index  # as SQLite names the key of a table without rowids
            connection.execute(
                "INSERT INTO sqlite_stat1 VALUES (?, ?, ?)", (table, name, " ".join(map(str, [rows, *shares])))
            )


def tables_of(connection: sqlite3.Connection) -> list[str]:
    found = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
    return [name for (name,) in found]


def unique_keys(connection: sqlite3.Connection) -> list[set[str]]:
    """The sets of columns that find one row at most."""
    keys = [{"rowid"}]
    for table in tables_of(connection):
        for _, index, unique, _, partial in connection.execute(f"PRAGMA index_list({table})").fetchall():
            if unique and not partial:
                keys.append({name for *_, name in connection.execute(f"PRAGMA index_info({index})")})
    return keys


def faults(connection: sqlite3.Connection, sql: str) -> list[str]:
    """The steps of SQLite's plan that read more than they find, and the conditions that no index answers."""
    plan = [detail for *_, detail in connection.execute(f"EXPLAIN QUERY PLAN {sql}", Null())]
    derived = {detail.split()[1] for detail in plan if detail.startswith(("MATERIALIZE", "CO-ROUTINE"))}
    scans = [d for d in plan if d.startswith("SCAN") and "CONSTANT ROW" not in d and d.split()[1] not in derived]
    sorts = [detail for detail in plan if "TEMP B-TREE" in detail]
    searched = [set(re.findall(r"(\w+)[=<>]\?", detail)) for detail in plan if detail.startswith("SEARCH")]
    wanted = set(re.findall(r"(\w+) (?:=|<|>|<=|>=) :", sql.partition(" WHERE ")[2]))
    keys = unique_keys(connection)
    unanswered = wanted - set().union(*searched) if not all(any(k <= s for k in keys) for s in searched) else set()
    return scans + sorts + [f"no index answers {column}" for column in sorted(unanswered)]


def test_no_statement_reads_more_than_it_finds(costly_steps):
    exceptions = BY_DESIGN | OF_INFRASTRUCTURE
    wrong = [step for step in costly_steps if not any(re.match(allowed, step) for allowed in exceptions)]
    assert not wrong, "\n".join(wrong)


def test_every_exception_is_needed(costly_steps):
    assert [allowed for allowed in BY_DESIGN if not any(re.match(allowed, step) for step in costly_steps)] == []


def test_every_statement_in_the_source_was_recorded(of_repositories):
    """Each SQL text of a repository was executed, so a statement that depends on rows is not overlooked."""
    written = [(module.__name__, pattern) for module in MODULES for pattern in patterns_in(module)]
    assert len(written) > 40
    assert [each for each in written if not any(re.fullmatch(each[1], sql) for sql in of_repositories)] == []


def patterns_in(module: types.ModuleType) -> Iterator[str]:
    """Each text that begins like a statement, as a pattern of executed ones; `.*` is for what is filled in."""
    nodes = list(ast.walk(ast.parse(inspect.getsource(module))))
    inner = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        if isinstance(node, (ast.JoinedStr, ast.Constant)) and id(node) not in inner:
            parts = [getattr(part, "value", None) for part in getattr(node, "values", [node])]
            text = "".join(part.replace(":ids", "\0") if isinstance(part, str) else "\0" for part in parts)
            if re.match(r"(SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH) ", text):
                yield re.escape(" ".join(text.split())).replace("\0", ".*")


def test_statements_outside_the_repositories_are_among_them(of_the_application):
    """Production's cache has one: it reads its log."""
    assert any("FROM cache_invalidations" in sql for sql in of_the_application) == ("production" in WIRINGS)
