"""Stop, reload, recycling and death: running requests are answered, and shared counts and caches stay right."""

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from tests.conftest import Api, Person
from tests.production.gunicorn_server import LONG_STOP, Server
from tests.production.load import Load
from tests.production.oracle import result
from tests.production.real_service import LOST, PATIENT, Caller, call, connect_to, service
from tests.waiting import wait_until, write_lock_held
from tests.watching import holds_gate

QUOTA, DAY = 2000, 86_400  # requests in so many seconds: one comes back in 43


@pytest.fixture
def server(tmp_path: Path, database_path: Path) -> Iterator[Server]:
    with service(tmp_path / "log", database_path, *LONG_STOP, **PATIENT) as server:
        yield server


@pytest.fixture
def accounts(api: Api, ada: Person, grace: Person, admin: Person) -> tuple[str, str]:
    return api.account(ada, balance=1_000_000, admin=admin), api.account(grace)


def gone(process: int) -> bool:
    return not Path(f"/proc/{process}").exists()


def test_after_sigterm_running_requests_are_answered_and_readyz_is_a_503(
    server: Server, ada: Person, accounts: tuple[str, str], database_path: Path
) -> None:
    """Two transfers run, one in each worker. They wait for a lock that is released after SIGTERM."""
    load = Load(server, ada, accounts)
    workers = server.workers()
    with ExitStack() as stack:
        running, idle = (
            [stack.enter_context(connect_to(server, worker)[0]) for worker in workers] for _ in ("running", "idle")
        )
        with write_lock_held(database_path):
            for number, caller in enumerate(running):
                caller.send("POST", "/transfers", ada, load.body(f"running {number}"))
            wait_until(lambda: all(holds_gate(worker, database_path) for worker in workers))
            server.process.terminate()
            wait_until(lambda: all(told_to_stop(caller) for caller in idle))
        ready = call(server, "GET", "//readyz")
        replies = [caller.reply() for caller in running]
    assert ready.status == 503
    assert "shutdown" in ready.body["error"]["details"]
    assert [reply.status for reply in replies] == [201, 201]
    assert server.process.wait(60) == 0
    load.join()
    told = load.acknowledged | {f"running {number}": reply.data["id"] for number, reply in enumerate(replies)}
    assert result(database_path, told, load.refused) == []


def told_to_stop(caller: Caller) -> bool:
    """Whether its worker closes the connection that it would have kept."""
    return caller.call("GET", "//healthz").headers["connection"] == "close"


def test_after_the_death_of_the_master_no_worker_goes_on_writing(
    server: Server, ada: Person, accounts: tuple[str, str], database_path: Path
) -> None:
    """Although clients keep their connections busy, the workers close them and end."""
    load = Load(server, ada, accounts)
    workers = server.workers()
    server.process.kill()
    server.process.wait()
    wait_until(lambda: all(map(gone, workers)))
    load.join()
    assert result(database_path, load.acknowledged, load.refused) == []


class Watch:
    """One client changes and reads a product; another one counts how much of its quota is left."""

    def __init__(self, server: Server, admin: Person, ada: Person, product: str) -> None:
        self._server, self._admin, self._ada, self._path = server, admin, ada, f"/products/{product}"
        self.stock, self.left, self.changes = 0, QUOTA, 0
        self._began = time.monotonic()

    def change_and_read(self, may_be_lost: bool = False) -> None:
        self.stock += 1
        try:
            assert call(self._server, "PATCH", self._path, self._admin, {"stock": self.stock}).status == 200
            for _ in range(3):
                assert call(self._server, "GET", self._path, self._admin).data["stock"] == self.stock
            self.changes += 1
        except LOST:
            assert may_be_lost

    def count_everywhere(self) -> None:
        """Every worker shows the product's current stock and the shared count of Ada's requests."""
        for worker in self._server.workers():
            self.change_and_read()
            (caller,) = connect_to(self._server, worker)
            with caller:
                reply = caller.call("GET", self._path, self._ada)
            self.left -= 1
            (left,) = re.findall(r'^"default";r=(\d+);', reply.headers["ratelimit"])
            come_back = int((time.monotonic() - self._began) * QUOTA / DAY)
            assert self.left <= int(left) <= self.left + come_back
            assert reply.data["stock"] == self.stock


def wear_out(server: Server, worker: int, watch: Watch) -> None:
    """Send requests to this worker until it closes the connection."""
    (caller,) = connect_to(server, worker)
    with caller:
        for number in count():
            if caller.call("GET", "//healthz").headers["connection"] == "close":
                return
            if number % 10 == 0:
                watch.change_and_read()


def replace_workers(server: Server, watch: Watch, event: str) -> None:
    """Wait until new workers have replaced the old ones; change and read the product meanwhile."""
    old = server.workers()
    if event == "SIGHUP":
        server.process.send_signal(signal.SIGHUP)
    for worker in old:
        if event == "SIGKILL":
            os.kill(worker, signal.SIGKILL)
        if event == "max_requests":
            wear_out(server, worker, watch)
    end = time.monotonic() + 60
    while set(old) & set(server.workers()):
        watch.change_and_read(may_be_lost=event == "SIGKILL")
        time.sleep(0.02)  # so that the quota lasts for a minute
        assert time.monotonic() < end
    server.wait_for_workers(2, others_than=old)


@pytest.mark.parametrize("event", ["SIGHUP", "SIGKILL", "max_requests"])
def test_limits_and_caches_stay_right_over(
    tmp_path: Path, database_path: Path, api: Api, admin: Person, ada: Person, event: str
) -> None:
    """No read is older than an answered write, no request is lost except by a kill, and every hit counts."""
    options = ["--keep-alive", "60", *(["--max-requests", "100"] if event == "max_requests" else [])]
    environment = {"RATE_LIMIT_DEFAULT": f"{QUOTA}/{DAY}"}
    with service(tmp_path / "log", database_path, *options, **environment) as server:
        watch = Watch(server, admin, ada, api.product(admin))
        watch.count_everywhere()
        replace_workers(server, watch, event)
        watch.count_everywhere()
        assert watch.changes >= 4
        assert "Traceback" not in (tmp_path / "log").read_text()
