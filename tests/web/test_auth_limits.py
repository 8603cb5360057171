"""The `auth` policy: a count for each address, of all attempts; two for each e-mail, of wrong passwords and resets."""

import os
import threading

import bcrypt
import pytest

from backend.settings import Limit
from tests.at_once import at_once
from tests.conftest import PASSWORD

HOUR, DAY = 3600, 86400
LOGIN = {"email": "ada@example.com", "password": "wrong"}
ROUTES = {
    "/auth/login": LOGIN,
    "/users": {"email": "ada@example.com", "password": PASSWORD, "name": "Ada"},
    "/auth/password-reset": {"email": "ada@example.com"},
    "/auth/password-reset/confirm": {"token": "none", "newPassword": PASSWORD},
    "/auth/password": {"currentPassword": "wrong", "newPassword": "another good one"},
}


@pytest.fixture
def limited(make_api):
    """An application that counts under `auth` only; within its window of an hour nothing comes back."""
    return lambda quota: make_api(rate_limit_auth=Limit(quota, HOUR))


def remaining(answer, policy="auth"):
    """What is left under a policy; None if that did not count."""
    parts = [part.split(";") for part in answer.headers.get("RateLimit", "").split(", ") if part]
    return {name.strip('"'): int(left.removeprefix("r=")) for name, left, _ in parts}.get(policy)


def log_in(api, email, address, password="wrong"):
    return api.post("/auth/login", json={"email": email, "password": password}, address=address)


def change(api, by, current, address, new="another good one"):
    return api.post("/auth/password", by, {"currentPassword": current, "newPassword": new}, address=address)


def change_email(api, by, path, address, email, current=None):
    sent = {"email": email} | ({"currentPassword": current} if current else {})
    return api.patch(path.format(id=by.id), by, sent, address=address)


def ask_reset(api, email, address):
    return api.post("/auth/password-reset", json={"email": email}, address=address)


def test_all_routes_that_check_a_password_or_mail_share_one_count_for_each_address(limited, ada):
    """Whatever the answer; another address has its own count."""
    api = limited(5)
    answers = [api.post(path, ada, body) for path, body in ROUTES.items()]
    assert [(answer.status_code, remaining(answer)) for answer in answers] == [
        (401, 4), (409, 3), (202, 2), (422, 1), (401, 0),
    ]  # fmt: skip
    for path, body in ROUTES.items():
        answer = api.post(path, ada, body)
        assert (answer.status_code, answer.json["error"]["code"]) == (429, "RATE_LIMITED")
        assert 1 <= int(answer.headers["Retry-After"]) <= HOUR / 5
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
def test_a_request_that_was_wrong_is_counted_too(limited, ada, path, rest, status):
    api, by = limited(1), None if "headers" in rest else ada
    assert api("POST", path, by, **rest).status_code == status
    assert api("POST", path, by, **rest).status_code == 429


def test_an_authenticated_request_is_counted_by_address_too(limited, ada, grace):
    """A token does not make guessing cheaper."""
    api = limited(2)
    assert [api.post("/auth/login", by, {**LOGIN, "email": f"x{n}@c.de"}).status_code
            for n, by in enumerate((ada, grace, None))] == [401, 401, 429]  # fmt: skip


def test_other_routes_are_not_under_it(limited, ada):
    """Refresh counts under `default` alone, and so does logout."""
    api = limited(1)
    api.post("/auth/login", json=LOGIN)
    for _ in range(3):
        pair = api.post("/auth/refresh", json={"refreshToken": ada.refresh})
        assert (pair.status_code, "RateLimit" in pair.headers) == (200, False)
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
def test_wrong_passwords_have_one_count_for_each_email_and_resets_another(limited, ada, email):
    """From any address, in upper or lower case; whether or not it is a user's."""
    api = limited(2)
    assert log_in(api, email, "198.51.100.1").status_code == 401
    assert ask_reset(api, email.upper(), "198.51.100.2").status_code == 202
    assert log_in(api, f" {email.title()} ", "198.51.100.3").status_code == 401
    assert ask_reset(api, f" {email.title()} ", "198.51.100.4").status_code == 202
    assert log_in(api, email.upper(), "198.51.100.5").status_code == 429
    assert ask_reset(api, email, "198.51.100.6").status_code == 429
    assert log_in(api, f"x{email}", "198.51.100.7").status_code == 401
    assert ask_reset(api, f"x{email}", "198.51.100.8").status_code == 202


