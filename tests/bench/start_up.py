"""Seconds from the start of gunicorn to its first answer, beside gunicorn with a function that does nothing."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial

from backend.infrastructure.migrations import migrate
from tests.bench.measure import OURS, Figure, Size, interleaved
from tests.bench.servers import ROOT, free_port
from tests.bench.service import SECRET, folder

PATIENCE = 20.0  # seconds for an answer
OUR_OPTIONS = ("-c", "python:backend.gunicorn_conf")
BARE_OPTIONS = ("-k", "gthread", "--workers", "2", "--threads", "8", "tests.bench.bare:application")
IMPORT = "import time; began = time.perf_counter(); import {}; print(time.perf_counter() - began)"


def figures(size: Size) -> Iterator[Figure]:
    with folder() as path:
        migrate(path / "app.db")
        environment = {"DATABASE_URL": f"sqlite:///{path / 'app.db'}", "JWT_SECRETS": SECRET, "WEB_CONCURRENCY": "2"}
        options = {OURS: OUR_OPTIONS, "bare WSGI": BARE_OPTIONS}
        turns = {name: partial(first_answer, chosen, environment) for name, chosen in options.items()}
        yield Figure("start-up", "first answer", "s", interleaved(turns, size.rounds))
    modules = {OURS: "app", "bare WSGI": "tests.bench.bare"}
    turns = {name: partial(seconds_to_import, module) for name, module in modules.items()}
    yield Figure("start-up", "import alone", "s", interleaved(turns, size.rounds))


def first_answer(options: tuple[str, ...], environment: dict[str, str]) -> float:
    """Seconds until the first 200."""
    address = ("127.0.0.1", free_port())
    command = [sys.executable, "-m", "gunicorn", *options, "--bind", f"{address[0]}:{address[1]}"]
    began = time.perf_counter()
    with server(command, environment):
        while not answers(address):
            if time.perf_counter() - began > PATIENCE:
                raise TimeoutError(f"no answer from {command}")
            time.sleep(0.002)
        return time.perf_counter() - began


@contextlib.contextmanager
def server(command: list[str], environment: dict[str, str]) -> Iterator[None]:
    """A process group, killed at the end of the block."""
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, timeout=1) as client:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return client.recv(100).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def seconds_to_import(module: str) -> float:
    command = [sys.executable, "-c", IMPORT.format(module)]
    return float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout)
