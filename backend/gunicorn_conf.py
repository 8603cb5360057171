"""gunicorn's settings: `gunicorn -c python:backend.gunicorn_conf`. BIND, WEB_CONCURRENCY and THREADS override.

A bad value, of these or of the application's settings, stops the start with one line that names it.
"""

import errno
import os
import resource
import signal
import socket
import time
from pathlib import Path
from typing import Any

from backend.errors import Unavailable
from backend.infrastructure import logs
from backend.infrastructure.database_faults import sqlite_warnings
from backend.infrastructure.keyring import signing_secrets
from backend.infrastructure.migrations import SchemaMismatch, check_database
from backend.infrastructure.private_files import loose_modes
from backend.production.passwords import shared_password_locks
from backend.production.rate_limiter import shared_limiter
from backend.settings import Settings, SettingsError

LISTEN_SECONDS = 3.0  # for the address to become free: a server that was told to stop keeps it for a second

ENDING = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}


def handed_over() -> set[str]:
    """The descriptors that a service manager passes (`man sd_listen_fds`); gunicorn takes them without being told."""
    passed = os.environ.get("LISTEN_PID") == str(os.getpid())
    return {f"fd://{3 + number}" for number in range(int(os.environ["LISTEN_FDS"]) if passed else 0)}


def require_listenable(address: "tuple[str, int] | str | int") -> None:
    """OSError if a server cannot listen on this TCP address, unix socket or descriptor."""
    if isinstance(address, int):
        return socket.socket(fileno=os.dup(address)).close()
    if isinstance(address, str) and Path(address).is_socket():
        return None  # gunicorn puts its own in its place
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
    return Path(address).unlink() if isinstance(address, str) else None


def require_addresses(server: Any) -> None:
    """An address of no use stops the start. Gunicorn would log each of five attempts, or end in a traceback."""
    until = time.monotonic() + LISTEN_SECONDS
    for text, address in zip(server.cfg.bind, server.address, strict=True):
        while True:
            try:
                require_listenable(address)
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() > until:
                    reason = error.strerror or error
                    raise SystemExit(f"BIND was {text!r}; it must be an address to listen on ({reason})") from None
            time.sleep(0.1)


def on_starting(server: Any) -> None:
    """In the master, before the first fork: make what all workers share, and look at addresses and the database."""
    shared_limiter()
    shared_password_locks()
    for danger in sqlite_warnings():
        server.log.warning(danger)
    try:
        if not server.master_pid and not handed_over():  # else it inherits its listeners, and BIND is not read
            require_addresses(server)
        check_database(settings.database_path)
        signing_secrets(settings)
        for loose in loose_modes(settings.database_path):
            server.log.warning(str(loose))
    except (SettingsError, SchemaMismatch, Unavailable) as error:
        raise SystemExit(str(error)) from None
    finally:
        logs.standard_error().sink.flush()  # no line of the log may come between that one and its line end


def post_fork(server: Any, worker: Any) -> None:
    """A signal to end must not get lost while a worker boots, or the master would wait 30 s for that worker.

    Until gunicorn sets the worker's handlers, those of the master are in force: they put the signal into the worker's
    copy of the master's queue, where nothing looks for it.
    """
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)
    while not server.SIG_QUEUE.empty():
        if server.SIG_QUEUE.get_nowait() in ENDING:
            raise SystemExit(0)


def post_worker_init(worker: Any) -> None:
    """What a worker before this one has left undelivered goes out without waiting for a request."""
    if hasattr(worker.wsgi, "relay"):
        worker.wsgi.relay.start()


def worker_exit(server: Any, worker: Any) -> None:
    """Stop the relay: it gives back its claims, so that another worker can deliver on at once."""
    if hasattr(getattr(worker, "wsgi", None), "relay"):
        worker.wsgi.close()


def child_exit(server: Any, worker: Any) -> None:
    """A worker that was killed could not count its connections down. (`-k` may have put in another kind of worker.)"""
    if hasattr(worker, "forget_connections"):
        worker.forget_connections()


try:
    settings = Settings.from_environment(os.environ)
except SettingsError as error:
    raise SystemExit(str(error)) from None
descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]

wsgi_app = "backend.production.wiring:create_app()"
worker_class = "backend.production.gunicorn_worker.WholeRequestWorker"
bind = [address for address in settings.bind if address not in handed_over()]
workers, threads = settings.workers, settings.threads
# Half of the descriptors: the database, files and calls to others have the rest.
worker_connections = min(1000, descriptors // 2) if descriptors > 0 else 1000
keepalive, timeout, graceful_timeout = 5, 30, 30  # seconds; `timeout` is the worker's for a sign of life
preload_app = False  # neither threads nor database handles may cross the fork
loglevel = settings.log_level.lower()
# gunicorn's own lines take our queue too: at a pipe that nobody reads, its master would wait for ever.
logconfig_dict = {
    "handlers": {"queue": {"()": logs.standard_error}},
    "root": {"level": settings.log_level, "handlers": ["queue"]},
    "loggers": {"gunicorn.error": {"propagate": True}},
}
control_socket_disable = True
# For another kind of worker that `-k` may put in: ours reads requests itself, by the same rules.
limit_request_line, limit_request_fields, limit_request_field_size = 8190, 100, 8192  # the last counts the line end
header_map, forwarder_headers = "drop", ""  # no X_Forwarded_For for X-Forwarded-For, no SCRIPT_NAME from a client
forwarded_allow_ips = proxy_allow_ips = ""  # whom to believe is the application's to judge, by TRUSTED_PROXIES
secure_scheme_headers: dict[str, str] = {}
http_protocols, http2_cleartext = "h1", "off"
