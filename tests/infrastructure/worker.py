"""One process as its cache sees it: a database and a cache of its own, and products to read and write."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from backend.infrastructure.database import Tx
from backend.settings import Settings
from tests.wirings import WIRINGS

PUT = """INSERT INTO products VALUES (:id, :id, 'x', 1, 'EUR', :stock, 1, 0, 0)
         ON CONFLICT (id) DO UPDATE SET stock = excluded.stock"""
DELETE = "DELETE FROM products WHERE id = :id"

WRITERS = {  # wiring → the writers that its cache hears of
    "core": ["itself", "another thread"],
    "production": ["itself", "another thread", "another worker", "an outsider"],
}
by_every_writer = pytest.mark.parametrize(
    ("wiring", "writer"), [(wiring, writer) for wiring in WIRINGS for writer in WRITERS[wiring]], indirect=True
)


class Worker:
    """`loads` counts the reads that the cache could not answer."""

    def __init__(
        self, settings: Settings, wiring: str, size: int = 100, ttl: float = 60.0,
        clock: Callable[[], float] = lambda: 0.0,
    ) -> None:  # fmt: skip
        tools = WIRINGS[wiring](replace(settings, busy_timeout_seconds=600))
        self.database = tools.database
        kind: Any = type(tools.cache)
        self.cache = kind(tools.database, size, ttl, clock)
        self.loads = 0

    def stock(self, product: str) -> int | None:
        found: int | None = self.cache.get_or_load(product, lambda tx: self.load(tx, product), (f"products:{product}",))
        return found

    def load(self, tx: Tx, product: str) -> int | None:
        self.loads += 1
        row = tx.row("SELECT stock FROM products WHERE id = :id", id=product)
        return row[0] if row else None

    def all(self) -> list[tuple[str, int]]:
        found: list[tuple[str, int]] = self.cache.get_or_load(
            "all", lambda tx: tx.rows("SELECT id, stock FROM products"), ("products",)
        )
        return found

    def numbers(self, length: int) -> list[int]:
        """A list of its own for each length, invalidated by any change of a product."""

        def load(tx: Tx) -> list[int]:
            self.loads += 1
            return list(range(length))

        found: list[int] = self.cache.get_or_load(("numbers", length), load, ("products",))
        return found

    def put(self, product: str, stock: int | None) -> None:
        """Write the product's stock, None deletes the product, and invalidate as a service does."""
        with self.database.transaction() as tx:
            tx.run(DELETE if stock is None else PUT, id=product, **({} if stock is None else {"stock": stock}))
            tx.after_commit(lambda: self.cache.invalidate(f"products:{product}", "products"))


@contextmanager
def workers(settings: Settings, wiring: str) -> Iterator[Callable[..., Worker]]:
    """A function that makes workers. At the end of the block their connections are closed."""
    made: list[Worker] = []

    def make(**changes: Any) -> Worker:
        made.append(Worker(settings, wiring, **changes))
        return made[-1]

    yield make
    for worker in made:
        worker.database.close()
