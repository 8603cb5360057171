"""A process that dies at any step of a write has done all of it or nothing; a retry with the same key completes it."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Api, Person
from tests.forked import Forked
from tests.production.oracle import result

STOCK, MOST_STEPS = 1000, 200

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # 3.12: we fork beside threads on purpose


def die_at(step: int) -> Callable[[str], None]:
    """Let this process die before statement number `step`, counted from the next BEGIN IMMEDIATE; 0: never.

    COMMIT and triggers count, and so does each call of the returned function.
    """
    connect, count = sqlite3.connect, 0

    def on_statement(sql: str) -> None:
        nonlocal count
        count += bool(count) or sql == "BEGIN IMMEDIATE"
        if count == step > 0:
            os._exit(1)

    def watched(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(on_statement)
        return connection

    sqlite3.connect = watched  # in this child alone
    return on_statement


@dataclass
class Write:
    """A request that is sent with a key from a child process, which may die of it."""

    api: Api
    by: Person
    path: str
    body: dict[str, Any]

    def send(self, key: str, dies_at: int = 0) -> tuple[str, bool]:
        """The id of the new row, and whether the answer was replayed. Raises EOFError if the process died."""

        def work() -> tuple[str, bool]:
            step = die_at(dies_at)
            memo = {"memo": key} if self.path == "/transfers" else {}
            answer = self.api.post(self.path, self.by, self.body | memo, key=key)
            assert answer.status_code == 201, answer.text
            step("answer")  # the process dies before the answer is sent
            return answer.json["data"]["id"], "Idempotency-Replayed" in answer.headers

        self.api.app.database.close()  # no connection crosses the fork
        id, replayed = Forked(work).result()
        return id, replayed


@pytest.fixture
def writes(api: Api, ada: Person, grace: Person, admin: Person) -> dict[str, Write]:
    purse, other = api.account(ada, balance=1_000_000, admin=admin), api.account(grace)
    api.app.relay.stop()  # it would write as well
    items = [{"productId": api.product(admin, sku, stock=STOCK), "quantity": 2} for sku in ("TEA", "CUP")]
    transfer = {"fromAccountId": purse, "toAccountId": other, "amount": 5}
    return {
        "transfer": Write(api, ada, "/transfers", transfer),
        "order": Write(api, ada, "/orders", {"accountId": purse, "items": items}),
    }


def rows_of(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table."""
    with closing(sqlite3.connect(database)) as sqlite:
        tables = [name for (name,) in sqlite.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {table: sqlite.execute(f"SELECT * FROM {table}").fetchall() for table in tables}


def stock_is_right(database: Path) -> bool:
    with closing(sqlite3.connect(database)) as sqlite:
        query = (
            "SELECT stock + coalesce((SELECT sum(quantity) FROM order_items WHERE product_id = id), 0) FROM products"
        )
        return [total for (total,) in sqlite.execute(query)] == [STOCK, STOCK]


@pytest.mark.parametrize("name", ["transfer", "order"])
def test_all_or_nothing_at_every_step(writes: dict[str, Write], database_path: Path, name: str) -> None:
    """Nothing is written before COMMIT, all from then on. A retry with the same key leaves exactly one effect."""
    write, done, clean = writes[name], [], False
    acknowledged: dict[str, str] = {}
    while not clean:
        key = f"step-{len(done) + 1}"
        before = rows_of(database_path)
        try:
            write.send(key, dies_at=len(done) + 1)
            clean = True
        except EOFError:
            pass
        after = rows_of(database_path)
        done.append(after != before)
        made, replayed = write.send(key)
        assert replayed == done[-1], key
        assert (rows_of(database_path) == after) == done[-1], key
        if name == "transfer":
            acknowledged[key] = made
        assert result(database_path, acknowledged) == [], key
        assert stock_is_right(database_path), key
        assert len(done) < MOST_STEPS
    first = done.index(True)
    assert first >= 10
    assert not any(done[:first])
    assert all(done[first:])
    assert len(done) - first >= 2  # one died after COMMIT, one did not die
