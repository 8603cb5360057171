"""A worker as the cache sees it: a database and a cache of its own, and products to read and write."""

from collections.abc import Callable
from pathlib import Path

from backend.infrastructure.cache import CoherentCache
from backend.infrastructure.database import Database, Tx

PUT = """INSERT INTO products VALUES (:id, :id, 'x', 1, 'EUR', :stock, 1, 0, 0)
         ON CONFLICT (id) DO UPDATE SET stock = excluded.stock"""
DELETE = "DELETE FROM products WHERE id = :id"


class Worker:
    """A database and a cache of its own, as each process has them. `loads` counts what the cache did not know."""

    def __init__(self, path: Path, size: int = 100, clock: Callable[[], float] = lambda: 0.0) -> None:
        self.database = Database(path, busy_timeout=30)
        self.cache = CoherentCache(self.database, size, 60.0, clock)
        self.loads = 0

    def stock(self, product: str) -> int | None:
        return self.cache.get_or_load(product, lambda tx: self.load(tx, product), (f"products:{product}",))

    def load(self, tx: Tx, product: str) -> int | None:
        self.loads += 1
        row = tx.row("SELECT stock FROM products WHERE id = :id", id=product)
        return row[0] if row else None

    def all(self) -> list[tuple[str, int]] | None:
        return self.cache.get_or_load("all", lambda tx: tx.rows("SELECT id, stock FROM products"), ("products",))

    def numbers(self, length: int) -> list[int] | None:
        """A list of its own for each length, forgotten when any product changes."""

        def load(tx: Tx) -> list[int]:
            self.loads += 1
            return list(range(length))

        return self.cache.get_or_load(("numbers", length), load, ("products",))

    def put(self, product: str, stock: int | None) -> None:
        """Write the product's stock; None deletes it."""
        with self.database.transaction() as tx:
            tx.run(DELETE if stock is None else PUT, id=product, **({} if stock is None else {"stock": stock}))
