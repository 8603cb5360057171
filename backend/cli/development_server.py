"""The development server: Werkzeug's, a thread for each connection, with the core's tools. It reloads changed code.

One process serves. When a file has changed and the new code starts, the process replaces itself (`execv`). It keeps the
listening socket, so new clients wait meanwhile and are not refused. Requests under way are answered first. Werkzeug's
own reloader serves in a child process, which its parent ends by SIGKILL on SIGTERM, so the relay could not give back
the deliveries that it has claimed.

Promised: the whole API, for one developer. Not promised: service under hostile or very many clients. A stalled client
holds its thread for ever, a connection serves one request, and the limits of a head are those of `http.server`.
Production serves those clients (production/gunicorn_worker.py).
"""

import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from werkzeug.serving import WSGIRequestHandler, make_server

from backend.cli.engine import Engine
from backend.errors import BadRequest, HeadersTooLarge, UriTooLong
from backend.operations.start_line import log_start
from backend.settings import Settings, SettingsError
from backend.web.response import error_response

log = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
SOURCES = ("app.py", "backend/**/*.py", "sql/**/*.sql")
POLL_SECONDS = 0.5
FINISH_SECONDS = 1.0  # for requests under way at the end
THINGS_TO_TRY = """Or in another terminal:
  curl -s {0}/healthz
  curl -s {0}/api/v1/users -H 'Content-Type: application/json' \\
       -d '{{"email": "lin@example.com", "password": "correct horse battery", "name": "Lin"}}'
  curl -s {0}/openapi.json"""


def serve(engine: Engine) -> None:
    """Migrate the database and serve until SIGINT or SIGTERM.

    Raises SettingsError for an address that it cannot listen on, and what the engine raises.
    """
    settings, code = engine.settings, _versions()
    with _listener(settings.bind) as listener:
        engine.migrate()
        app = engine.create_app(replace(settings, development=True))
        host, port = listener.getsockname()[:2]
        server = make_server(host, port, app, threaded=True, request_handler=Handler, fd=listener.fileno())
        signals: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM):
            # No KeyboardInterrupt, which can get lost where `threading` and `socketserver` handle errors.
            signal.signal(number, lambda number, _: signals.append(number))
        log_start(settings)
        app.relay.start()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        _tell(f"http://{f'[{host}]' if ':' in host else host}:{port}", settings)
        _wait(code, signals)
        server.shutdown()
        _finish_requests()
        app.close()
        if not signals:
            _replace_process(listener)
    print("Stopped", flush=True)


class Handler(WSGIRequestHandler):
    """Without an access log: the application's middleware writes one. What it refuses itself gets the envelope."""

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        self.path = self.requestline.split()[1]  # as it was sent: `http.server` drops slashes at its start
        try:
            urlsplit(self.path)  # as `make_environ` does, which has no answer to `http://[`
        except ValueError:
            self.send_error(400)
            return False
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a request that the application does not see, because its head cannot be parsed."""
        error = {414: UriTooLong, 431: HeadersTooLarge}.get(code, BadRequest)()
        log.info("refused %s: %d %s", self.client_address[0], error.status, error.code)
        self.request_version = self.protocol_version  # else an unknown version would get an answer without a head
        new_id = secrets.token_hex(16)
        response = error_response(error, new_id)
        self.send_response(response.status)
        for name, value in [*response.all_headers(), ("X-Request-ID", new_id), ("Connection", "close")]:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    def log_request(self, *_: object) -> None:
        pass


def _listener(addresses: tuple[str, ...]) -> socket.socket:
    """A socket that listens on the one address of BIND. Raises SettingsError."""
    bind = ",".join(addresses)
    if len(addresses) > 1 or bind.startswith("unix:"):
        raise SettingsError(f"BIND was {bind!r}; for the development server it must be one HOST:PORT or fd://N")
    try:
        if bind.startswith("fd://"):
            listener = socket.socket(fileno=int(bind.removeprefix("fd://")))
            listener.listen()
            return listener
        host, _, port = bind.rpartition(":")
        family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=128)
    except OSError as error:
        problem = error.strerror or error
        raise SettingsError(f"BIND was {bind!r}; it must be an address to listen on ({problem})") from None


def _tell(url: str, settings: Settings) -> None:
    things = "" if settings.bind[0].startswith("fd://") else f"\n{THINGS_TO_TRY.format(url)}"  # once, before reloads
    print(f"Read and try the API on {url}/docs{things}", flush=True)


def _wait(code: dict[Path, int], signals: Sequence[int]) -> None:
    """Return after a signal, or once the files are no longer those of `code` and the new ones start."""
    while not signals and ((now := _versions()) == code or not _starts()):
        code = now
        time.sleep(POLL_SECONDS)


def _versions() -> dict[Path, int]:
    """The time of the last change of each source file."""
    try:
        return {file: file.stat().st_mtime_ns for pattern in SOURCES for file in ROOT.glob(pattern)}
    except FileNotFoundError:  # a file vanished meanwhile, which is a change as well
        return {}


def _starts() -> bool:
    """True if the code builds the application and migrates the database.

    If not, standard error says why, and the old code goes on serving.
    """
    command, quiet = [sys.executable, sys.argv[0]], subprocess.DEVNULL
    return all(  # in sessions of their own, where no Ctrl-C reaches them
        subprocess.run([*command, step], stdout=quiet, start_new_session=True, check=False).returncode == 0
        for step in ("routes", "migrate")
    )


def _finish_requests() -> None:
    """Wait for the threads that answer requests, FINISH_SECONDS at most."""
    end = time.monotonic() + FINISH_SECONDS
    for thread in threading.enumerate():
        if thread.name.endswith("(process_request_thread)"):  # as `threading` names them, by what they run
            thread.join(max(0.0, end - time.monotonic()))


def _replace_process(listener: socket.socket) -> None:
    """Run the same command in this process, with the listening socket."""
    listener.set_inheritable(True)
    os.environ["BIND"] = f"fd://{listener.fileno()}"
    os.execv(sys.executable, sys.orig_argv)
