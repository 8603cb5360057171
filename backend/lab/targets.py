"""What storms are sent against: the lab itself, or two workers of the core or of production in processes of their own.

A server is started at its first storm, on a free port of 127.0.0.1 and on a database in a temporary folder, and ends
with the lab.
"""

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from app import App, core_tools
from backend.errors import Unavailable
from backend.infrastructure import logs
from backend.infrastructure.migrations import migrate
from backend.lab.load_client import LoadClient, worker_header
from backend.lab.logins import PasswordlessLogins
from backend.settings import VARIABLES, Settings

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
WORKERS = 2
START_SECONDS = 120.0
GUNICORN = [sys.executable, "-m", "gunicorn"]
COMMANDS = {
    "core": [*GUNICORN, "-k", "gthread", "backend.lab.targets:core()"],
    "production": [*GUNICORN, "-c", "python:backend.gunicorn_conf", "backend.lab.targets:production()"],
}
OPTIONS = ["--bind", f"{HOST}:0", "--threads", "8", "--timeout", "600"]
TARGETS = ("lab", *COMMANDS)
SETTINGS = {
    "WEB_CONCURRENCY": str(WORKERS), "RATE_LIMIT_DEFAULT": "100/60", "RATE_LIMIT_AUTH": "off", "BCRYPT_ROUNDS": "4",
    "BUSY_TIMEOUT_SECONDS": "300", "REFRESH_GRACE_SECONDS": "60", "CACHE_TTL_SECONDS": "3600", "LOG_LEVEL": "INFO",
}  # fmt: skip


def core() -> App:
    """One of several workers with the core's tools."""
    settings = Settings.from_environment()
    logs.configure(settings.log_level, development=False)
    return App(settings, replace(core_tools(settings), middleware=[worker_header]))


def production() -> App:
    """One of several workers with production's tools."""
    from backend.production.wiring import production_tools

    settings = Settings.from_environment()
    logs.configure(settings.log_level, development=False)
    return App(settings, replace(production_tools(settings), middleware=[worker_header]))


class _Server(NamedTuple):
    logins: PasswordlessLogins
    address: tuple[str, int]

    def client(self) -> LoadClient:
        return LoadClient(self.address, self.logins, WORKERS)


class Targets:
    """Thread-safe. A part of `app.Tools.background`: `stop()` ends the servers."""

    def __init__(self, own: PasswordlessLogins) -> None:
        self._own = own
        self._lock = threading.Lock()  # guards what follows
        self._running: dict[str, _Server] = {}
        self._ending = ExitStack()

    def start(self) -> None:
        """Nothing: each server starts when it is needed."""

    def stop(self) -> None:
        with self._lock:
            self._running.clear()
            self._ending.close()

    def client(self, name: str, own_address: tuple[str, int]) -> LoadClient:
        """The lab at its address for `lab`; else the workers of this name, which are started if they do not run."""
        if name == "lab":
            return LoadClient(own_address, self._own)
        with self._lock:
            if name not in self._running:
                self._running[name] = self._ending.enter_context(_running(COMMANDS[name]))
            return self._running[name].client()


@contextmanager
def _running(command: list[str]) -> Iterator[_Server]:
    """A gunicorn with all its workers ready. The caller's own settings, such as its mail server, do not reach it."""
    with tempfile.TemporaryDirectory() as folder:
        database, log = Path(folder, "app.db"), Path(folder, "errors.log")
        migrate(database)
        others = {
            name: value for name, value in os.environ.items() if name not in {*VARIABLES, "CREDENTIALS_DIRECTORY"}
        }
        settings = SETTINGS | {"DATABASE_URL": f"sqlite:///{database}", "BIND": f"{HOST}:0"}
        with log.open("wb") as errors:
            process = subprocess.Popen([*command, *OPTIONS], cwd=ROOT, env=others | settings, stderr=errors)
        logins = PasswordlessLogins(Settings(database))
        try:
            server = _Server(logins, (HOST, _port(process, log)))
            server.client().read_by_each_worker("/healthz")
            yield server
        finally:
            logins.close()
            _end(process)


def _port(process: "subprocess.Popen[bytes]", log: Path) -> int:
    """The port that it listens on. Raises Unavailable with the log's last line if it ends, or takes two minutes."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        if match := re.search(r"Listening at: \S+?:(\d+) ", log.read_text()):
            return int(match[1])
        time.sleep(0.05)
    raise Unavailable(f"The server did not start: {(log.read_text().splitlines() or [''])[-1]}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
