"""Where the worker runs a request.

To hand a request to a thread of the pool costs more than most reads: one user over HTTP takes 205 µs of CPU in the
pool, 117 µs on the loop's thread (an empty application on gthread: 142). But the loop serves all clients, so it runs
only handlers that take about a millisecond and wait for nothing: no write, no bcrypt, no scan. Handlers that run bcrypt
may wait ten seconds for their turn, so they have a pool of their own: in the common one, many logins would occupy all
threads. Probes have one too: they are answered although every other thread waits.

PostgreSQL is behind a network, so there every statement may wait, and no request runs on the loop.

Handlers are listed by name. A handler that is not listed runs in the pool, which is always right.
"""

import re
from enum import Enum

from backend.errors import AppError
from backend.production.wsgi import path_and_query, path_info
from backend.web.router import Router

INLINE = {
    "get_current_user", "get_user", "list_products", "get_product", "list_accounts", "get_account",
    "list_account_transactions", "get_transaction", "list_orders", "get_order",
}  # fmt: skip
PASSWORDS = {"create_user", "update_current_user", "update_user", "log_in", "change_password", "confirm_password_reset"}
PROBES = {"get_health", "get_readiness"}
# A query that may ask for more rows than the default of 20: 100 orders of 50 items take 30 ms. `%` may hide a `limit`.
MAYBE_LONG = re.compile(r"limit=(?!(1?\d|20)(&|\Z))|%")
MAX_PATH = 256  # characters; a longer path names no resource, even if each of its characters is written as %XX


class Lane(Enum):
    LOOP = "the thread of the worker's loop"
    POOL = "a thread of the pool"
    PASSWORDS = "a thread of the pool for bcrypt"
    PROBES = "a thread of the pool for probes"


def lane_of(router: Router, method: str, target: str, loop: Lane = Lane.LOOP) -> Lane:
    """The lane of a request; `loop` for those that the loop may run. Thread-safe.

    One that matches no route runs in the pool. The path is decoded as for the application: else a login sent to
    `/auth/%6Cogin` would hash in the pool.
    """
    path, query = path_and_query(target)
    if len(path) > MAX_PATH:
        return Lane.POOL
    try:
        handler = router.find(method, path_info(path))[0].route.handler.__name__
    except AppError:
        return Lane.POOL
    if handler in PASSWORDS:
        return Lane.PASSWORDS
    if handler in PROBES:
        return Lane.PROBES
    return loop if handler in INLINE and not MAYBE_LONG.search(query) else Lane.POOL
