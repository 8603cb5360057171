"""A server that cannot keep its promises does not start, and prints the reason in one line."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from backend.infrastructure.migrations import migrate
from tests.production.gunicorn_server import ROOT, gunicorn
from tests.production.raw_client import connect

CONFIGURATION = ("-c", "python:backend.gunicorn_conf")
WORKER = ("-k", "backend.production.gunicorn_worker.WholeRequestWorker")
APPLICATION = "tests.production.tiny_application:application"


def start(*options: str, **environment: str) -> str:
    """What the server prints when it does not start."""
    command = [sys.executable, "-m", "gunicorn", *options, APPLICATION]
    environment = os.environ | {"BIND": "127.0.0.1:0"} | environment
    process = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    return process.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BIND", "localhost"), ("BIND", "127.0.0.1:http"), ("BIND", "nonsense"),
        ("BIND", "127.0.0.1:99999"), ("BIND", "[::1]:99999"),
        ("WEB_CONCURRENCY", "0"), ("WEB_CONCURRENCY", "33"),
        ("THREADS", "many"), ("THREADS", "-1"), ("REQUEST_TIMEOUT_SECONDS", "soon"),
    ],
)  # fmt: skip
def test_a_bad_setting_is_named_with_its_value_and_the_allowed_ones(name: str, value: str) -> None:
    said = start(*CONFIGURATION, **{name: value})
    assert said.startswith(f"{name} was {value!r}; it must be ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:{taken}", "Address already in use"),
        ("localhost:{free},127.0.0.1:{taken}", "Address already in use"),
        ("no-such-host.invalid:80", ""),
        ("192.0.2.1:80", "Cannot assign requested address"),
        ("unix:{folder}/absent/socket", "No such file or directory"),
        ("fd://99", "Bad file descriptor"),
        ("fd://2", "Socket operation on non-socket"),
    ],
)
def test_an_unusable_address_is_named_with_the_reason(tmp_path: Path, address: str, reason: str) -> None:
    """In one line, beside the log lines of every start."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = address.format(taken=listener.getsockname()[1], free=0, folder=tmp_path)
        migrate(tmp_path / "app.db")
        lines = start(*CONFIGURATION, BIND=address, DATABASE_URL=f"sqlite:///{tmp_path / 'app.db'}").splitlines()
    bad = address.split(",")[-1]
    (said,) = [line for line in lines if not line.startswith("{")]
    assert said.startswith(f"BIND was {bad!r}; it must be an address to listen on ({reason}")
    assert not [line for line in lines if '"level": "ERROR"' in line]


@pytest.mark.parametrize("managed", [True, False])
def test_a_descriptor_that_was_passed_is_served(tmp_path: Path, managed: bool) -> None:
    """Passed by a service manager, which keeps the listener open, or by a shell. It is served after a reload too."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with gunicorn(tmp_path / "log", bind="fd://3", listener=listener, managed=managed) as server:
            server.address = path
            server.probe()
            old = server.workers()
            server.process.send_signal(signal.SIGHUP)
            server.wait_for_workers(1, others_than=old)
            server.probe()
            server.process.terminate()
            assert server.process.wait(60) == 0
        if managed:
            connect(path).stream.close()  # the connection would wait for the next server


def test_a_signal_that_comes_while_a_worker_boots_ends_it(tmp_path: Path) -> None:
    """If the handler inherited from the master swallowed it, the master would wait for it for `graceful_timeout`."""
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import time\nfrom backend.gunicorn_conf import *\nfrom backend import gunicorn_conf\ngraceful_timeout = 600\n"
        "def post_fork(server, worker):\n    time.sleep(0.5)\n    gunicorn_conf.post_fork(server, worker)\n"
    )
    with gunicorn(tmp_path / "log", "-c", str(slow)) as server:
        server.process.terminate()
        assert server.process.wait(60) == 0
        assert "Traceback" not in server.log.read_text()


def test_tls_is_left_to_a_proxy(tmp_path: Path) -> None:
    migrate(tmp_path / "app.db")
    options = (*CONFIGURATION, "--certfile", __file__, "--keyfile", __file__)
    assert "Error: certfile is set" in start(*options, DATABASE_URL=f"sqlite:///{tmp_path / 'app.db'}")


def test_a_configuration_that_does_not_report_dead_workers_is_refused() -> None:
    """The connections of dead workers would count for ever."""
    assert "Error: child_exit must call worker.forget_connections()" in start(*WORKER, "--bind", "127.0.0.1:0")


def test_another_kind_of_worker_is_refused() -> None:
    """`child_exit` would fail, and with it gunicorn's master, at the first worker that dies."""
    assert "\n-k: these settings are for their own worker" in start(*CONFIGURATION, "-k", "gthread")


def what_it_said(tmp_path: Path, **settings: str) -> str:
    """The line that a server prints when it does not start; gunicorn's log lines are left out."""
    said = start(*CONFIGURATION, **{"DATABASE_URL": f"sqlite:///{tmp_path / 'app.db'}", **settings})
    (line,) = [line for line in said.splitlines() if not line.startswith("{")]
    assert "ERROR" not in said
    return line


def test_a_missing_database_is_reported_as_missing(tmp_path: Path) -> None:
    line = what_it_said(tmp_path)
    assert line.startswith(f"there is no database at {tmp_path / 'app.db'}: run ")
    assert "migrate" in line and list(tmp_path.iterdir()) == []


def test_a_path_that_cannot_be_the_database_is_named(tmp_path: Path) -> None:
    assert what_it_said(tmp_path, DATABASE_URL=f"sqlite:///{tmp_path}").startswith("DATABASE_URL was ")
    (tmp_path / "app.db").write_text("To do: back up the database.\n")
    assert what_it_said(tmp_path).startswith("DATABASE_URL was ")


def test_an_unusable_secret_stops_the_start_before_a_worker_is_forked(tmp_path: Path) -> None:
    migrate(tmp_path / "app.db")
    (tmp_path / "jwt-secret").write_text("x")
    assert what_it_said(tmp_path, JWT_SECRETS="").startswith("JWT_SECRETS was empty, and ")
