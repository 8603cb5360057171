"""Sends real requests over TCP to a running server, many at the same moment, and keeps the answers.

Each request has a connection of its own, so the operating system gives it to any of the server's workers. Each answer
names its worker (`worker_header`). A storm that needs every worker sends until each has answered, so its outcome does
not depend on which worker is faster.
"""

import http.client
import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

from backend.errors import Unavailable
from backend.lab.logins import Login, PasswordlessLogins
from backend.web.middleware import Handler
from backend.web.request import Request
from backend.web.response import Response

WORKER = "X-Lab-Worker"
ANSWER_SECONDS = 60.0
EACH_WORKER_SECONDS = 120.0  # within which each worker must have answered
BATCH = 8  # requests at once while waiting for each worker


def worker_header(next_handler: Handler) -> Handler:
    """Middleware that names the process in every response."""

    def handle(request: Request) -> Response:
        response = next_handler(request)
        response.headers.append((WORKER, str(os.getpid())))
        return response

    return handle


class HttpRequest(NamedTuple):
    """A request; `label` says which party of a storm sends it, if there are several."""

    method: str
    path: str
    by: Login | None = None
    body: Any = None
    headers: Mapping[str, str] = {}
    label: str = ""


@dataclass(frozen=True)
class Answer:
    """`began` and `ended` are seconds of `time.monotonic`. The status is 0 if the connection failed."""

    request: HttpRequest
    status: int
    headers: dict[str, str]  # names in lower case
    data: Any  # the envelope's
    began: float
    ended: float

    @property
    def worker(self) -> str:
        return self.headers.get(WORKER.lower(), "")


class LoadClient:
    """The client of a running server, for one storm. `drawn` are the answers that the page draws."""

    def __init__(self, address: tuple[str, int], logins: PasswordlessLogins, workers: int = 1) -> None:
        self.drawn: list[Answer] = []
        self.logins = logins
        self._address, self._count = address, workers

    def request(self, *request: Any, **rest: Any) -> Answer:
        """One request that prepares a storm or looks at its outcome; it is not drawn.

        Raises Unavailable if it gets no answer or a 5xx.
        """
        answer = self._send(HttpRequest(*request, **rest))
        if answer.status == 0 or answer.status >= 500:
            outcome = answer.status or "no answer"
            raise Unavailable(
                f"Before or after the storm, {answer.request.method} {answer.request.path} got {outcome}."
            )
        return answer

    def send_at_once(self, requests: Sequence[HttpRequest]) -> list[Answer]:
        """The answers, in the order of `requests`, all of which are sent at the same moment."""
        ready = threading.Barrier(len(requests))

        def send(request: HttpRequest) -> Answer:
            ready.wait(ANSWER_SECONDS)
            return self._send(request)

        with ThreadPoolExecutor(len(requests)) as threads:
            answers = list(threads.map(send, requests))
        self.drawn += answers
        return answers

    def until_each_worker(self, batch: Callable[[], Sequence[HttpRequest]], status: int = 200) -> list[Answer]:
        """Send what `batch` returns, again and again, until each worker has answered with this status.

        Raises Unavailable if that takes over two minutes.
        """
        answers: list[Answer] = []
        end = time.monotonic() + EACH_WORKER_SECONDS
        while len({answer.worker for answer in answers if answer.status == status}) < self._count:
            if time.monotonic() > end:
                raise Unavailable(f"Not each of the {self._count} workers answered with {status}.")
            answers += self.send_at_once(batch())
        return answers

    def read_by_each_worker(self, path: str, label: str = "") -> list[Answer]:
        """Answers to GET of `path` from each worker. Each batch is another user's, so no rate limit is reached."""
        return self.until_each_worker(lambda: [HttpRequest("GET", path, self.logins.new_user(), label=label)] * BATCH)

    def _send(self, request: HttpRequest) -> Answer:
        headers = {**request.headers, **(request.by.headers if request.by else {})}
        headers |= {"Content-Type": "application/json"} if request.body is not None else {}
        connection = http.client.HTTPConnection(*self._address, timeout=ANSWER_SECONDS)
        began = time.monotonic()
        try:
            body = None if request.body is None else json.dumps(request.body)
            connection.request(request.method, request.path, body, headers)
            response = connection.getresponse()
            text = response.read()
            status, received = response.status, {name.lower(): value for name, value in response.getheaders()}
        except (OSError, http.client.HTTPException):
            status, received, text = 0, {}, b""
        finally:
            connection.close()
        data = json.loads(text).get("data") if text.startswith(b"{") else None
        return Answer(request, status, received, data, began, time.monotonic())
