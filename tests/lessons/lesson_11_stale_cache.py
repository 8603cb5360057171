"""Stale cache: a slow reader puts the old price back, and a second worker never hears of the new one.

Catalogue: "On a write, update the database and delete the key. The next read loads the new value."

Goes wrong: A reader loads 2.50 and is slow. A writer stores 3.00 and deletes a key that is not there yet. Then the
reader stores 2.50, until the time-to-live ends. And a cache in the process's memory is deleted only in the process
that wrote.

Bitten: https://github.com/google/guava/issues/1881: a load that an invalidation overtook stays in the cache.
https://github.com/saleor/saleor/issues/2354: with a cache in each worker, users appear to be logged in only on every
n-th request.

Read: `backend/infrastructure/cache.py`: the fill guard stores a value only if no invalidation came in between.
`backend/production/cache.py`: triggers log each change in the database, and every worker reads that log.

Exercise: `make exercise L=stale_cache`: repair `tests/lessons/exercises/stale_cache.py`. Would it help to delete the
key before the write as well ("double delete")? Which interleaving still leaves the old price in the cache?
"""

import threading
from unittest.mock import patch

from backend.repositories import products
from tests.lessons import Stage, Verdict, money

OLD, NEW, READS = 2_50, 3_00, 20


def read(cache, database, pause):
    if "price" in cache:
        return cache["price"]
    price = database["price"]
    pause()  # the reader is slow here
    cache["price"] = price
    return price


def write(cache, database, price):
    database["price"] = price
    cache.pop("price", None)


def naive(stage: Stage) -> list[Verdict]:
    cache, database = {}, {"price": OLD}
    read(cache, database, pause=lambda: meanwhile(lambda: write(cache, database, NEW)))
    seen = [read(cache, database, pause=lambda: None) for _ in range(READS)]
    return [verdict("a reader overtaken by a write", seen), two_workers(stage, "core")]


def ours(stage: Stage) -> list[Verdict]:
    api = stage.api()
    root = api.admin()
    product, page = api.product(root, price=OLD), products.page
    writes = [lambda: api.patch(f"/products/{product}", root, {"unitPrice": NEW})]

    def slow_page(*arguments):
        loaded = page(*arguments)
        if writes:  # the first reader is slow here
            meanwhile(writes.pop())
        return loaded

    with patch.object(products, "page", slow_page):
        seen = [api.get("/products").json["data"][0]["unitPrice"] for _ in range(1 + READS)]
    assert seen[0] == OLD  # its read began before the write
    return [verdict("a reader overtaken by a write", seen[1:]), two_workers(stage, "production")]


def two_workers(stage: Stage, wiring: str) -> Verdict:
    """One worker writes, the other reads. The core keeps its promise in one process only, as its docstring says."""
    one, other = stage.api(wiring), stage.api(wiring)
    root = one.admin("Writer")  # another name than in the first attack
    product = one.product(root, "COFFEE", price=OLD)
    assert price_of(other, product) == OLD
    one.patch(f"/products/{product}", root, {"unitPrice": NEW})
    return verdict(f"two workers ({wiring})", [price_of(other, product) for _ in range(READS)])


def price_of(api, product: str) -> int:
    return api.get(f"/products/{product}").json["data"]["unitPrice"]


def meanwhile(action) -> None:
    """Do it in another thread, and wait for it."""
    thread = threading.Thread(target=action)
    thread.start()
    thread.join(60)


def verdict(case: str, seen: list[int]) -> Verdict:
    stale = sum(price != NEW for price in seen)
    return Verdict(stale == 0, stale, f"{case}: {stale} of {READS} later reads show {money(OLD)}, not {money(NEW)}")
