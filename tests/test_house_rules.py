"""Rules of this code: which room imports which, how long functions are, where SQL belongs; and the README is true."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

from backend import errors

ROOT = Path(__file__).parents[1]
SOURCES = {path.relative_to(ROOT).as_posix(): path for path in [ROOT / "app.py", *ROOT.glob("backend/**/*.py")]}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}
THIS_FILE = "tests/test_house_rules.py"

# Room, or file at the root of backend/ → what of backend/ it may import beside itself and ALL_MAY_IMPORT.
# The core comes first; optional rooms import it, never the reverse; `app.py` names `delivery` and `openapi`.
ALL_MAY_IMPORT = {"errors", "domain", "settings", "__version__"}
MAY_IMPORT = {
    "routes": {"services", "web"},
    "services": {"repositories", "infrastructure"},
    "repositories": {"infrastructure"},
    "web": {"infrastructure"},
    "infrastructure": set(),
    "app": {"routes", "services", "web", "infrastructure", "delivery", "openapi", "cli"},
    "cli": {"routes", "services", "repositories", "web", "infrastructure", "openapi", "operations", "postgres", "lab"},
    "delivery": {"services", "repositories", "infrastructure"},
    "openapi": {"web", "infrastructure"},
    "operations": {"app", "services", "repositories", "web", "infrastructure"},
    "production": {"app", "web", "infrastructure", "operations"},
    "postgres": {"app", "production", "operations", "repositories", "infrastructure"},
    "lab": {"app", "cli", "repositories", "web", "infrastructure", "openapi", "production"},
    "gunicorn_conf": {"production", "postgres", "operations", "infrastructure"},
}
OF_INFRASTRUCTURE_FOR_REPOSITORIES = {"database", "ids"}
# third-party module → the rooms that may import it
KEPT_TO = {
    "sqlite3": {"infrastructure", "production", "operations", "cli"},
    "psycopg": {"postgres", "cli"},
    "jwt": {"infrastructure"},
    "bcrypt": {"infrastructure"},
    "werkzeug": {"web", "cli", "lab"},
    "gunicorn": {"production"},
    "prometheus_client": {"operations"},
}
WIRING = ("app.py", "__init__")  # the whole application on one page; its length is not limited
NEED_PRODUCTION = (
    "tests/production/", "tests/operations/", "tests/postgres/", "tests/lessons/", "tests/lab/", "tests/bench/",
    "tests/contract/", "tests/wirings.py",
)  # fmt: skip
PUBLIC_ALTHOUGH_UNDERLINED = {"_exit", "_replace"}
SQL = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|REPLACE|PRAGMA|BEGIN|COMMIT)\b")
STATUSES = {error.status for error in vars(errors).values() if hasattr(error, "status")}
IMPORT_ALL = """
import importlib, pkgutil, sys
import prometheus_client  # not ours: it reads the time of boot from /proc
try:
    import psycopg, backend.postgres  # psycopg opens its own libraries
    unusable = ()
except ImportError:
    unusable = ("backend.postgres.", "backend.cli.move")
def watch(event, arguments):
    if event == "open" and not str(arguments[0]).endswith((".py", ".pyc", ".so")) or event in WATCHED:
        raise SystemExit(f"importing {name}: {event} {arguments[:1]}")
WATCHED = {"sqlite3.connect", "socket.__new__", "_thread.start_new_thread", "_thread.start_joinable_thread", "os.fork"}
name = "app"
sys.addaudithook(watch)
import app, backend
for _, name, _ in pkgutil.walk_packages(backend.__path__, "backend."):
    if not name.startswith(unusable):
        importlib.import_module(name)
print(name)
"""


@cache
def trees_of_tests() -> dict[str, ast.Module]:
    """Parsed only by the process that runs these rules, not by every one that collects them."""
    files = {path.relative_to(ROOT).as_posix(): path for path in ROOT.glob("tests/**/*.py")}
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in files.items()}


def room_of(name: str) -> str:
    """`backend/web/request.py` is of the room `web`, `backend/errors.py` of its own."""
    return "app" if name == "app.py" else name.split("/")[1].removesuffix(".py")


def imports_of(tree: ast.Module) -> Iterator[list[str]]:
    """The dotted names that a module imports, split; also those inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ([*(node.module or "").split("."), alias.name] for alias in node.names)


