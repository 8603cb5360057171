"""The cost of bcrypt: the same for every failed login, the current cost after the next login, none for other routes.

Tests that observe bcrypt or hold it back replace its own two functions.
"""

import os
import threading
from dataclasses import replace

import bcrypt
import pytest

from tests.at_once import at_once
from tests.conftest import PASSWORD, Api
from tests.meanwhile import meanwhile
from tests.wirings import make_app, passwords_class


@pytest.fixture
def runs(monkeypatch):
    """The cost of every bcrypt run from here on, in order."""
    seen = []
    checkpw, hashpw = bcrypt.checkpw, bcrypt.hashpw

    def counting(run):
        def counted(password, salt):
            seen.append(int(salt.split(b"$")[2]))
            return run(password, salt)

        return counted

    monkeypatch.setattr(bcrypt, "checkpw", counting(checkpw))
    monkeypatch.setattr(bcrypt, "hashpw", counting(hashpw))
    return seen


def log_in(api, email, password=PASSWORD):
    return api.post("/auth/login", json={"email": email, "password": password})


def stored_hash(api):
    with api.app.database.snapshot() as tx:
        ((hashed,),) = tx.rows("SELECT password_hash FROM users")
    return hashed


def test_every_failed_login_costs_one_run(api, admin, ada, runs):
    """For an unknown, wrong, deactivated or deleted user: one run of the current cost, so the time reveals nothing."""
    off, gone = api.sign_up("Off"), api.sign_up("Gone")
    api.patch(f"/users/{off.id}", admin, {"active": False})
    api.delete(f"/users/{gone.id}", admin)
    api.patch(f"/users/{gone.id}", admin, {"email": "back@example.com", "active": True})
    for email in ("nobody@example.com", ada.email, off.email, gone.email, "back@example.com"):
        runs.clear()
        assert log_in(api, email, "a wrong password").status_code == 401
        assert runs == [4], email


def test_after_a_change_of_the_cost_every_failed_login_does_the_same_work(make_api, ada, runs):
    """Whether or not the user has logged in since."""
    api = make_api(bcrypt_rounds=6)

    def work_of(email):
        runs.clear()
        assert log_in(api, email, "a wrong password").status_code == 401
        return sum(2**rounds for rounds in runs)

    work = [work_of("nobody@example.com"), work_of(ada.email)]
    assert log_in(api, ada.email).status_code == 200
    assert [*work, work_of(ada.email)] == [2**6] * 3


def test_an_invalid_request_costs_no_run(api, ada, runs):
    """Wrong fields, bad tokens and bad resets never reach bcrypt."""
    bad = {"Authorization": "Bearer x"}
    change = {"currentPassword": PASSWORD, "newPassword": "another good one"}
    answers = [
        api.post("/auth/login", json={"email": "nobody", "password": PASSWORD}),
        api.post("/auth/login", json={"email": ada.email, "password": PASSWORD}, headers=bad),
        api.post("/users", json={"email": ada.email, "password": "password1", "name": "N"}),
        api.post("/auth/password", ada, {"currentPassword": PASSWORD, "newPassword": "short"}),
        api.post("/auth/password", json=change, headers=bad),
        api.post("/auth/password-reset/confirm", json={"token": "x.00", "newPassword": PASSWORD}),
    ]
    assert [answer.status_code for answer in answers] == [422, 401, 422, 422, 401, 422]
    assert runs == []


@pytest.mark.parametrize("rounds", [5, 6])
def test_the_next_login_raises_a_hash_to_the_current_cost(api, make_api, ada, rounds):
    """Once. Other logins, also earlier ones, go on; a failed login changes nothing."""
    later = make_api(bcrypt_rounds=rounds)
    before = stored_hash(api)
    assert log_in(later, ada.email, "a wrong password").status_code == 401
    assert stored_hash(api) == before
    assert log_in(later, ada.email).status_code == 200
    after = stored_hash(api)
    assert after.startswith(f"$2b${rounds:02}$")
    assert log_in(later, ada.email).status_code == 200
    assert stored_hash(api) == after
    assert later.get("/users/me", ada).json["data"]["version"] == 1


def test_two_first_logins_at_a_new_cost_both_succeed(make_api, ada, monkeypatch):
    """Another worker stores its new hash of the same password while this one computes its own: no reason to refuse."""
    one, other = make_api(bcrypt_rounds=5), make_api(bcrypt_rounds=5)
    inner = []
    meanwhile(monkeypatch, lambda: inner.append(log_in(other, ada.email).status_code))
    assert log_in(one, ada.email).status_code == 200
    assert inner == [200]


def test_a_login_at_a_new_cost_does_not_disturb_a_password_change(make_api, ada, monkeypatch):
    """The current password stays valid while a login elsewhere hashes it anew; the change ends that login."""
    one, other = make_api(bcrypt_rounds=5), make_api(bcrypt_rounds=5)
    change = {"currentPassword": PASSWORD, "newPassword": "another good one"}
    inner = []
    meanwhile(monkeypatch, lambda: inner.append(other.log_in(ada.email)))
    assert one.post("/auth/password", ada, change).status_code == 204
    assert one.get("/users/me", inner[0]).status_code == 401
    assert log_in(one, ada.email, "another good one").status_code == 200


@pytest.fixture
def patient_api(settings, clock, wiring, no_wait_for_the_disk):
    """Its logins wait for their turn as long as a test needs, however busy the machine is."""
    passwords = passwords_class(wiring)(settings.bcrypt_rounds, os.cpu_count() or 1, timeout=60)
    app = make_app(replace(settings, busy_timeout_seconds=300), clock, wiring=wiring, passwords=passwords)
    yield Api(app)
    app.close()


def test_of_a_storm_of_logins_the_surplus_gets_503_at_once_and_other_requests_are_served(patient_api, ada, monkeypatch):
    """While bcrypt is held back, 64 logins wait and later ones get 503 with Retry-After; other requests go on."""
    checkpw, opened, done = bcrypt.checkpw, threading.Event(), threading.Semaphore(0)
    places = (os.cpu_count() or 1) + 64

    def held(password, hashed):
        opened.wait(60)
        return checkpw(password, hashed)

    def one():
        answer = log_in(patient_api, ada.email)
        done.release()
        return answer

    def the_rest():
        turned_away = [done.acquire(timeout=30) for _ in range(8)]
        refreshed = patient_api.post("/auth/refresh", json={"refreshToken": ada.refresh})
        seen = (patient_api.get("/users/me", ada), patient_api.get("/products"), refreshed)
        opened.set()
        return all(turned_away), [answer.status_code for answer in seen]

    monkeypatch.setattr(bcrypt, "checkpw", held)
    *answers, others = at_once([*[one] * (places + 8), the_rest])
    assert others == (True, [200, 200, 200])
    assert sorted(answer.status_code for answer in answers) == [200] * places + [503] * 8
    for answer in answers:
        if answer.status_code == 503:
            assert answer.json["error"]["code"] == "SERVICE_UNAVAILABLE"
            assert int(answer.headers["Retry-After"]) >= 1
