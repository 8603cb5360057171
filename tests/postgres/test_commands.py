"""What the command line does on PostgreSQL, and what it refuses there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

APP = Path(__file__).parents[2] / "app.py"


def run(url, *arguments):
    return subprocess.run(
        [sys.executable, APP, *arguments], env=os.environ | {"DATABASE_URL": url}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


def test_migrate_brings_the_schema_up_to_date(fresh_url):
    assert run(fresh_url, "migrate").stdout.startswith("applied 0001")
    assert run(fresh_url, "migrate").stdout == "nothing to do: the schema is the newest\n"


@pytest.mark.parametrize("command", ["backup a", "restore a"])
def test_what_works_on_sqlite_alone_says_so_and_touches_no_file(url, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    done = run(url, *command.split())
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (2, 1, "")
    assert "PostgreSQL" in done.stderr
    assert list(tmp_path.iterdir()) == []
