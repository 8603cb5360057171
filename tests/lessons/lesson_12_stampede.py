"""Stampede: a popular key expires, and fifty requests load it at the same moment.

Catalogue: "Cache the result of an expensive query for five minutes."

Goes wrong: Every five minutes there is a moment without a value. All requests of that moment miss, and all of them run
the expensive query. The busiest key has the most of them.

Bitten: https://github.com/Gluejar/regluit/issues/1265: about fifty concurrent requests for a feed of 17 cached values
timed out; a review reckons with 50 × 17 equal queries. https://github.com/hackclub/hcb/pull/8483: the load of the
database spiked whenever the cache of the statistics expired.

Read: `backend/infrastructure/single_flight.py`: of concurrent loads of one key, the first runs and the others wait for
its result. `backend/infrastructure/cache.py` runs every load through it.

Exercise: `make exercise L=stampede`: repair `tests/lessons/exercises/stampede.py`, first with one lock around
`get_or_load`. How many loads are left, and which check is red now?
"""

import threading
from unittest.mock import patch

from backend.repositories import products
from tests.at_once import at_once
from tests.lessons import Stage, Verdict
from tests.waiting import wait_until

CROWD = 50


def get_or_load(cache, key, load):
    if key in cache:
        return cache[key]
    cache[key] = load()
    return cache[key]


def naive(stage: Stage) -> list[Verdict]:
    cache, loads, barrier = {}, [], threading.Barrier(CROWD)

    def load():
        loads.append("the expensive query")
        barrier.wait(60)  # it takes so long that all fifty requests have missed
        return "a product"

    answers = at_once([lambda: get_or_load(cache, "product", load)] * CROWD)
    return [verdict(len(loads), answers.count("a product"))]


def ours(stage: Stage) -> list[Verdict]:
    api = stage.api()
    product, by_id, loads = api.product(api.admin()), products.by_id, []
    all_missed = api.app.cache.misses + CROWD

    def load(tx, product_id):
        loads.append("the expensive query")
        wait_until(lambda: api.app.cache.misses >= all_missed)  # it takes so long that all fifty have missed
        return by_id(tx, product_id)

    with patch.object(products, "by_id", load):
        answers = at_once([lambda: api.get(f"/products/{product}")] * CROWD)
    return [verdict(len(loads), sum(answer.status_code == 200 for answer in answers))]


def verdict(loads: int, answered: int) -> Verdict:
    says = f"{CROWD} requests for one cold key: {loads} load{'s' * (loads > 1)}, {answered} answers"
    return Verdict(loads == 1 and answered == CROWD, loads, says)
