"""A bank run over two application hosts and one database host, while each of them and the network between them fails.

After Jepsen's bank workload. Clients move and count money and change a name. Meanwhile workers, a whole host and the
database are killed, a firewall forgets connections, and a host is cut off from the database for ten seconds.
"""

import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.at_once import at_once
from tests.conftest import PASSWORD, Person
from tests.postgres.hosts import (
    CLIENT,
    ApplicationHost,
    DatabaseHost,
    application_host,
    database_host,
    network,
    set_cable,
)
from tests.production.oracle import ID_OF_EFFECT, result_of
from tests.production.real_service import LOST, Caller, Reply
from tests.waiting import wait_until
from tests.webhook_receiver import Receiver, receiving

SEED = 20_261_126
ACCOUNTS, DEPOSIT, TRANSFERRERS = 5, 500, 4
CUT_SECONDS = 10
PAUSE = 0.02  # between two requests of a client: each event is also a webhook


class Cluster:
    """The hosts, and the clients' record of the answers."""

    def __init__(self, a: ApplicationHost, b: ApplicationHost, db: DatabaseHost, receiver: Receiver) -> None:
        self.a, self.b, self.db, self.receiver = a, b, db, receiver
        self.acknowledged: dict[str, str] = {}  # memo → id
        self.renamed = self.reads = self.lost = self.unavailable = 0
        self.over = threading.Event()
        self._turns = itertools.cycle([a, b])

    def ask(self, *request: Any) -> Reply:
        """Send the request to one host after the other until an answer says what has become of it."""
        end = time.monotonic() + 120
        while time.monotonic() < end:
            try:
                with Caller(next(self._turns).address) as caller:
                    reply = caller.call(*request)
                if reply.status != 503:
                    return reply
                self.unavailable += 1
            except LOST:
                self.lost += 1
            self.over.wait(PAUSE)
        raise AssertionError("no answer for two minutes")

    def sign_up(self, name: str) -> Person:
        email = f"{name}@example.com"
        user = self.ask("POST", "/users", None, {"email": email, "password": PASSWORD, "name": name}).data
        pair = self.ask("POST", "/auth/login", None, {"email": email, "password": PASSWORD}).data
        return Person(user["id"], email, pair["accessToken"], pair["refreshToken"])

    def transfer(self, choose: random.Random, by: Person, accounts: list[str], memo: str) -> None:
        source, target = choose.sample(accounts, 2)
        body = {"fromAccountId": source, "toAccountId": target, "amount": choose.randint(1, 200), "memo": memo}
        reply = self.ask("POST", "/transfers", by, body, memo)
        if reply.status == 422:
            assert reply.body["error"]["code"] == "INSUFFICIENT_FUNDS"
        else:
            assert reply.status == 201, reply
            self.acknowledged[memo] = reply.data["id"]

    def count_all(self, admin: Person) -> None:
        """A list of all accounts is one statement and shows one moment, so its balances add up."""
        accounts = self.ask("GET", "/accounts?limit=100", admin).data
        assert sum(account["balance"] for account in accounts) == 0
        assert sum(account["balance"] for account in accounts if account["ownerId"]) == ACCOUNTS * DEPOSIT
        self.reads += 1

    def repeat(self, work: Callable[[int], None]) -> None:
        for number in itertools.count():
            if self.over.wait(PAUSE):
                return
            work(number)

    def ids_of(self, kind: str) -> list[tuple[str, str]]:
        """Resource and event id of the webhooks of this type, by first arrival."""
        arrived = [(one.id, one.json) for one in list(self.receiver.arrivals)]
        return list(dict.fromkeys((body["data"]["resourceId"], id_) for id_, body in arrived if body["type"] == kind))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    from backend.postgres.migrations import migrate

    with network(), database_host() as db, receiving(address=CLIENT) as (receiver, port):
        migrate(db.url)
        environment = {
            "DATABASE_URL": db.url, "WEBHOOK_URLS": f"http://{CLIENT}:{port}/",
            "WEBHOOK_SECRET": f"whsec_{'test' * 8}", "WEBHOOK_ALLOW_NETWORKS": f"{CLIENT}/32",
        }  # fmt: skip
        with application_host("a", tmp_path, **environment) as a, application_host("b", tmp_path, **environment) as b:
            yield Cluster(a, b, db, receiver)


