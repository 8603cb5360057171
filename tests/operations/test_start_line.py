"""The start line says which program runs with which settings, and no secret."""

import json
import platform
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from backend import __version__
from backend.operations.start_line import start_line
from backend.settings import SECRET, VARIABLES, Settings
from tests.cli.running import development_server
from tests.conftest import SECRET as JWT_SECRET
from tests.production.real_service import service
from tests.production.test_server_start import start

NEWEST = len(list((Path(__file__).parents[2] / "sql/sqlite").glob("*.sql")))
SECRETS = {
    "JWT_SECRETS": JWT_SECRET,
    "SMTP_URL": "smtp://lin:pass-word@mail.example:25",
    "WEBHOOK_URLS": "https://hooks.example/a-secret-path",
    "WEBHOOK_SECRET": f"whsec_{'test' * 8}",
}


def said(**environment: str) -> str:
    return start_line(Settings.from_environment(environment), environment)


def logged(text: str) -> list[dict[str, Any]]:
    """The start lines among the JSON lines of a log."""
    lines = [json.loads(line) for line in text.splitlines()]
    return [line for line in lines if line.get("logger") == "backend.operations.start_line"]


def test_it_names_the_versions_of_everything_that_decides_behaviour() -> None:
    assert said() == (
        f"reference-backend {__version__}, schema {NEWEST}, SQLite {sqlite3.sqlite_version}, "
        f"Python {platform.python_version()}, default settings"
    )


def test_it_has_the_settings_that_differ_from_their_defaults() -> None:
    """As a shell takes them. One that is set to its default does not differ."""
    line = said(
        THREADS="8", WEB_CONCURRENCY="4", RATE_LIMIT_AUTH=" off ", TRUSTED_PROXIES="10.0.0.0/8, unix", LOG_LEVEL=" "
    )
    assert line.endswith(", RATE_LIMIT_AUTH=off TRUSTED_PROXIES='10.0.0.0/8, unix' WEB_CONCURRENCY=4")


def test_a_setting_that_may_hold_a_secret_is_shown_as_set() -> None:
    assert SECRETS.keys() == SECRET <= VARIABLES.keys()
    assert said(**SECRETS).endswith(", JWT_SECRETS=set SMTP_URL=set WEBHOOK_URLS=set WEBHOOK_SECRET=set")


def test_gunicorn_logs_it_once_for_each_start(tmp_path: Path, database_path: Path) -> None:
    """Before the first worker, as JSON; not again for a reload or for a worker that follows a dead one."""
    with service(tmp_path / "log", database_path, CACHE_SIZE="7", **SECRETS) as server:
        old = server.workers()
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_workers(2, others_than=old)
        text = server.log.read_text()
    [line] = logged(text)
    assert (line["level"], line["requestId"]) == ("INFO", "-")
    assert f"DATABASE_URL=sqlite:///{database_path}" in line["message"] and " CACHE_SIZE=7 " in line["message"]
    assert text.index("reference-backend") < text.index("Booting worker")
    assert [secret for secret in SECRETS.values() if secret in text] == []


def test_a_start_that_is_refused_does_not_log_it(tmp_path: Path) -> None:
    refusal = start("-c", "python:backend.gunicorn_conf", DATABASE_URL=f"sqlite:///{tmp_path / 'app.db'}")
    assert "there is no database" in refusal and "start_line" not in refusal


@pytest.mark.parametrize(("level", "lines"), [("INFO", 1), ("WARNING", 0)])
def test_the_development_server_logs_it(tmp_path: Path, level: str, lines: int) -> None:
    with development_server(tmp_path / "app.db", LOG_LEVEL=level, JWT_SECRETS=JWT_SECRET) as server:
        server.end(signal.SIGTERM)
        assert len(logged(server.errors())) == lines
        assert JWT_SECRET not in server.errors()
