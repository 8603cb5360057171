"""Threads that hash passwords serve no other requests, so they wait for the database for the whole busy time-out."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from backend.production.lanes import Lane, lane_of
from tests.conftest import PASSWORD
from tests.mailbox import Mailbox
from tests.meanwhile import meanwhile
from tests.waiting import wait_until, write_lock_held

NEW = "the password of tomorrow"


@pytest.fixture
def wiring() -> str:
    return "production"


@pytest.mark.parametrize("act", ["login", "sign-up", "change", "reset", "e-mail"])
def test_a_request_that_has_hashed_a_password_waits_for_the_whole_busy_time_out(
    make_api, ada, database_path, monkeypatch, act
):
    """It runs on a dedicated thread. Of three other writers, at least one is refused after a tenth of the time-out."""
    api, hashed = make_api(threads=2, busy_timeout_seconds=20), threading.Event()
    token = Mailbox(database_path.parent / "outbox").reset_token(api, ada.email)
    method, path, caller, body = {
        "login": ("POST", "/auth/login", None, {"email": ada.email, "password": PASSWORD}),
        "sign-up": ("POST", "/users", None, {"email": "m@example.com", "password": NEW, "name": "Mary"}),
        "change": ("POST", "/auth/password", ada, {"currentPassword": PASSWORD, "newPassword": NEW}),
        "reset": ("POST", "/auth/password-reset/confirm", None, {"token": token, "newPassword": NEW}),
        "e-mail": ("PATCH", "/users/me", ada, {"email": "new@example.com", "currentPassword": PASSWORD}),
    }[act]
    assert lane_of(api.app.router, method, f"/api/v1{path}") is Lane.PASSWORDS
    meanwhile(monkeypatch, hashed.set, "checkpw" if act in ("login", "e-mail") else "hashpw")

    def write():
        return api.post("/accounts", ada, {"currency": "EUR"}).status_code

    hashing = ThreadPoolExecutor(1, initializer=api.app.database.dedicate_thread)
    with hashing, ThreadPoolExecutor(3) as pool, write_lock_held(database_path):
        writes = [pool.submit(write) for _ in range(3)]
        wait_until(lambda: any(one.done() for one in writes))
        acting = hashing.submit(api, method, path, caller, json=body)
        assert hashed.wait(30)
        assert write() == 503
        assert not acting.done()
    assert acting.result().status_code in (200, 201, 204)
    assert {one.result() for one in writes} >= {503}
