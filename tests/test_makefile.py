"""`make setup`: which Python it uses, and when it recreates `.venv`. Nothing is installed: pip finds no index.

And `make test` on a machine without PostgreSQL.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ANOTHER_VERSION = """#!/bin/sh
PYTHONPATH={folder} exec {python} "$@"
"""
WITHOUT_PIP = """#!/bin/sh
[ "$1 $2" = "-m venv" ] && exec {python} -m venv --without-pip "$3"
exec {python} "$@"
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "check out"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture
def python_of(tmp_path: Path):
    """A program that claims to be another version of Python: `python_of(3, 9)`."""

    def make(*version: int) -> Path:
        folder = tmp_path / f"python{version[-1]}"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(f"import sys\nsys.version_info = {(*version, 0)}\n")
        program = folder / "python"
        program.write_text(ANOTHER_VERSION.format(folder=folder, python=sys.executable))
        program.chmod(0o755)
        return program

    return make


@pytest.fixture
def python(tmp_path: Path) -> str:
    """This Python, but it creates environments quickly."""
    program = tmp_path / "python"
    program.write_text(WITHOUT_PIP.format(python=sys.executable))
    program.chmod(0o755)
    return str(program)


def make_setup(checkout: Path, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": os.environ["PATH"], "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, **settings}
    command = ["make", "--silent", *arguments, "setup"]
    return subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def set_up(checkout: Path) -> Path:
    """Run `make setup` with this Python; a file that is gone once `.venv` is recreated."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], cwd=checkout, check=True)
    (packages,) = checkout.glob(".venv/lib/python*/site-packages")
    (packages / "pip.py").touch()
    (checkout / ".venv" / ".installed").touch()
    return checkout / ".venv" / ".installed"


@pytest.mark.parametrize("as_argument", [True, False])
def test_an_old_python_is_refused_and_changes_nothing(checkout, python_of, as_argument):
    old = str(python_of(3, 9))
    for _ in range(2):
        done = make_setup(checkout, f"PYTHON={old}") if as_argument else make_setup(checkout, PYTHON=old)
        line, of_make = done.stderr.splitlines()
        assert old in line and "3.11" in line
        assert of_make.startswith("make: ***")
        assert done.returncode != 0
    assert not (checkout / ".venv").exists()
    kept = set_up(checkout)
    assert make_setup(checkout, f"PYTHON={old}").returncode != 0
    assert kept.exists()


def test_a_venv_that_works_stays_whatever_python3_is(checkout, python_of, python):
    """The one that `make PYTHON=… setup` chose is used by every later `make`."""
    kept = set_up(checkout)
    path = f"{python_of(3, 9).rename(python_of(3, 10).with_name('python3')).parent}:{os.environ['PATH']}"
    assert make_setup(checkout, PATH=path).returncode == 0
    assert make_setup(checkout, f"PYTHON={python}").returncode == 0
    assert kept.exists()


@pytest.mark.parametrize("fault", ["another version", "too old", "no interpreter", "no pip", "moved"])
def test_a_venv_of_another_version_or_a_broken_one_is_recreated(checkout, python_of, python, fault):
    gone = set_up(checkout)
    venv = gone.parent
    if fault in ("another version", "too old"):
        (venv / "bin" / "python").unlink()
        python_of(3, 99 if fault == "another version" else 9).rename(venv / "bin" / "python")
    elif fault == "no interpreter":
        for link in venv.glob("bin/python*"):
            link.unlink()
            link.symlink_to("/nowhere/python")
    elif fault == "no pip":
        next(venv.glob("lib/python*/site-packages/pip.py")).unlink()
    else:
        checkout = checkout.rename(checkout.with_name("moved"))
        gone = checkout / ".venv" / ".installed"
    make_setup(checkout, f"PYTHON={python}")
    assert not gone.exists()
    subprocess.run([checkout / ".venv" / "bin" / "python", "-c", ""], check=True)


def test_make_test_runs_an_area_on_sqlite_and_everything_on_both_engines():
    def commands(*arguments: str) -> list[str]:
        done = subprocess.run(
            ["make", "--dry-run", "--old-file=setup", "test", *arguments],
            cwd=ROOT, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        return [line for line in done.stdout.splitlines() if " -m pytest " in line]

    (area,) = commands("AREA=web")
    assert area.endswith(" tests/web")
    sqlite, postgres = commands()
    assert sqlite.endswith(" tests/")
    assert " --wiring=postgres tests/postgres " in postgres


WITHOUT_POSTGRES = """
import sys, pytest
from tests import postgres_server
postgres_server.available = lambda: False
sys.exit(pytest.main(["--wiring=postgres", "tests/services"]))
"""


@pytest.mark.parametrize(("required", "status"), [({}, 0), ({"REQUIRE_POSTGRES": "1"}, 1)])
def test_without_postgresql_its_tests_say_so_in_a_line_and_fail_only_where_it_is_required(required, status):
    environment = {"PATH": os.environ["PATH"], **required}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_POSTGRES], cwd=ROOT, env=environment, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    (line,) = (done.stdout + done.stderr).splitlines()
    assert "there is no PostgreSQL. Install it" in line
    assert done.returncode == status