def test_wrong_current_passwords_count_with_failed_logins(limited, ada):
    """A stolen access token guesses no faster than a stranger."""
    api = limited(3)
    assert change(api, ada, "wrong", "198.51.100.1").status_code == 401
    assert log_in(api, ada.email, "198.51.100.2").status_code == 401
    assert change(api, ada, "wrong", "198.51.100.3").status_code == 401
    assert change(api, ada, PASSWORD, "198.51.100.4").status_code == 429
    assert log_in(api, ada.email, "198.51.100.5").status_code == 429


@pytest.mark.parametrize("path", ["/users/me", "/users/{id}"])
def test_a_change_of_the_callers_email_is_counted_as_a_change_of_the_password(limited, ada, path):
    """By address, with or without the password; a wrong one counts with the failed logins, a right one does not."""
    api = limited(2)
    assert change_email(api, ada, path, "198.51.100.1", "Ada@example.com", PASSWORD).status_code == 200
    assert change_email(api, ada, path, "198.51.100.2", "Ada@example.com", "wrong").status_code == 200
    assert change_email(api, ada, path, "198.51.100.2", "x@example.com", "wrong").status_code == 401
    assert change_email(api, ada, path, "198.51.100.2", "x@example.com").status_code == 422
    assert change_email(api, ada, path, "198.51.100.2", "x@example.com", PASSWORD).status_code == 429
    assert log_in(api, ada.email, "198.51.100.3").status_code == 401
    assert change_email(api, ada, path, "198.51.100.4", "x@example.com", PASSWORD).status_code == 429


def test_other_changes_of_a_user_are_not_under_it(limited, admin, ada):
    """No password is checked for a name, an unchanged e-mail, or what an admin changes for another user."""
    api = limited(1)
    api.post("/auth/login", json=LOGIN)
    answers = [
        api.patch("/users/me", ada, {"name": "New", "email": ada.email, "currentPassword": "wrong"}),
        api.patch(f"/users/{ada.id}", admin, {"email": "new@example.com"}),
    ]
    assert [(answer.status_code, "RateLimit" in answer.headers) for answer in answers] == [(200, False)] * 2


def test_a_right_password_costs_an_email_nothing(limited, ada):
    """Nor does a new password that is refused."""
    api = limited(2)
    assert log_in(api, ada.email, "198.51.100.1").status_code == 401
    for n in range(2, 12):
        answer = log_in(api, ada.email, f"198.51.100.{n}", PASSWORD)
        assert (answer.status_code, remaining(answer)) == (200, 1)
    answers = [change(api, ada, PASSWORD, f"198.51.100.{n}", new=ada.email) for n in range(12, 22)]
    assert [(answer.status_code, remaining(answer)) for answer in answers] == [(422, 1)] * 10
    answer = change(api, ada, PASSWORD, "198.51.100.22")
    assert (answer.status_code, remaining(answer)) == (204, 1)
    assert log_in(api, ada.email, "198.51.100.23").status_code == 401
    assert log_in(api, ada.email, "198.51.100.24", "another good one").status_code == 429


def test_right_passwords_at_the_same_moment_all_pass(limited, ada):
    """Those that wait for their turn at bcrypt count nothing, and there are no more turns at a time than cores."""
    quota = os.cpu_count() + 2
    api = limited(quota)
    answers = at_once([lambda n=n: log_in(api, ada.email, f"198.51.100.{n}", PASSWORD) for n in range(4 * quota)])
    assert [answer.status_code for answer in answers] == [200] * (4 * quota)


def test_past_the_limit_an_attempt_is_refused_at_once_while_others_wait_for_bcrypt(limited, ada, monkeypatch):
    """It does not queue for bcrypt: while every core is busy, the answer is still 429."""
    api, checkpw, may_end = limited(1), bcrypt.checkpw, threading.Event()
    log_in(api, ada.email, "198.51.100.1")
    busy = threading.Semaphore(0)
    monkeypatch.setattr(bcrypt, "checkpw", lambda *given: (busy.release(), may_end.wait(30), checkpw(*given))[-1])

    def refused_meanwhile():
        for _ in range(os.cpu_count()):
            assert busy.acquire(timeout=30)
        answer = log_in(api, ada.email, "198.51.100.2")
        may_end.set()
        return answer

    others = [lambda n=n: log_in(api, f"x{n}@example.com", f"203.0.113.{n}") for n in range(os.cpu_count())]
    *answers, refused = at_once([*others, refused_meanwhile])
    assert [answer.status_code for answer in answers] == [401] * os.cpu_count()
    assert refused.status_code == 429


