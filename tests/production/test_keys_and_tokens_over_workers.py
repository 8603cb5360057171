"""Idempotency keys, refresh tokens, bcrypt and secrets over two workers, with clients that disconnect."""

import os
import signal
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import accumulate
from pathlib import Path

import pytest

from tests.at_once import at_once
from tests.conftest import PASSWORD, Api, Person
from tests.production.gunicorn_server import Server
from tests.production.oracle import result
from tests.production.real_service import PATIENT, Caller, call, connect_to, service
from tests.waiting import wait_until, write_lock_held
from tests.watching import holds_gate


@pytest.fixture
def server(tmp_path: Path, database_path: Path) -> Iterator[Server]:
    with service(tmp_path / "log", database_path, REFRESH_GRACE_SECONDS="300", **PATIENT) as server:
        yield server


@pytest.fixture
def transfer(api: Api, ada: Person, grace: Person, admin: Person) -> dict[str, object]:
    """The body of a transfer."""
    purse, other = api.account(ada, balance=1000, admin=admin), api.account(grace)
    return {"fromAccountId": purse, "toAccountId": other, "amount": 10, "memo": "once"}


def ten_of_each(server: Server) -> list[Caller]:
    """Twenty open connections, ten to each worker."""
    return [caller for worker in server.workers() for caller in connect_to(server, worker, 10)]


def test_twenty_at_once_with_one_key_are_one_transfer(
    server: Server, transfer: dict[str, object], ada: Person, database_path: Path
) -> None:
    """All get the same answer from either worker, nineteen of them as a replay."""
    with ExitStack() as stack:
        callers = [stack.enter_context(caller) for caller in ten_of_each(server)]
        replies = at_once(partial(caller.call, "POST", "/transfers", ada, transfer, "once") for caller in callers)
    assert {reply.status for reply in replies} == {201}
    assert len({str(reply.data) for reply in replies}) == 1
    assert sum("idempotency-replayed" in reply.headers for reply in replies) == 19
    assert result(database_path, {"once": replies[0].data["id"]}) == []


@pytest.mark.parametrize("gone", ["the client", "the worker"])
def test_a_retry_on_the_other_worker_after_a_lost_answer_is_the_same_transfer(
    server: Server, transfer: dict[str, object], ada: Person, database_path: Path, gone: str
) -> None:
    """The first attempt is under way: it waits for a lock that another program holds."""
    one, other = server.workers()
    (first,), (second,) = connect_to(server, one), connect_to(server, other)
    with first, second:
        with write_lock_held(database_path):
            first.send("POST", "/transfers", ada, transfer, "once")
            wait_until(lambda: holds_gate(one, database_path))
            if gone == "the worker":
                os.kill(one, signal.SIGKILL)
            else:
                first.http.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                first.http.close()
            second.send("POST", "/transfers", ada, transfer, "once")
        reply = second.reply()
    assert reply.status == 201
    assert ("idempotency-replayed" in reply.headers) == (gone == "the client")
    assert result(database_path, {"once": reply.data["id"]}) == []
    last = call(server, "POST", "/transfers", ada, transfer, "once")
    assert (last.status, last.data) == (201, reply.data)


def test_twenty_refreshes_at_once_give_one_and_the_same_token(server: Server, api: Api, ada: Person) -> None:
    with ExitStack() as stack:
        callers = [stack.enter_context(caller) for caller in ten_of_each(server)]
        body = {"refreshToken": ada.refresh}
        replies = at_once(partial(caller.call, "POST", "/auth/refresh", None, body) for caller in callers)
    assert {reply.status for reply in replies} == {200}
    (successor,) = {reply.data["refreshToken"] for reply in replies}
    assert call(server, "POST", "/auth/refresh", None, {"refreshToken": successor}).status == 200


def test_as_many_bcrypt_runs_as_cores_go_on_at_once_and_reads_are_served(
    tmp_path: Path, database_path: Path, api: Api, ada: Person
) -> None:
    """Forty log in at once, more than the threads of both workers: a read is answered meanwhile, and in the end all."""
    marks, cores = tmp_path / "marks", os.cpu_count() or 1
    hold = tmp_path / "marks.hold"
    hold.touch()
    application = "tests.production.counted_bcrypt:create_app()"

    def log_in(caller: Caller) -> int:
        reply = caller.call("POST", "/auth/login", None, {"email": "nobody@example.com", "password": PASSWORD})
        return reply.status

    with (
        service(tmp_path / "log", database_path, application=application, BCRYPT_MARKS=str(marks)) as server,
        ExitStack() as stack,
        ThreadPoolExecutor() as pool,
    ):
        callers = [stack.enter_context(caller) for caller in ten_of_each(server) + ten_of_each(server)]
        readers = [stack.enter_context(caller) for worker in server.workers() for caller in connect_to(server, worker)]
        statuses = pool.submit(at_once, [partial(log_in, caller) for caller in callers])
        wait_until(lambda: marks.read_text() == "+" * cores)
        assert [caller.call("GET", "/users/me", ada).status for caller in readers] == [200, 200]
        hold.unlink()
        assert set(statuses.result()) == {401}
    running = list(accumulate({"+": 1, "-": -1}[mark] for mark in marks.read_text()))
    assert len(running) == 2 * len(callers)
    assert max(running) == cores


@pytest.mark.parametrize("fate", ["deleted", "emptied"])
def test_a_worker_that_starts_late_has_the_secret_of_the_others(tmp_path, fate):
    """Although the file is gone or empty by then, a token is valid at every worker."""
    with service(tmp_path / "log", tmp_path / "app.db", JWT_SECRETS="") as server:
        lin = {"email": "lin@example.com", "password": PASSWORD}
        assert call(server, "POST", "/users", json_=lin | {"name": "Lin"}).status == 201
        tokens = call(server, "POST", "/auth/login", json_=lin).data
        file = tmp_path / "jwt-secret"
        file.unlink() if fate == "deleted" else file.write_text("")
        old = server.workers()
        os.kill(old[0], signal.SIGKILL)
        wait_until(lambda: set(server.workers()) - set(old))
        (new,) = set(server.wait_for_workers(2)) - set(old)
        (caller,) = connect_to(server, new)
        with caller:
            lin = Person("", "", tokens["accessToken"], "")
            assert caller.call("GET", "/users/me", lin).status == 200
