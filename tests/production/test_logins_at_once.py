"""Many logins at once wait in one line for all workers, and no other request waits with them."""

import os
import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from backend.infrastructure.passwords import MAX_WAITING
from tests.conftest import PASSWORD, Person
from tests.production.gunicorn_server import Server
from tests.production.real_service import LOST, Caller, Reply, call, connect_to, service
from tests.waiting import wait_until, write_lock_held
from tests.watching import holds_gate

CORES = os.cpu_count() or 1
PLACES = CORES + MAX_WAITING
APPLICATION = "tests.production.counted_bcrypt:create_app()"


class Crowd:
    """Clients that log in, each on a connection of its own. While the file `hold` exists, no bcrypt run ends."""

    def __init__(self, server: Server, marks: Path, email: str) -> None:
        self.server, self.email = server, email
        self.marks, self.hold = marks, marks.with_name(f"{marks.name}.hold")
        self.threads = ThreadPoolExecutor(PLACES + 20)
        self.hold.touch()

    def log_in(self, caller: Caller | None = None, source: str = "") -> "Future[Reply]":
        caller = caller or Caller(self.server.address, 60, source)
        body = {"email": self.email, "password": PASSWORD}
        return self.threads.submit(call_and_close, caller, "/auth/login", None, body)

    def send_login(self, caller: Caller) -> "Future[Reply]":
        """The same; the request has been sent when this returns."""
        caller.send("POST", "/auth/login", None, {"email": self.email, "password": PASSWORD})
        return self.threads.submit(reply_and_close, caller)

    def open_account(self, caller: Caller, by: Person) -> "Future[Reply]":
        return self.threads.submit(call_and_close, caller, "/accounts", by, {"currency": "EUR"})

    def runs_begun(self) -> int:
        return self.marks.read_text().count("+")

    def wait_until_all_cores_run(self) -> None:
        wait_until(lambda: self.runs_begun() >= CORES)


def call_and_close(caller: Caller, path: str, by: Person | None, body: dict[str, str]) -> Reply:
    with caller:
        return caller.call("POST", path, by, body)


def reply_and_close(caller: Caller) -> Reply:
    with caller:
        return caller.reply()


@pytest.fixture
def crowd(tmp_path: Path, database_path: Path, ada: Person) -> Iterator[Crowd]:
    """Two threads a worker: if waiting logins took them, no other request would be served."""
    marks = tmp_path / "marks"
    settings = {"BCRYPT_MARKS": str(marks), "THREADS": "2"}
    with service(tmp_path / "log", database_path, application=APPLICATION, **settings) as server:
        crowd = Crowd(server, marks, ada.email)
        try:
            yield crowd
        finally:
            crowd.hold.unlink(missing_ok=True)
    crowd.threads.shutdown()


def assert_served(logins: "Iterable[Future[Reply]]", count: int) -> None:
    replies = [login.result() for login in logins]
    assert [reply for reply in replies if reply.status != 200] == []
    assert len(replies) == count


def assert_told_to_come_back(reply: Reply) -> None:
    assert (reply.status, reply.body["error"]["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert int(reply.headers["retry-after"]) >= 1


def test_thirty_logins_are_served_and_other_requests_meanwhile(crowd: Crowd, ada: Person) -> None:
    """Every worker answers reads and writes before the first of the thirty is answered."""
    logins = [crowd.log_in() for _ in range(30)]
    crowd.wait_until_all_cores_run()
    for worker in crowd.server.workers():
        with connect_to(crowd.server, worker)[0] as caller:
            for _ in range(8):
                assert caller.call("GET", "/users/me", ada).status == 200
                assert caller.call("GET", "/auth/sessions", ada).status == 200
                assert caller.call("POST", "/accounts", ada, {"currency": "EUR"}).status == 201
    assert not any(login.done() for login in logins)
    crowd.hold.unlink()
    assert_served(logins, 30)


def test_beyond_sixty_four_waiting_logins_the_next_are_refused_at_once(crowd: Crowd) -> None:
    """The waiting ones are served. The bound is over both workers, and sign-ups wait in the same line as logins."""
    logins = [crowd.log_in() for _ in range(PLACES + 10)]
    wait_until(lambda: sum(login.done() for login in logins) == 10)
    body = {"email": "new@example.com", "password": PASSWORD, "name": "New"}
    assert_told_to_come_back(call(crowd.server, "POST", "/users", None, body))
    for login in logins:
        if login.done():
            assert_told_to_come_back(login.result())
    assert sum(login.done() for login in logins) == 10
    crowd.hold.unlink()
    assert sorted(login.result().status for login in logins) == [200] * PLACES + [503] * 10
    assert call(crowd.server, "POST", "/users", None, body).status == 201


def test_logins_wait_for_the_write_lock_for_the_whole_busy_time_out(
    crowd: Crowd, ada: Person, database_path: Path
) -> None:
    """Of two writers in the pool, at least one is refused after a tenth of that: reads need its thread."""
    worker = crowd.server.workers()[0]
    crowd.hold.unlink()
    with write_lock_held(database_path):
        logins = [crowd.log_in(caller) for caller in connect_to(crowd.server, worker, 30)]
        wait_until(lambda: crowd.marks.read_text().count("-") == 30 and holds_gate(worker, database_path))
        writes = [crowd.open_account(caller, ada) for caller in connect_to(crowd.server, worker, 2)]
        wait_until(lambda: any(write.done() for write in writes))
        assert not any(login.done() for login in logins)
    assert_served(logins, 30)
    assert {write.result().status for write in writes} >= {503}


def test_all_places_of_a_killed_worker_are_free_again(crowd: Crowd) -> None:
    """Those of its running and its waiting calls: as many other logins are served."""
    killed, _ = crowd.server.workers()
    lost = [crowd.log_in(caller) for caller in connect_to(crowd.server, killed, PLACES + 1)]
    wait_until(lambda: any(login.done() for login in lost))
    crowd.wait_until_all_cores_run()
    before = crowd.runs_begun()
    os.kill(killed, signal.SIGKILL)
    assert sum(login.exception() is not None for login in lost) == PLACES
    # An address has a hundred connections, and those of the killed worker count until the master has noticed its death.
    logins = [crowd.log_in(source="127.0.0.2") for _ in range(PLACES)]
    wait_until(lambda: crowd.runs_begun() == before + CORES)
    crowd.hold.unlink()
    assert_served(logins, PLACES)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGHUP])
def test_logins_in_line_at_a_stop_or_a_reload_are_served(crowd: Crowd, sign: signal.Signals) -> None:
    workers = crowd.server.workers()
    logins = [crowd.send_login(caller) for worker in workers for caller in connect_to(crowd.server, worker, 6)]
    watchers = [connect_to(crowd.server, worker)[0] for worker in workers]
    crowd.wait_until_all_cores_run()
    crowd.server.process.send_signal(sign)
    for watcher in watchers:
        with watcher:
            wait_until(lambda watcher=watcher: is_told_to_stop(watcher))
    assert not any(login.done() for login in logins)
    crowd.hold.unlink()
    assert_served(logins, 12)
    wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


def is_told_to_stop(watcher: Caller) -> bool:
    """Whether the worker closes, or has closed, the connection that it would have kept."""
    try:
        return watcher.call("GET", "//healthz").headers["connection"] == "close"
    except LOST:
        return True
