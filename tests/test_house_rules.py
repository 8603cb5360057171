"""The house rules of the code: what imports what, how long functions are, what stands where; and the README is true."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend import errors

ROOT = Path(__file__).parents[1]
SOURCES = {path.relative_to(ROOT).as_posix(): path for path in [ROOT / "app.py", *ROOT.glob("backend/**/*.py")]}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}

# room (or file at the root of backend/) → what of ours it may import, beside itself
ANYBODYS = {"errors", "domain", "settings", "__version__"}
ROOMS = {"routes", "services", "repositories", "web", "infrastructure", "delivery", "openapi"}
MAY_IMPORT = {
    "app": (ROOMS - {"repositories"}) | ANYBODYS | {"cli"},
    "cli": ROOMS | ANYBODYS | {"app", "demo", "gunicorn_conf"},
    "demo": {"settings"},
    "gunicorn_conf": {"errors", "settings", "infrastructure", "production"},
    "routes": {"services", "web"} | ANYBODYS,
    "services": {"repositories", "infrastructure"} | ANYBODYS,
    "repositories": {"infrastructure"} | ANYBODYS,
    "delivery": {"services", "repositories", "infrastructure"} | ANYBODYS,
    "openapi": {"web", "infrastructure"} | ANYBODYS,
    "production": {"app", "web", "infrastructure"} | ANYBODYS,
    "web": {"infrastructure"} | ANYBODYS,
    "infrastructure": ANYBODYS,
}
OF_INFRASTRUCTURE_FOR_REPOSITORIES = {"database", "ids"}
# module that is not ours → the rooms that may know it
KEPT_TO = {
    "sqlite3": {"infrastructure", "production"},
    "jwt": {"infrastructure"},
    "bcrypt": {"infrastructure"},
    "werkzeug": {"web"},
    "gunicorn": {"production", "cli"},
}
WIRING = ("app.py", "__init__")  # the whole application on one page: as long as the page
SQL = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|REPLACE|PRAGMA|BEGIN|COMMIT)\b")
STATUSES = {error.status for error in vars(errors).values() if hasattr(error, "status")}
IMPORT_ALL = """
import importlib, pkgutil, sys
def watch(event, arguments):
    if event == "open" and not str(arguments[0]).endswith((".py", ".pyc", ".so")) or event in WATCHED:
        raise SystemExit(f"importing {name}: {event} {arguments[:1]}")
WATCHED = {"sqlite3.connect", "socket.__new__", "_thread.start_new_thread", "_thread.start_joinable_thread", "os.fork"}
name = "app"
sys.addaudithook(watch)
import app, backend
for _, name, _ in pkgutil.walk_packages(backend.__path__, "backend."):
    importlib.import_module(name)
print(name)
"""


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


def test_imports_go_one_way():
    wrong = []
    for name, tree in TREES.items():
        room = room_of(name)
        for package, *inner in imports_of(tree):
            if package not in ("backend", "app"):
                continue
            target = "app" if package == "app" else inner[0]
            if target not in {room} | MAY_IMPORT.get(room, set()):
                wrong.append(f"{name} imports {target}")
            elif (room, target) == ("repositories", "infrastructure"):
                wrong += [f"{name} imports {inner[1]}"] * (inner[1] not in OF_INFRASTRUCTURE_FOR_REPOSITORIES)
    assert not wrong


def test_what_is_not_ours_is_known_in_one_room():
    known = {(package, room_of(name)) for name, tree in TREES.items() for package, *_ in imports_of(tree)}
    assert not {(package, room) for package, room in known if room not in KEPT_TO.get(package, {room})}


def test_importing_a_module_opens_nothing():
    """No file, database, socket, thread or process: what is needed is made when the application is."""
    command = [sys.executable, "-B", "-c", IMPORT_ALL]
    done = subprocess.run(command, cwd=ROOT, env={}, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("backend.")


def test_functions_are_short():
    """One in twenty may be longer than 25 lines, none than 45, the wiring excepted."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = [(name, node) for name, tree in TREES.items() for node in ast.walk(tree) if isinstance(node, kinds)]
    lengths = {
        f"{name}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for name, node in functions if (name, node.name) != WIRING
    }  # fmt: skip
    long = {where: length for where, length in lengths.items() if length > 25}
    assert len(long) <= len(lengths) / 20, long
    assert {where: length for where, length in long.items() if length > 45} == {}


def test_every_module_says_what_it_is():
    tests = {path.relative_to(ROOT).as_posix(): path for path in ROOT.glob("tests/**/*.py")}
    trees = TREES | {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in tests.items()}
    assert [name for name, tree in trees.items() if not ast.get_docstring(tree)] == []


def test_no_guard_is_an_assert():
    """`python -O` would lift it."""
    assert [name for name, tree in TREES.items() if any(isinstance(n, ast.Assert) for n in ast.walk(tree))] == []


def test_sql_stands_in_repositories_and_infrastructure_alone():
    found = [(name, node) for name, node in constants_of("services", "routes", "web") if isinstance(node.value, str)]
    assert [f"{name}:{node.lineno}" for name, node in found if SQL.match(node.value)] == []


def test_a_service_writes_for_a_caller_in_the_transaction_that_reads_the_rights_again():
    """A function with a `caller` uses `authorised(…)`, never `database.transaction()`."""
    found = [
        f"{name}:{call.lineno}"
        for name, tree in TREES.items() if room_of(name) == "services" and name != "backend/services/rights.py"
        for function in ast.walk(tree) if isinstance(function, ast.FunctionDef)
        if "caller" in [argument.arg for argument in [*function.args.args, *function.args.kwonlyargs]]
        for call in ast.walk(function) if isinstance(call, ast.Attribute) and call.attr == "transaction"
    ]  # fmt: skip
    assert found == []


def test_services_name_errors_and_no_statuses():
    found = [f"{name}:{node.lineno}" for name, node in constants_of("services") if node.value in STATUSES]
    assert found == []


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
def test_a_pattern_of_the_readme_stands_where_it_says(row):
    """Every file, symbol and test that a row names exists, and it names one at least of each."""
    _, where, tests = row
    symbols, cases = re.findall(r"`([^`:]+):([^`:]+)`", where), re.findall(r"`(tests/[^`:]+)::(test_\w+)", tests)
    assert symbols
    assert cases
    for name, symbol in symbols + cases:
        assert (ROOT / name).is_file(), name
        assert has_symbol(ROOT / name, symbol), f"{name}: {symbol}"
