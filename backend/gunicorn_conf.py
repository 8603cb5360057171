"""Gunicorn's settings in production: `gunicorn -c python:backend.gunicorn_conf`.

BIND, WEB_CONCURRENCY and THREADS override the defaults. A bad value of these, or of the application's settings, stops
the start with one line that names it. So does an address that cannot be listened on, a database that is missing,
unreadable or of another schema, or an unusable secret.
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
from backend.infrastructure.keyring import secret_warnings, signing_secrets
from backend.infrastructure.migrations import SchemaMismatch, check_database
from backend.infrastructure.private_files import loose_modes
from backend.operations.metrics_folder import VARIABLE, has_metrics, metrics_folder
from backend.operations.start_line import log_start
from backend.production import log_queue
from backend.production.passwords import shared_password_locks
from backend.production.rate_limiter import shared_limiter
from backend.production.write_gate import sqlite_warnings
from backend.settings import Settings, SettingsError

LISTEN_SECONDS = 3.0  # for the address to become free: a server keeps it for a second after SIGTERM

ENDING = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}


def handed_over() -> set[str]:
    """The descriptors that a service manager passes (`man sd_listen_fds`). Gunicorn listens on them by itself."""
    passed = os.environ.get("LISTEN_PID") == str(os.getpid())
    return {f"fd://{3 + number}" for number in range(int(os.environ.get("LISTEN_FDS", "0")) if passed else 0)}


def require_listenable(address: "tuple[str, int] | str | int") -> None:
    """Raises OSError if a server cannot listen on this TCP address, unix socket or descriptor."""
    if isinstance(address, int):
        return socket.socket(fileno=os.dup(address)).close()
    if isinstance(address, str) and Path(address).is_socket():
        return None  # gunicorn replaces it
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
    return Path(address).unlink() if isinstance(address, str) else None


def require_addresses(server: Any) -> None:
    """Raises SystemExit for an address that cannot be listened on. Gunicorn would retry, or end in a traceback."""
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


def check_engine() -> None:
    """Raises SettingsError or SchemaMismatch for a database that cannot be served."""
    if settings.postgres_url is None:
        return check_database(settings.database_path)
    from backend.postgres.migrations import check_schema  # needs psycopg, an extra

    return check_schema(settings.postgres_url)


def require_own_worker(worker: type[Any]) -> None:
    """Raises SystemExit for another kind of worker (`-k`): no limit of this file would hold for it."""
    if not hasattr(worker, "forget_connections"):
        raise SystemExit("-k: these settings are for their own worker; `gunicorn 'app:create_app()'` takes any")


def on_starting(server: Any) -> None:
    """In the master, before the first fork: make what all workers share, and check addresses, database and secrets."""
    shared_limiter()
    shared_password_locks()
    for warning in secret_warnings(settings) if settings.postgres_url else sqlite_warnings():
        server.log.warning(warning)
    try:
        require_own_worker(server.worker_class)
        if not server.master_pid and not handed_over():  # otherwise it inherits its listeners and does not read BIND
            require_addresses(server)
        check_engine()
        signing_secrets(settings)
        for loose in loose_modes(settings.database_path):
            server.log.warning(str(loose))
        if has_metrics():
            metrics_folder().open(upgrade=bool(server.master_pid))
        log_start(settings)
    except (SettingsError, SchemaMismatch, Unavailable) as error:
        raise SystemExit(str(error)) from None
    finally:
        log_queue.standard_error().flush()  # so that the log's lines come before the error


def post_fork(server: Any, worker: Any) -> None:
    """In a new worker: end on a signal that comes while it boots. Otherwise the master would wait for it for 30 s.

    Until gunicorn sets the worker's handlers, the master's are in force. They put the signal into the worker's copy of
    the master's queue, which no code reads.
    """
    metrics_folder().begin_worker(worker.number)
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)
    while not server.SIG_QUEUE.empty():
        if server.SIG_QUEUE.get_nowait() in ENDING:
            raise SystemExit(0)


def post_worker_init(worker: Any) -> None:
    """In a new worker: deliver the events that an earlier worker has left, before any request comes."""
    if hasattr(worker.wsgi, "start"):
        worker.wsgi.start()


def worker_exit(server: Any, worker: Any) -> None:
    """In a worker that ends: stop the relay. It gives up its claims, so another worker can deliver at once."""
    if hasattr(getattr(worker, "wsgi", None), "close"):
        worker.wsgi.close()


def child_exit(server: Any, worker: Any) -> None:
    """In the master, after a worker's death: a killed worker has not counted its connections and requests down."""
    if has_metrics():
        metrics_folder().end_worker(worker.number)
    worker.forget_connections()  # the next worker may have its number


def pre_exec(server: Any) -> None:
    """On SIGUSR2, before the new master starts: it counts on in the same folder."""
    if folder := metrics_folder().path():
        server.cfg.env_orig[VARIABLE] = str(folder)


def on_exit(server: Any) -> None:
    """In a master that ends."""
    metrics_folder().close()


try:
    settings = Settings.from_environment(os.environ)
except SettingsError as error:
    raise SystemExit(str(error)) from None
descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]

wsgi_app = f"backend.{'postgres' if settings.postgres_url else 'production'}.wiring:create_app()"
worker_class = "backend.production.gunicorn_worker.WholeRequestWorker"
bind = [address for address in settings.bind if address not in handed_over()]
workers, threads = settings.workers, settings.threads
# Half of the descriptors. The rest is for the database, the log and outgoing connections.
worker_connections = min(1000, descriptors // 2) if descriptors > 0 else 1000
keepalive, timeout, graceful_timeout = 5, 30, 30  # seconds; a worker that gives no sign of life for `timeout` is killed
preload_app = False  # no thread and no database handle crosses the fork
loglevel = settings.log_level.lower()
# Gunicorn's own lines go through the queue too: otherwise a full pipe would block the master.
logconfig_dict = {
    "handlers": {"queue": {"()": log_queue.standard_error}},
    "root": {"level": settings.log_level, "handlers": ["queue"]},
    "loggers": {"gunicorn.error": {"propagate": True}},
}
control_socket_disable = True
