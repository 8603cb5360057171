"""Negative cache: the answer "there is none" is asked of the database every time.

Catalogue: "Try the cache. If there is a value, return it. Otherwise load it, and store it if there is one."

Goes wrong: The absent product is never stored. The empty list is stored, but `if cached` is false for it, so it is
never found. A client that asks for ids that do not exist goes to the database with every request.

Bitten: https://github.com/music-assistant/server/pull/4616: what had not been found was fetched again at each access,
through a limit of one request a second. In large libraries most results are of that kind.

Read: `backend/infrastructure/cache.py` stores None like any value, but for 5 seconds only, because clients choose
which absent ids they ask for.

Exercise: `make exercise L=negative_cache`: repair `tests/lessons/exercises/negative_cache.py`: what is not in the cache
needs a mark that is not None. Then think of a million different ids. What else does the cache need?
"""

import time
from unittest.mock import patch

from backend.infrastructure.cache import ABSENT_TTL_SECONDS
from backend.repositories import products
from tests.conftest import UNKNOWN_ID
from tests.lessons import Stage, Verdict

REQUESTS = 100


def get_or_load(cache, key, load):
    cached = cache.get(key)
    if cached:
        return cached
    value = load()
    if value is not None:
        cache[key] = value
    return value


def naive(stage: Stage) -> list[Verdict]:
    cache, loads = {}, {"product": 0, "list": 0}

    def load(key, value):
        loads[key] += 1
        return value

    for _ in range(REQUESTS):
        get_or_load(cache, "product", lambda: load("product", None))
        get_or_load(cache, "list", lambda: load("list", []))
    return [verdict("an absent product", loads["product"], 1), verdict("an empty list", loads["list"], 1)]


def ours(stage: Stage) -> list[Verdict]:
    api, began = stage.api(), time.monotonic()
    with (
        patch.object(products, "by_id", wraps=products.by_id) as one,
        patch.object(products, "page", wraps=products.page) as many,
    ):
        for _ in range(REQUESTS):
            assert api.get(f"/products/{UNKNOWN_ID}").status_code == 404
            assert api.get("/products").json["data"] == []
    allowed = 1 + int((time.monotonic() - began) / ABSENT_TTL_SECONDS)  # 1, unless the machine is very slow
    return [
        verdict("an absent product", one.call_count, allowed),
        verdict("an empty list", many.call_count, allowed),
    ]


def verdict(what: str, loads: int, allowed: int) -> Verdict:
    says = f"{REQUESTS} requests for {what}: {loads} load{'s' * (loads > 1)} from the database"
    return Verdict(0 < loads <= allowed, loads, says)
