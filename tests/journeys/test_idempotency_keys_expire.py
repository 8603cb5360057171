"""Idempotency keys live 24 hours. A request deletes none: that is left to housekeeping."""

import hashlib
import time

import pytest

from tests.conftest import Clock

DAY = 24 * 3600
EURO = {"currency": "EUR"}


class Stopped(Clock):
    """A clock that moves only when a test moves it."""

    now = float(int(time.time()))

    def __call__(self) -> float:
        return self.now + self.ahead


@pytest.fixture
def clock() -> Stopped:
    return Stopped()


def stored(user_id, key):
    """What the database holds of a key."""
    return hashlib.sha256(f"{user_id} {key}".encode()).digest()


@pytest.fixture
def keys(api, ada):
    """Ada's stored keys by name. `keys(ada.id, old=20)` first adds as many expired ones, the oldest first."""
    names = {stored(ada.id, name): name for name in ["k", *(f"old-{n}" for n in range(2000))]}

    def keys(user_id="", old=0, created_at=0):
        with api.app.database.transaction() as tx:
            tx.run_each(
                "INSERT INTO idempotency_keys VALUES (:user, :key, :fingerprint, '{}', :at)",
                [{"user": user_id, "key": stored(user_id, f"old-{n}"), "fingerprint": b"f" * 32, "at": created_at + n}
                 for n in range(old)],
            )  # fmt: skip
            return [names[key] for (key,) in tx.rows("SELECT key FROM idempotency_keys ORDER BY created_at")]

    return keys


def open_account(api, person, key):
    answer = api.post("/accounts", person, EURO, key=key)
    assert answer.status_code == 201, answer.text
    return answer.json["data"]["id"], answer.headers.get("Idempotency-Replayed")


@pytest.mark.parametrize(("seconds", "replayed"), [(DAY - 0.001, True), (DAY, False)])
def test_a_key_of_exactly_24_hours_has_expired(api, ada, clock, seconds, replayed):
    """A millisecond earlier it is still valid."""
    first, _ = open_account(api, ada, "k")
    clock.advance(seconds)
    again, marked = open_account(api, api.log_in(ada.email), "k")
    assert (again == first, marked == "true") == (replayed, replayed)


def test_a_keyed_write_deletes_no_expired_key(api, ada, keys):
    keys(ada.id, old=20)
    open_account(api, ada, "k")
    assert keys() == [*(f"old-{n}" for n in range(20)), "k"]


def test_an_expired_key_is_overwritten_by_the_next_request(api, ada, keys, clock):
    """The request has its effect, and its answer is replayed."""
    keys(ada.id, old=20)
    first, _ = open_account(api, ada, "old-19")
    assert open_account(api, ada, "old-19") == (first, "true")
    assert keys() == [f"old-{n}" for n in range(20)]
    answer = api.post("/accounts", ada, {"currency": "USD"}, key="old-19")
    assert (answer.status_code, answer.json["error"]["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
