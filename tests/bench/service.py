"""The whole application in this process, and requests as gunicorn passes them on."""

import contextlib
import io
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from app import App
from backend.infrastructure.migrations import migrate
from backend.production.log_queue import LogQueue
from backend.production.rate_limiter import SharedRateLimiter
from backend.production.wiring import production_tools
from backend.settings import Limit, Settings
from tests.conftest import Api, Person

SECRET = "the bench signs its tokens with this"
UNREACHED = Limit(10**8, 60)  # the limiter counts as usual, and refuses no request
Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


@contextlib.contextmanager
def service(database: Path, limiter: SharedRateLimiter | None = None, **settings: Any) -> Iterator[Api]:
    """The application on this database, which is migrated first, with all checks, cheap passwords and a log file."""
    migrate(database)
    given: dict[str, Any] = {
        "jwt_secrets": (SECRET,), "bcrypt_rounds": 4, "rate_limit_default": UNREACHED, "rate_limit_auth": None,
    }  # fmt: skip
    with open_log(database.parent / "log") as log:
        configured = Settings(database_path=database, **given | settings)
        own = {"limiter": limiter or SharedRateLimiter(), "log_request": log.log_request}
        app = App(configured, replace(production_tools(configured), **own))
        try:
            yield Api(app)
        finally:
            app.close()


@contextlib.contextmanager
def open_log(path: Path) -> Iterator[LogQueue]:
    """A log queue that writes the lines of requests (level INFO) to the file."""
    logging.getLogger("backend.access").setLevel(logging.INFO)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    queue = LogQueue(descriptor)
    try:
        yield queue
    finally:
        queue.close()
        os.close(descriptor)


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder, deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="bench-") as path:
        yield Path(path)


def environ(method: str, path: str, by: Person | None = None, query: str = "", body: object = None) -> Environ:
    """What gunicorn makes of a client's request to `/api/v1` + `path`; `body` becomes JSON."""
    sent = b"" if body is None else json.dumps(body).encode()
    made: Environ = {
        "wsgi.errors": sys.stderr, "wsgi.version": (1, 0), "wsgi.multithread": True, "wsgi.multiprocess": True,
        "wsgi.run_once": False, "wsgi.input_terminated": True, "wsgi.input": io.BytesIO(sent),
        "wsgi.url_scheme": "http", "SERVER_SOFTWARE": "gunicorn", "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "127.0.0.1", "SERVER_PORT": "8000", "REMOTE_ADDR": "127.0.0.1", "REMOTE_PORT": "50000",
        "REQUEST_METHOD": method, "RAW_URI": f"/api/v1{path}" + (query and f"?{query}"), "QUERY_STRING": query,
        "SCRIPT_NAME": "", "PATH_INFO": f"/api/v1{path}", "HTTP_HOST": "127.0.0.1:8000",
        "HTTP_USER_AGENT": "bench/1", "HTTP_ACCEPT": "application/json",
    }  # fmt: skip
    if by:
        made["HTTP_AUTHORIZATION"] = by.headers["Authorization"]
    if body is not None:
        made |= {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(sent))}
    return made


def ask(application: Application, request: Environ) -> bytes:
    """The answer's body."""
    return b"".join(application(request.copy(), _no_head))


def asked_for_json(application: Application, request: Environ) -> Any:
    """The answer's body, which must be that of a success."""
    answer = json.loads(ask(application, request))
    if "error" in answer:
        raise RuntimeError(f"{request['RAW_URI']}: {answer['error']}")
    return answer


def _no_head(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> None:
    pass
