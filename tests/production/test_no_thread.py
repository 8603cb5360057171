"""A worker that cannot start a thread refuses the request, runs no part of it, and lives on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.production.gunicorn_server import GET, Server, gunicorn
from tests.waiting import wait_until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with gunicorn(tmp_path / "log") as server:
        workers = server.workers()
        yield server
        assert server.workers() == workers


def called(server: Server) -> int:
    """How many requests the pool has run."""
    return int(server.ask(GET % b"/short/called").body)


def test_a_request_for_which_no_thread_can_be_started_is_a_503(server: Server) -> None:
    """Other connections, and requests that run on the loop, are served meanwhile."""
    assert server.ask(GET % b"/short/threads-off").status == 200
    for number in range(3):
        answer = server.ask(b"POST / HTTP/1.1\r\nHost: a\r\nX-Request-ID: request-%d\r\n\r\n" % number)
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "SERVICE_UNAVAILABLE", "1")
        assert answer.headers["x-request-id"] == f"request-{number}"
    assert server.ask(GET % b"/short/threads-on").status == 200
    assert server.ask(GET % b"/").status == 200
    assert called(server) == 1
    wait_until(lambda: "can't start new thread" in server.log.read_text())
    assert server.log.read_text().count("can't start new thread") == 1


def test_a_refused_request_is_not_run_once_a_thread_is_free(server: Server) -> None:
    """The 503 promises that nothing was written. The pool's one thread was busy when the client got it."""
    with server.connect() as busy:
        busy.send(GET % b"/held")
        wait_until(lambda: called(server) == 1)
        assert server.ask(GET % b"/short/threads-off").status == 200
        assert [server.ask(GET % b"/").status for _ in range(3)] == [503] * 3
        assert server.ask(GET % b"/short/threads-on").status == 200
        assert server.ask(GET % b"/short/release").status == 200
        assert busy.read_answer().status == 200
        assert busy.send(GET % b"/").read_answer().status == 200
    assert called(server) == 2
