"""The command line, run as an operator runs it: outside the project's folder, and in its own process or as if it were.

A process costs 0.3 s. So what does not concern the process itself, or file modes, is run in the test's.
"""

import atexit
import contextlib
import io
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import app
from tests.bound_by_modes import BOUND_BY_MODES

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, str(ROOT / "app.py")]


def environment(database: Path, **settings: str) -> dict[str, str]:
    return {"DATABASE_URL": f"sqlite:///{database}", "BCRYPT_ROUNDS": "4", **settings}


def run(database: Path, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """One command on that database, without a terminal."""
    return subprocess.run(
        [*BOUND_BY_MODES, *COMMAND, *arguments], env=environment(database, **settings), cwd=database.parent,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def run_here(database: Path, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """The same in this process, as root if this is root's."""
    printed, errors, at_exit = io.StringIO(), io.StringIO(), list[Callable[[], object]]()
    with (
        contextlib.chdir(database.parent),
        patch.dict(os.environ, environment(database, **settings), clear=True),
        patch.multiple(sys, argv=["app.py", *arguments], stdin=io.StringIO()),
        patch.object(atexit, "register", at_exit.append),
        patch.object(logging.getLogger(), "handlers", []),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(errors),
    ):
        try:
            app.main()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
        for action in at_exit:
            action()
    return subprocess.CompletedProcess(arguments, status, printed.getvalue(), errors.getvalue())


def refused(done: "subprocess.CompletedProcess[str]") -> str:
    """The single line of error that a failed command printed."""
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    return line


class DevelopmentServer:
    """A running `serve`. `first_line` is what it prints first, `port` the port in it."""

    def __init__(self, process: "subprocess.Popen[str]", errors: Path) -> None:
        self.process = process
        self.first_line = process.stdout.readline()
        self._errors = errors
        match = re.fullmatch(r"Read and try the API on http://.*:([0-9]+)/docs\n", self.first_line)
        assert match, self.first_line + self.errors()
        self.port = int(match[1])

    def errors(self) -> str:
        """What it has written to standard error."""
        return self._errors.read_text(encoding="utf-8")

    def await_reload(self) -> None:
        """Return once changed code serves: it prints its first line again."""
        assert self.first_line in iter(self.process.stdout.readline, "")

    def end(self, signal: int) -> tuple[int, str]:
        """Send this signal; the exit status and the rest of the output."""
        self.process.send_signal(signal)
        printed = self.process.stdout.read()
        return self.process.wait(60), printed


@contextlib.contextmanager
def development_server(
    database: Path, command: list[str] = COMMAND, pass_fds: tuple[int, ...] = (), **settings: Any
) -> Iterator[DevelopmentServer]:
    """A listening `serve`, on a free port unless BIND is set; killed at the end of the block if it still runs."""
    errors = database.parent / "errors.log"
    given = environment(database, **{"BIND": "127.0.0.1:0", **settings})
    with errors.open("w") as file, subprocess.Popen(
        [*command, "serve"], env=given, stdout=subprocess.PIPE, stderr=file, text=True, pass_fds=pass_fds,
        cwd=database.parent, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            yield DevelopmentServer(process, errors)
        finally:
            process.kill()
