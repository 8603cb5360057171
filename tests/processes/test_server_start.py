"""A server that could not keep its promises does not start, and says why in one line."""

import os
import subprocess
import sys
from pathlib import Path

import gunicorn as gunicorn_package
import pytest
from gunicorn.workers.gthread import ThreadWorker

from backend.infrastructure.migrations import migrate
from backend.server import gunicorn_internals
from tests.processes.gunicorn_server import ROOT

CONFIGURATION = ("-c", "python:backend.gunicorn_conf")
WORKER = ("-k", "backend.server.gunicorn_worker.WholeRequestWorker")
APPLICATION = "tests.processes.tiny_application:application"


def start(*options: str, **environment: str) -> str:
    """What the server says when it does not start."""
    command = [sys.executable, "-m", "gunicorn", *options, "--bind", "127.0.0.1:0", APPLICATION]
    environment = os.environ | environment
    process = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=10, check=False
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
def test_a_bad_setting_is_named_with_what_it_was_and_may_be(name: str, value: str) -> None:
    said = start(*CONFIGURATION, **{name: value})
    assert said.startswith(f"{name} was {value!r}; it must be ")
    assert said.count("\n") == 1


def test_tls_is_left_to_a_proxy(tmp_path: Path) -> None:
    migrate(tmp_path / "app.db")
    options = (*CONFIGURATION, "--certfile", __file__, "--keyfile", __file__)
    assert "Error: certfile is set" in start(*options, DATABASE_URL=f"sqlite:///{tmp_path / 'app.db'}")


def test_a_configuration_that_does_not_tell_of_dead_workers_is_refused() -> None:
    """Their connections would be counted for ever."""
    assert "Error: child_exit must call worker.forget_connections()" in start(*WORKER)


def test_another_gunicorn_than_we_know_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    gunicorn_internals.require_internals()
    monkeypatch.setitem(gunicorn_internals.INTERNALS, ThreadWorker.run, {"alive", "moved"})
    expected = f"gunicorn {gunicorn_package.__version__} has no moved in ThreadWorker.run, which backend/server/"
    with pytest.raises(RuntimeError, match=expected):
        gunicorn_internals.require_internals()
