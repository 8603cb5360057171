"""The `auth` policy: one count an address over four routes, one an e-mail over login and reset."""

import sqlite3

import bcrypt
import pytest

from backend.settings import Limit
from tests.conftest import PASSWORD

HOUR = 3600
LOGIN = {"email": "ada@example.com", "password": "wrong"}
ROUTES = {
    "/auth/login": LOGIN,
    "/users": {"email": "ada@example.com", "password": PASSWORD, "name": "Ada"},
    "/auth/password-reset": {"email": "ada@example.com"},
    "/auth/password-reset/confirm": {"token": "none", "newPassword": PASSWORD},
}


@pytest.fixture
def limited(make_api):
    """An application that counts under `auth` only; a window of an hour, so that nothing comes back meanwhile."""
    return lambda quota: make_api(rate_limit_auth=Limit(quota, HOUR))


def remaining(answer, policy="auth"):
    """What is left under a policy; None if that did not count."""
    parts = [part.split(";") for part in answer.headers.get("RateLimit", "").split(", ") if part]
    return {name.strip('"'): int(left.removeprefix("r=")) for name, left, _ in parts}.get(policy)


def log_in(api, email, address):
    return api.post("/auth/login", json={"email": email, "password": "wrong"}, address=address)


def ask_reset(api, email, address):
    return api.post("/auth/password-reset", json={"email": email}, address=address)


def test_login_sign_up_and_both_reset_routes_share_one_count_an_address(limited, ada):
    """Whatever they answer; another address has its own."""
    api = limited(4)
    answers = [api.post(path, json=body) for path, body in ROUTES.items()]
    assert [(answer.status_code, remaining(answer)) for answer in answers] == [(401, 3), (409, 2), (202, 1), (422, 0)]
    for path, body in ROUTES.items():
        answer = api.post(path, json=body)
        assert (answer.status_code, answer.json["error"]["code"]) == (429, "RATE_LIMITED")
        assert 1 <= int(answer.headers["Retry-After"]) <= HOUR / 4
    assert api.post("/auth/login", json={**LOGIN, "email": "b@c.de"}, address="198.51.100.1").status_code == 401


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("rest", "status"),
    [
        ({"json": {}}, 422),
        ({"data": b"{", "content_type": "application/json"}, 400),
        ({"data": b"{}", "content_type": "text/plain"}, 415),
        ({"json": {}, "headers": {"Authorization": "Bearer x"}}, 401),
    ],
)
def test_a_request_that_was_wrong_is_counted_too(limited, path, rest, status):
    api = limited(1)
    assert api("POST", path, **rest).status_code == status
    assert api("POST", path, **rest).status_code == 429


def test_a_user_who_is_known_is_counted_by_address_here_all_the_same(limited, ada, grace):
    """A token does not make guessing cheaper."""
    api = limited(2)
    assert [api.post("/auth/login", by, {**LOGIN, "email": f"x{n}@c.de"}).status_code
            for n, by in enumerate((ada, grace, None))] == [401, 401, 429]  # fmt: skip


def test_other_routes_are_not_under_it(limited, ada):
    """Refresh counts under `default` alone, and so do logout and the change of a password."""
    api = limited(1)
    api.post("/auth/login", json=LOGIN)
    for _ in range(3):
        pair = api.post("/auth/refresh", json={"refreshToken": ada.refresh})
        assert (pair.status_code, "RateLimit" in pair.headers) == (200, False)
    change = {"currentPassword": "wrong", "newPassword": "another good one"}
    assert api.post("/auth/password", ada, change).status_code == 401
    assert api.post("/auth/logout", json={"refreshToken": "none"}).status_code == 204
    assert api.get("/users/me", ada).status_code == 200
    assert api("OPTIONS", "/auth/login").status_code == 204
    assert api.get("/auth/login").status_code == 405


