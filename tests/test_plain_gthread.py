"""The core on a plain WSGI server: `gunicorn -k gthread 'app:create_app()'`."""

import contextlib
import http.client
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

from tests.conftest import PASSWORD, SECRET
from tests.waiting import wait_until
from tests.webhook_receiver import receiving, webhooks

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "gunicorn", "-k", "gthread", "--threads", "4", "--bind", "127.0.0.1:0"]
APPLICATION = "tests.patient_application:create_app()"
ADA = {"email": "ada@example.com", "password": PASSWORD, "name": "Ada"}


@contextlib.contextmanager
def plain_gunicorn(log, database, **settings):
    """A process of gunicorn with one worker, and its port."""
    settings |= {"DATABASE_URL": f"sqlite:///{database}", "JWT_SECRETS": SECRET, "BCRYPT_ROUNDS": "4"}
    with log.open("w") as errors, subprocess.Popen(
        [*COMMAND, APPLICATION], cwd=ROOT, env=settings, stderr=errors, start_new_session=True
    ) as process:  # fmt: skip
        try:
            wait_until(lambda: "Booting worker" in log.read_text() or process.poll() is not None)
            listening = re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", log.read_text())
            yield process, int(listening[1])
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def ask(port, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_it_serves_delivers_events_logs_and_stops(tmp_path, database_path):
    """The log has a JSON line for each request."""
    log = tmp_path / "log"
    with (
        receiving() as (receiver, port_of_hook),
        plain_gunicorn(log, database_path, **webhooks(port_of_hook)) as running,
    ):
        process, port = running
        assert ask(port, "GET", "/readyz")[0] == 200
        assert ask(port, "POST", "/api/v1/users", body=ADA)[0] == 201
        wait_until(lambda: bool(receiver.arrivals))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    lines = log.read_text()
    assert "Traceback" not in lines
    paths = [json.loads(line)["path"] for line in lines.splitlines() if line.startswith("{")]
    assert paths == ["/readyz", "/api/v1/users"]


def test_a_delivery_under_way_at_the_stop_is_finished_and_written_down(tmp_path, database_path):
    """So that no other process makes it again."""
    stopping = threading.Event()
    with receiving() as (receiver, port_of_hook):
        receiver.answer = lambda *_: stopping.wait(30) and (204, {})
        with plain_gunicorn(tmp_path / "log", database_path, **webhooks(port_of_hook)) as (process, port):
            assert ask(port, "POST", "/api/v1/users", body=ADA)[0] == 201
            wait_until(lambda: bool(receiver.arrivals))
            process.send_signal(signal.SIGTERM)
            stopping.set()
            assert process.wait(60) == 0
    with contextlib.closing(sqlite3.connect(database_path)) as database:
        owed = database.execute("SELECT count(*) FROM deliveries WHERE subscriber LIKE 'webhook%'").fetchone()
    assert owed == (0,)
