"""The whole application under a real gunicorn of two workers, and JSON clients for it."""

import contextlib
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.conftest import SECRET, Person
from tests.production.gunicorn_server import Server, gunicorn
from tests.waiting import wait_until
from tests.watching import files_of

APPLICATION = "backend.production.wiring:create_app()"
LISTENING = "0A"  # in /proc/net/tcp
PATIENT = {"BUSY_TIMEOUT_SECONDS": "300"}  # so that a writer without a place of its own waits for half a minute, too
LOST = (OSError, http.client.HTTPException)  # no answer: the request may have been done or not


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]  # names in lower case
    body: Any

    @property
    def data(self) -> Any:
        return self.body["data"]


class Caller:
    """One connection to a server, opened at the first call or by `connect`; every path is below `/api/v1` or `//`."""

    def __init__(self, address: tuple[str, int], seconds: float = 30, source: str = "") -> None:
        self.http = http.client.HTTPConnection(*address, timeout=seconds, source_address=(source, 0))

    def __enter__(self) -> "Caller":
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def send(self, method: str, path: str, by: Person | None = None, json_: Any = None, key: str = "") -> None:
        headers = {**(by.headers if by else {}), **({"Idempotency-Key": key} if key else {})}
        if json_ is not None:
            headers["Content-Type"] = "application/json"
        whole = path[1:] if path.startswith("//") else f"/api/v1{path}"
        self.http.request(method, whole, None if json_ is None else json.dumps(json_), headers)

    def reply(self) -> Reply:
        """The answer. Raises one of LOST if there is none."""
        answer = self.http.getresponse()
        body = answer.read()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(answer.status, headers, json.loads(body) if body else None)

    def call(self, method: str, path: str, by: Person | None = None, json_: Any = None, key: str = "") -> Reply:
        self.send(method, path, by, json_, key)
        return self.reply()


def connect_to(server: Server, worker: int, count: int = 1) -> list[Caller]:
    """`count` new connections, all taken by this worker."""
    callers = [Caller(server.address) for _ in range(count)]
    with server.only(worker):
        for caller in callers:
            caller.http.connect()
        ports = {caller.http.sock.getsockname()[1] for caller in callers}
        wait_until(lambda: ports <= ports_of(worker))
    return callers


def ports_of(worker: int) -> set[int]:
    """The ports of the clients whose connections this worker has taken."""
    sockets = files_of(worker)
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {
        int(row[2].partition(":")[2], 16) for row in rows if f"socket:[{row[9]}]" in sockets and row[3] != LISTENING
    }


def call(server: Server, method: str, path: str, by: Person | None = None, json_: Any = None, key: str = "") -> Reply:
    """One request on a connection of its own."""
    with Caller(server.address) as caller:
        return caller.call(method, path, by, json_, key)


@contextlib.contextmanager
def service(
    log: Path, database: Path, *options: str, application: str = APPLICATION, **environment: str
) -> Iterator[Server]:
    """Two workers on the database, ready to serve; by default without limits and with cheap passwords."""
    settings = {
        "WEB_CONCURRENCY": "2", "THREADS": "8", "DATABASE_URL": f"sqlite:///{database}", "JWT_SECRETS": SECRET,
        "BCRYPT_ROUNDS": "4", "RATE_LIMIT_DEFAULT": "off", "RATE_LIMIT_AUTH": "off", "REQUEST_TIMEOUT_SECONDS": "30",
        "BUSY_TIMEOUT_SECONDS": "20",
    }  # fmt: skip
    with gunicorn(log, *options, application=application, **settings | environment) as server:
        server.wait_for_workers(int((settings | environment)["WEB_CONCURRENCY"]))
        yield server