def fail(cluster: Cluster, ada: Person) -> dict[str, float]:
    """Everything that may fail, one after the other. Returns how many seconds reactions took."""
    choose, seconds, a, b, db = random.Random(SEED), {}, cluster.a, cluster.b, cluster.db

    def took(what: str, condition: Callable[[], bool]) -> None:
        began = time.monotonic()
        wait_until(condition, seconds=120)
        seconds[what] = round(time.monotonic() - began, 1)

    def kill_worker(host: ApplicationHost) -> None:
        os.kill(choose.choice(host.server.workers()), signal.SIGKILL)
        cluster.over.wait(0.5)

    set_cable("a", "back", "down")
    cut = time.monotonic()
    took("503 of the cut host", lambda: a.readiness() == 503)
    wait_until(lambda: b.readiness() == 200)
    with Caller(a.address, seconds=120) as caller:
        assert caller.call("GET", "/users/me", ada).status == 503
    seconds["answer of the cut host"] = round(time.monotonic() - cut, 1)
    kill_worker(a)  # the next one starts without a database
    cluster.over.wait(max(0.0, cut + CUT_SECONDS - time.monotonic()))
    set_cable("a", "back", "up")
    took("ready again", lambda: a.readiness() == 200)
    b.kill()
    kill_worker(a)
    b.start()
    wait_until(lambda: len(b.ports()) > 8)  # its threads have connected
    db.forget(b.ports())
    cluster.over.wait(1)
    took("ready after the firewall's loss", lambda: b.readiness() == 200)
    db.crash()
    took("503 without a database", lambda: a.readiness() == b.readiness() == 503)
    db.start()
    took("ready after the crash", lambda: a.readiness() == b.readiness() == 200)
    kill_worker(b)
    wait_until(lambda: len(cluster.acknowledged) > 100 and cluster.reads > 20, seconds=120)
    return seconds


def test_nothing_is_lost_or_done_twice_although_hosts_the_database_and_the_network_fail(cluster: Cluster) -> None:
    admin, ada = cluster.sign_up("root"), cluster.sign_up("ada")
    with psycopg.connect(cluster.db.url) as connection:
        connection.execute("UPDATE users SET roles = 'admin,user' WHERE id = %s", (admin.id,))
    accounts = [cluster.ask("POST", "/accounts", ada, {"currency": "EUR"}).data["id"] for _ in range(ACCOUNTS)]
    for account in accounts:
        deposit = cluster.ask("POST", f"/accounts/{account}/deposits", admin, {"amount": DEPOSIT}, f"deposit-{account}")
        assert deposit.status == 201, deposit

    def transfer(client: int) -> None:
        choose = random.Random(SEED + client)
        cluster.repeat(lambda number: cluster.transfer(choose, ada, accounts, f"{client}.{number}"))

    def rename(number: int) -> None:
        assert cluster.ask("PATCH", "/users/me", ada, {"name": f"Ada {number}"}).status == 200
        cluster.renamed += 1

    def fail_and_end() -> dict[str, float]:
        try:
            return fail(cluster, ada)
        finally:
            cluster.over.set()

    works: list[Callable[[], Any]] = [
        fail_and_end, lambda: cluster.repeat(rename), lambda: cluster.repeat(lambda _: cluster.count_all(admin)),
        *(lambda client=client: transfer(client) for client in range(TRANSFERRERS)),
    ]  # fmt: skip
    seconds = at_once(works)[0]
    print(f"{len(cluster.acknowledged)} transfers, {cluster.renamed} changes of the name, {cluster.reads} counts, "
          f"{cluster.unavailable} times 503, {cluster.lost} times no answer, seconds: {seconds}")  # fmt: skip
    with psycopg.connect(cluster.db.url) as connection:

        def rows(sql: str) -> list[Any]:
            return connection.execute(sql.replace(ID_OF_EFFECT, "(data::json ->> 'id')").encode()).fetchall()

        assert result_of(rows, cluster.acknowledged) == []
    assert cluster.lost
    transfers = {*cluster.acknowledged.values()}
    wait_until(lambda: transfers <= {resource for resource, _ in cluster.ids_of("transfer.completed")}, seconds=120)
    wait_until(lambda: len(cluster.ids_of("user.updated")) >= cluster.renamed, seconds=120)
    names = [event_id for _, event_id in cluster.ids_of("user.updated")]
    assert names == sorted(names)  # ids rise with the order of commits, because the user's row is locked