def constants_of(*rooms: str) -> Iterator[tuple[str, ast.Constant]]:
    for name, tree in TREES.items():
        if room_of(name) in rooms:
            yield from ((name, node) for node in ast.walk(tree) if isinstance(node, ast.Constant))


def refuse(found: Iterable[str], advice: str) -> None:
    """Fail if anything was found: list it, one a line, and what to do about it."""
    if lines := sorted(found):
        pytest.fail("\n".join([*lines, f"→ {advice}"]), pytrace=False)


def test_imports_go_one_way():
    refuse(
        {room_of(name) for name in TREES} - set(MAY_IMPORT) - ALL_MAY_IMPORT - {"__init__"},
        f"New in backend/: add a row to MAY_IMPORT in {THIS_FILE} that says what it may import. "
        "A resource needs no room of its own: its files go into routes/, services/ and repositories/.",
    )
    imported = [
        (name, "app" if package == "app" else inner[0])
        for name, tree in TREES.items()
        for package, *inner in imports_of(tree)
        if package in ("app", "backend")
    ]
    refuse(
        {f"{name} imports {target}" for name, target in imported
         if target not in {room_of(name)} | ALL_MAY_IMPORT | MAY_IMPORT.get(room_of(name), set())},
        "Imports go one way: app → routes → services → repositories → infrastructure, routes → web → infrastructure. "
        "Move the code into the room that may know it, or pass what it needs as a parameter from app.py.",
    )  # fmt: skip


def test_repositories_know_transactions_and_ids_of_infrastructure():
    refuse(
        {f"{name} imports infrastructure.{inner[1]}"
         for name, tree in TREES.items() if room_of(name) == "repositories"
         for package, *inner in imports_of(tree) if package == "backend" and inner[0] == "infrastructure"
         if inner[1] not in OF_INFRASTRUCTURE_FOR_REPOSITORIES},
        "A repository is a function of a transaction: what else it needs, its service passes as a value.",
    )  # fmt: skip


def test_tests_of_the_core_do_not_need_production():
    """`tests/wirings.py` alone imports it, where it is installed."""
    needed = ("backend.production", "backend.gunicorn_conf", "tests.production", "tests.bench")
    refuse(
        {f"{name} imports {'.'.join(dotted)}"
         for name, tree in trees_of_tests().items() if not name.startswith(NEED_PRODUCTION)
         for dotted in imports_of(tree) if ".".join(dotted).startswith(needed)},
        "The core's tests pass without production: move the test to tests/production/, or the helper out of it.",
    )  # fmt: skip


def test_tests_reach_into_no_private_attributes():
    """A fake may use its own, by `self` or `super()`."""
    refuse(
        {f"{name}:{node.lineno} {ast.unparse(node)}"
         for name, tree in trees_of_tests().items() for node in ast.walk(tree)
         if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr)
         and node.attr not in PUBLIC_ALTHOUGH_UNDERLINED
         and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
         and not ast.unparse(node.value).startswith("super()")},
        "Assert what a caller can see, or make what the test needs public.",
    )  # fmt: skip


def test_a_third_party_package_is_imported_in_one_room():
    known = {(package, room_of(name)) for name, tree in TREES.items() for package, *_ in imports_of(tree)}
    refuse(
        {f"{room} imports {package}" for package, room in known if room not in KEPT_TO.get(package, {room})},
        f"Call what the room in KEPT_TO ({THIS_FILE}) offers instead.",
    )


def test_importing_a_module_opens_nothing():
    """It opens no file, database or socket and starts no thread or process: `create_app` does."""
    command = [sys.executable, "-B", "-c", IMPORT_ALL]
    done = subprocess.run(command, cwd=ROOT, env={}, capture_output=True, text=True, timeout=60, check=False)
    refuse(done.stderr.splitlines(), "Open it where the application is made: in core_tools() or App of app.py.")
    assert done.returncode == 0
    assert done.stdout.startswith("backend.")


def test_functions_are_short():
    """One in twenty may be longer than 25 lines, none longer than 45; the wiring is exempt."""
    lengths = {
        f"{name}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (name, node.name) != WIRING
    }
    long = {f"{where}: {length} lines" for where, length in lengths.items() if length > 25}
    refuse(
        {f"{where}: {length} lines" for where, length in lengths.items() if length > 45},
        "Split it: a function has 45 lines at most.",
    )
    refuse(
        long if len(long) > len(lengths) / 20 else (),
        f"Split some of these: one function in twenty, {len(lengths) // 20} here, may be longer than 25 lines.",
    )


