"""A bank run, after Jepsen's bank workload: clients move and count money while workers and masters are killed."""

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.at_once import at_once
from tests.conftest import Api, Person
from tests.production.gunicorn_server import Server
from tests.production.oracle import result
from tests.production.real_service import LOST, Reply, call, service
from tests.waiting import wait_until

SEED = 20_261_122
ACCOUNTS, DEPOSIT, TRANSFERRERS = 5, 500, 5
KILLS = "w w w M w w w M w w".split()  # of a worker, of the master


class Bank:
    """The clients' record of the answers, and the server that gives them."""

    def __init__(self, tmp_path: Path, database: Path) -> None:
        self.acknowledged: dict[str, str] = {}  # memo → id
        self.refused: list[str] = []
        self.reads = self.lost = 0
        self.over = threading.Event()
        self.server: Server
        self._tmp_path, self._database = tmp_path, database
        self._stack = ExitStack()

    def start(self) -> None:
        """Start a new master on a new port, even if workers of the old one still run."""
        log = self._tmp_path / f"gunicorn-{time.monotonic_ns()}.log"
        self.server = self._stack.enter_context(service(log, self._database))

    def close(self) -> None:
        self._stack.close()

    def ask(self, *request: Any) -> Reply:
        """Send the request again until an answer says what has become of it."""
        end = time.monotonic() + 60
        while True:
            try:
                reply = call(self.server, *request)
                if reply.status != 503:
                    return reply
                assert int(reply.headers["retry-after"]) >= 1
            except LOST:
                self.lost += 1
            assert time.monotonic() < end, "no answer for a minute"
            time.sleep(0.02)

    def transfer(self, choose: random.Random, ada: Person, accounts: list[str], memo: str) -> None:
        source, target = choose.sample(accounts, 2)
        body = {"fromAccountId": source, "toAccountId": target, "amount": choose.randint(1, 400), "memo": memo}
        reply = self.ask("POST", "/transfers", ada, body, memo)
        if reply.status == 422:
            assert reply.body["error"]["code"] == "INSUFFICIENT_FUNDS"
            self.refused.append(memo)
            return
        assert reply.status == 201, reply
        self.acknowledged[memo] = reply.data["id"]
        if choose.random() < 0.2:  # a client that retries although it has the answer
            again = self.ask("POST", "/transfers", ada, body, memo)
            assert (again.status, again.data) == (201, reply.data)
            assert again.headers["idempotency-replayed"] == "true"

    def count_all(self, admin: Person) -> None:
        """A list of all accounts shows one moment, so its balances add up."""
        reply = self.ask("GET", "/accounts?limit=100", admin)
        assert reply.status == 200, reply
        balances = {account["id"]: account["balance"] for account in reply.data}
        owned = [account["balance"] for account in reply.data if account["ownerId"]]
        assert sum(balances.values()) == 0
        assert sum(owned) == ACCOUNTS * DEPOSIT
        assert min(owned) >= 0
        self.reads += 1

    def kill(self, choose: random.Random) -> None:
        """Kill random workers and the master in the order of KILLS, with pauses in which clients get answers."""
        for target in KILLS:
            transfers, reads = len(self.acknowledged) + 12, self.reads + 3
            wait_until(lambda: len(self.acknowledged) >= transfers and self.reads >= reads)  # noqa: B023 - at once
            self.over.wait(choose.uniform(0, 0.6))
            if target == "M":
                self.server.process.kill()
                self.server.process.wait()
                self.start()
            elif workers := self.server.workers():
                with suppress(ProcessLookupError):  # it was dead already
                    os.kill(choose.choice(workers), signal.SIGKILL)
        self.over.wait(0.5)


@pytest.fixture
def bank(tmp_path: Path, database_path: Path) -> Iterator[Bank]:
    bank = Bank(tmp_path, database_path)
    bank.start()
    yield bank
    bank.close()


def test_no_money_is_made_lost_or_moved_twice_although_workers_and_masters_are_killed(
    bank: Bank, api: Api, ada: Person, admin: Person, database_path: Path
) -> None:
    accounts = [api.account(ada, balance=DEPOSIT, admin=admin) for _ in range(ACCOUNTS)]

    def transfer(number: int) -> None:
        choose, count = random.Random(SEED + number), 0
        while not bank.over.is_set():
            bank.transfer(choose, ada, accounts, f"{number}.{count}")
            count += 1

    def read() -> None:
        while not bank.over.is_set():
            bank.count_all(admin)

    def kill() -> None:
        try:
            bank.kill(random.Random(SEED))
        finally:
            bank.over.set()

    at_once([kill, read, *(lambda number=number: transfer(number) for number in range(TRANSFERRERS))])
    bank.count_all(admin)
    bank.close()
    assert result(database_path, bank.acknowledged, bank.refused) == []
    assert len(bank.acknowledged) > 100
    assert bank.reads > 20
    assert bank.refused
    assert bank.lost