def test_refresh_counts_under_default(make_api, ada):
    api = make_api(rate_limit_default=Limit(1, HOUR), rate_limit_auth=Limit(1, HOUR))
    answers = [api.post("/auth/refresh", json={"refreshToken": ada.refresh}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert [(remaining(answer, "default"), remaining(answer)) for answer in answers] == [(0, None)] * 2


@pytest.mark.parametrize("email", ["ada@example.com", "nobody@example.com"])
def test_login_and_reset_share_one_count_an_email(limited, ada, email):
    """From wherever they come, in whichever case it is written; whether or not the address is known."""
    api = limited(3)
    assert log_in(api, email, "198.51.100.1").status_code == 401
    assert ask_reset(api, email.upper(), "198.51.100.2").status_code == 202
    assert log_in(api, f" {email.title()} ", "198.51.100.3").status_code == 401
    assert log_in(api, email, "198.51.100.4").status_code == 429
    assert ask_reset(api, email.upper(), "198.51.100.5").status_code == 429
    assert log_in(api, f"x{email}", "198.51.100.6").status_code == 401


def test_sign_up_and_confirmation_have_no_count_of_an_email(limited, ada):
    """Else anybody could keep somebody from signing up, or a reset from being finished."""
    api = limited(1)
    ask_reset(api, "new@example.com", "198.51.100.1")
    assert ask_reset(api, "new@example.com", "198.51.100.2").status_code == 429
    sent = {"email": "new@example.com", "password": PASSWORD, "name": "New"}
    assert api.post("/users", json=sent, address="198.51.100.3").status_code == 201
    confirmation = {"token": "none", "newPassword": "another good one"}
    assert api.post("/auth/password-reset/confirm", json=confirmation, address="198.51.100.4").status_code == 422


def test_the_right_password_does_not_help_past_the_limit(limited, ada):
    """Else a guesser would learn which one it was."""
    api = limited(2)
    for n in range(2):
        log_in(api, ada.email, f"198.51.100.{n}")
    right = api.post("/auth/login", json={"email": ada.email, "password": PASSWORD}, address="198.51.100.9")
    assert right.status_code == 429
    assert "data" not in right.json


def test_of_the_two_counts_the_one_nearer_its_end_is_told(limited, ada):
    """First the address has been used more, then the e-mail."""
    api = limited(5)
    for n in range(3):
        log_in(api, f"other{n}@example.com", "198.51.100.1")
    assert remaining(log_in(api, ada.email, "198.51.100.1")) == 1  # the address: 4 of 5; the e-mail: 1 of 5
    for n in range(2, 4):
        log_in(api, ada.email, f"198.51.100.{n}")
    assert remaining(log_in(api, ada.email, "198.51.100.4")) == 1  # the e-mail: 4 of 5; the address: 1 of 5
    assert remaining(log_in(api, "fresh@example.com", "198.51.100.5")) == 4


def test_where_both_policies_count_both_are_listed(make_api, ada):
    """Also when one of them refuses."""
    api = make_api(rate_limit_default=Limit(300, 60), rate_limit_auth=Limit(1, HOUR))
    for status in (401, 429):
        answer = api.post("/auth/login", json=LOGIN)
        assert answer.status_code == status
        assert answer.headers.getlist("RateLimit-Policy") == [f'"default";q=300;w=60, "auth";q=1;w={HOUR}']
        assert remaining(answer, "auth") == 0
        assert remaining(answer, "default") in (298, 299)
    assert api.get("/products").headers.getlist("RateLimit-Policy") == ['"default";q=300;w=60']


def test_what_default_refuses_is_not_counted_under_auth(make_api):
    api = make_api(rate_limit_default=Limit(1, HOUR), rate_limit_auth=Limit(5, HOUR))
    answers = [api.post("/auth/login", json=LOGIN) for _ in range(3)]
    assert [(answer.status_code, remaining(answer)) for answer in answers] == [(401, 4), (429, None), (429, None)]


@pytest.mark.parametrize("path", ["/auth/login", "/auth/password-reset"])
def test_what_an_emails_count_refuses_costs_no_bcrypt_and_no_write(limited, api, ada, database_path, monkeypatch, path):
    """(No event is delivered meanwhile: that would be a write.)"""
    api.app.relay.stop()
    api, runs = limited(1), []
    api.app.relay.stop()
    log_in(api, ada.email, "198.51.100.1")
    real = bcrypt.checkpw
    monkeypatch.setattr(bcrypt, "checkpw", lambda *given: runs.append(given) or real(*given))
    outsider = sqlite3.connect(database_path)
    before = outsider.execute("PRAGMA data_version").fetchone()
    assert api.post(path, json=ROUTES[path], address="198.51.100.2").status_code == 429
    assert (runs, outsider.execute("PRAGMA data_version").fetchone()) == ([], before)
    outsider.close()
