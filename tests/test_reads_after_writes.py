"""No read is older than an answered write: every writing route × every route that reads, in one process.

An application without a cache on the same database says what each read must show.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from backend.repositories import products, users
from tests.conftest import Api
from tests.every_route import API, VALID, World, allowed_caller, send
from tests.meanwhile import before_the_commit, before_the_write

WRITES = sorted(key for key in VALID if not key.startswith("GET "))
READS = sorted(key for key in VALID if key.startswith(f"GET {API}/") and key != f"GET {API}/audit")  # rows come later
LOADS = {  # the function that each cached read loads by
    f"GET {API}/users/{{id}}": (users, "by_id"),
    f"GET {API}/products/{{id}}": (products, "by_id"),
    f"GET {API}/products": (products, "page"),
}


@pytest.fixture
def uncached(make_api) -> Api:
    return make_api(cache_size=0)


def read(api: Api, world: World, key: str) -> tuple[int, str | None, Any]:
    """Status, ETag and data that an admin gets."""
    answer = send(api, world, key, world.people["admin"])
    return answer.status_code, answer.headers.get("ETag"), answer.json.get("data")


def write(api: Api, world: World, key: str) -> None:
    """Make the valid request, as the caller with the fewest rights that it takes."""
    assert send(api, world, key, allowed_caller(world, key)).status_code < 300


class PausedLoad:
    """The next call of a repository's function: it reads, and returns only after `go_on` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, repository: Any, name: str) -> None:
        self.has_read, self.go_on = threading.Event(), threading.Event()
        load: Callable[..., Any] = getattr(repository, name)

        def paused(*arguments: Any) -> Any:
            monkeypatch.setattr(repository, name, load)  # later calls, the write's among them, do not pause
            value = load(*arguments)
            self.has_read.set()
            assert self.go_on.wait(30)
            return value

        monkeypatch.setattr(repository, name, paused)


@pytest.mark.parametrize("key", WRITES)
def test_every_read_after_an_answered_write_shows_it(api, uncached, world, key):
    for reading in READS:
        read(api, world, reading)
    write(api, world, key)
    for reading in READS:
        assert read(api, world, reading) == read(uncached, world, reading), reading


@pytest.mark.sqlite  # on PostgreSQL nothing is kept
@pytest.mark.parametrize("key", WRITES)
def test_a_load_that_a_write_overtook_is_not_kept(api, uncached, world, monkeypatch, key):
    """Each cached read loads before the write has the lock, and ends after the write was answered."""
    with ThreadPoolExecutor(len(LOADS)) as threads:
        loads, slow = [], []

        def begin_reads() -> None:
            api.app.cache.clear()  # the write has looked up its own resource through it
            for reading, function in LOADS.items():
                loads.append(PausedLoad(monkeypatch, *function))
                slow.append(threads.submit(read, api, world, reading))
                assert loads[-1].has_read.wait(30)

        before_the_write(monkeypatch, begin_reads)
        write(api, world, key)
        for load in loads:
            load.go_on.set()
        assert [future.result(30)[0] for future in slow] == [200] * len(LOADS)
    for reading in LOADS:
        assert read(api, world, reading) == read(uncached, world, reading), reading


@pytest.mark.sqlite  # on PostgreSQL nothing is kept
@pytest.mark.parametrize("key", WRITES)
def test_a_load_just_before_the_commit_is_not_kept(api, uncached, world, monkeypatch, key):
    """Each cached read begins and ends in an open write transaction: an invalidation before the commit is too early."""
    with ThreadPoolExecutor(1) as thread:

        def read_all() -> None:
            api.app.cache.clear()
            for reading in LOADS:
                assert thread.submit(read, api, world, reading).result(30)[0] == 200

        before_the_commit(monkeypatch, read_all)
        write(api, world, key)
    for reading in LOADS:
        assert read(api, world, reading) == read(uncached, world, reading), reading


@pytest.mark.parametrize("grant", ["grant_admin", "promote"])
def test_a_read_after_the_admin_role_was_given_without_a_request_shows_it(api, world, monkeypatch, grant):
    """By the services that the command line uses. Another read has loaded the user just before the commit."""
    stranger, admin = world.people["stranger"], world.people["admin"]
    before: list[list[str]] = []

    def roles() -> list[str]:
        return api.get(f"/users/{stranger.id}", admin).json["data"]["roles"]

    with ThreadPoolExecutor(1) as thread:
        before_the_commit(monkeypatch, lambda: before.append(thread.submit(roles).result(30)))
        if grant == "promote":
            api.app.users.promote(stranger.email)
        else:
            with api.app.database.transaction() as tx:
                api.app.users.grant_admin(tx, stranger.id)
    assert (before, roles()) == ([["user"]], ["admin", "user"])
