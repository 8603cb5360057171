"""Logins a second. Bcrypt dominates on purpose, so they are compared with bcrypt alone, one process a core."""

import os
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing import get_context

import bcrypt

from tests.bench.contenders import PASSWORD, ours
from tests.bench.jobs import LOGIN
from tests.bench.measure import OURS, QUICK, Figure, Size, interleaved
from tests.bench.service import folder

GROUP = "logins"
COST = 12  # as in production
ALONE = "bcrypt alone"
CLIENTS = 8
SECONDS = 3.0  # a few dozen logins


def figures(size: Size) -> Iterator[Figure]:
    """None in a quick run, because a core makes only four logins a second."""
    if size == QUICK:
        return
    with folder() as path, ours(path, bcrypt_rounds=COST) as server:
        loads = {
            OURS: lambda: server.load(LOGIN, CLIENTS, SECONDS).rate,
            ALONE: partial(checks_a_second, bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(COST))),
        }
        yield Figure(GROUP, f"logins/s, bcrypt {COST}", "/s", interleaved(loads, 3))


def checks_a_second(password_hash: bytes) -> float:
    cores = os.cpu_count() or 1
    with get_context("fork").Pool(cores) as pool:
        return sum(pool.map(_checks, [password_hash] * cores)) / SECONDS


def _checks(password_hash: bytes) -> int:
    end, done = time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        bcrypt.checkpw(PASSWORD.encode(), password_hash)
        done += 1
    return done