def test_every_module_has_a_docstring():
    refuse(
        {name for name, tree in (TREES | trees_of_tests()).items() if not ast.get_docstring(tree)},
        "Begin the file with a docstring: what is in it, in one sentence.",
    )


def test_assert_is_no_guard():
    refuse(
        {f"{name}:{node.lineno}" for name, tree in TREES.items() for node in ast.walk(tree)
         if isinstance(node, ast.Assert)},
        "Raise an error: `python -O` leaves assertions out.",
    )  # fmt: skip


def test_sql_is_only_in_repositories_and_infrastructure():
    found = [(name, node) for name, node in constants_of("services", "routes", "web") if isinstance(node.value, str)]
    refuse(
        {f"{name}:{node.lineno}" for name, node in found if SQL.match(str(node.value))},
        "Put the statement into a function of backend/repositories/ that takes `tx`.",
    )


def test_a_service_writes_for_a_caller_in_the_transaction_that_reads_the_rights_again():
    refuse(
        {f"{name}:{call.lineno}"
         for name, tree in TREES.items() if room_of(name) == "services" and name != "backend/services/rights.py"
         for function in ast.walk(tree) if isinstance(function, ast.FunctionDef)
         if "caller" in [argument.arg for argument in [*function.args.args, *function.args.kwonlyargs]]
         for call in ast.walk(function) if isinstance(call, ast.Attribute) and call.attr == "transaction"},
        "Write `with authorised(database, caller) as (tx, caller)` instead of `transaction()`: the caller's role or "
        "session may have ended since the request was authenticated.",
    )  # fmt: skip


def test_services_know_errors_and_no_http_statuses():
    refuse(
        {f"{name}:{node.lineno} {node.value}" for name, node in constants_of("services") if node.value in STATUSES},
        "Raise an error of backend/errors.py: it knows its status.",
    )


def rows_of_patterns() -> list[list[str]]:
    """The rows of the table under `## Patterns` in the README: pattern, where, test."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = re.search(r"^## Patterns$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    lines = [line for line in (section[1] if section else "").splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def has_symbol(path: Path, dotted: str) -> bool:
    """Whether the file defines `function`, `CONSTANT`, `Class` or `Class.member`; of SQL, whether it names it."""
    if path.suffix != ".py":
        return re.search(rf"\b{re.escape(dotted)}\b", path.read_text(encoding="utf-8")) is not None
    within: list[ast.stmt] = ast.parse(path.read_text(encoding="utf-8")).body
    for part in dotted.split("."):
        named = {name: node for node in within for name in names_made_by(node)}
        if part not in named:
            return False
        within = getattr(named[part], "body", [])
    return True


def names_made_by(node: ast.stmt) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [getattr(node, "name", ""), *(target.id for target in targets if isinstance(target, ast.Name))]


def test_the_readme_has_its_table_of_patterns():
    rows = rows_of_patterns()
    assert len(rows) >= 20
    assert len({pattern for pattern, *_ in rows}) == len(rows)


@pytest.mark.parametrize("row", rows_of_patterns(), ids=lambda row: row[0])
def test_a_pattern_of_the_readme_is_where_it_says(row):
    """Every file, symbol and test that a row names exists, and each row names at least one of each."""
    _, where, tests = row
    symbols, cases = re.findall(r"`([^`:]+):([^`:]+)`", where), re.findall(r"`(tests/[^`:]+)::(test_\w+)", tests)
    assert symbols and cases, "Name `file:symbol` and `tests/file.py::test_name`."
    refuse(
        {f"{name}: {symbol}" for name, symbol in symbols + cases
         if is_here(name) and not ((ROOT / name).is_file() and has_symbol(ROOT / name, symbol))},
        "Renamed or moved? Correct this row of README.md.",
    )  # fmt: skip


def is_here(name: str) -> bool:
    """Whether the room of this file is part of the copy: the core stands without these."""
    room = re.match("(backend|tests)/(production|operations|postgres|lab)/", name)
    return room is None or (ROOT / room[0]).is_dir()