HOME, NEIGHBOUR, AWAY = "2001:db8:1:2::1", "2001:db8:1:2:3::4", "2001:db8:1:3::1"


def fill_by_strangers(api, email, quota):
    statuses = [log_in(api, email, f"198.51.100.{n}").status_code for n in range(quota + 1)]
    assert statuses == [401] * quota + [429]


def test_a_stranger_does_not_lock_the_owner_out(limited, ada):
    """Logins, changes of the password and resets still pass at an address that the user has logged in from."""
    api = limited(5)
    log_in(api, ada.email, HOME, PASSWORD)
    fill_by_strangers(api, ada.email, 5)
    assert log_in(api, ada.email, AWAY, PASSWORD).status_code == 429
    assert log_in(api, ada.email, HOME, PASSWORD).status_code == 200
    assert log_in(api, ada.email, NEIGHBOUR, PASSWORD).status_code == 200
    assert change(api, ada, PASSWORD, HOME).status_code == 204
    assert ask_reset(api, ada.email, AWAY).status_code == 202


def test_a_known_address_is_held_back_by_its_own_failures(limited, ada):
    """As many as any address may have; other addresses lose nothing by them."""
    api = limited(4)
    log_in(api, ada.email, HOME, PASSWORD)
    answers = [log_in(api, ada.email, address) for address in (HOME, NEIGHBOUR, HOME, NEIGHBOUR)]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 429]
    fill_by_strangers(api, ada.email, 4)


@pytest.mark.parametrize("address", [HOME, "203.0.113.9"])
def test_an_address_is_known_for_30_days_after_a_login(limited, ada, clock, address):
    """Also when that login has ended; a refresh is no login, and another user's address does not count."""
    api = limited(9)
    pair = log_in(api, ada.email, address, PASSWORD).json["data"]
    fill_by_strangers(api, ada.email, 9)
    fill_by_strangers(api, "grace@example.com", 9)
    assert log_in(api, "grace@example.com", address).status_code == 429
    for _ in range(4):
        clock.advance(6 * DAY)
        pair = api.post("/auth/refresh", json={"refreshToken": pair["refreshToken"]}, address=address).json["data"]
    api.post("/auth/logout", json={"refreshToken": pair["refreshToken"]}, address=address)
    clock.advance(6 * DAY - 60)
    assert log_in(api, ada.email, address).status_code == 401
    clock.advance(61)
    assert log_in(api, ada.email, address).status_code == 429


def test_sign_up_and_confirmation_have_no_count_of_an_email(limited, ada):
    """Otherwise one client could prevent another from signing up or completing a reset."""
    api = limited(1)
    ask_reset(api, "new@example.com", "198.51.100.1")
    assert ask_reset(api, "new@example.com", "198.51.100.2").status_code == 429
    sent = {"email": "new@example.com", "password": PASSWORD, "name": "New"}
    assert api.post("/users", json=sent, address="198.51.100.3").status_code == 201
    confirmation = {"token": "none", "newPassword": "another good one"}
    assert api.post("/auth/password-reset/confirm", json=confirmation, address="198.51.100.4").status_code == 422


def test_the_right_password_does_not_help_past_the_limit(limited, ada):
    """Otherwise the answer would confirm a guess."""
    api = limited(2)
    for n in range(2):
        log_in(api, ada.email, f"198.51.100.{n}")
    right = api.post("/auth/login", json={"email": ada.email, "password": PASSWORD}, address="198.51.100.9")
    assert right.status_code == 429
    assert "data" not in right.json


def test_of_the_two_counts_the_one_that_has_used_more_is_told(limited, ada):
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


@pytest.mark.parametrize("path", ["/auth/login", "/auth/password", "/auth/password-reset"])
def test_what_an_emails_count_refuses_costs_no_bcrypt_and_no_write(limited, api, ada, outsider, monkeypatch, path):
    """(No event is delivered meanwhile: that would be a write.)"""
    api.app.relay.stop()
    api, runs = limited(1), []
    api.app.relay.stop()
    log_in(api, ada.email, "198.51.100.1")
    ask_reset(api, ada.email, "198.51.100.3")
    real = bcrypt.checkpw
    monkeypatch.setattr(bcrypt, "checkpw", lambda *given: runs.append(given) or real(*given))
    before = outsider.version()
    assert api.post(path, ada, ROUTES[path], address="198.51.100.2").status_code == 429
    assert (runs, outsider.version()) == ([], before)
