"""Refresh tokens: each works once, a lost answer can be requested again, reuse ends the whole login."""

import jwt
import pytest

from tests.answers import reason
from tests.at_once import at_once
from tests.respelt import respelt, signed_anew
from tests.waiting import wait_until

DAY = 86_400
GRACE = 10


def refresh(api, token):
    return api.post("/auth/refresh", json={"refreshToken": token})


def pair_of(answer):
    assert answer.status_code == 200, answer.text
    return answer.json["data"]


def rotate(api, token):
    """The successor of a refresh token."""
    return pair_of(refresh(api, token))["refreshToken"]


def claims_of(token):
    return jwt.decode(token, options={"verify_signature": False})


def profile(api, access):
    return api.get("/users/me", headers={"Authorization": f"Bearer {access}"})


def test_a_refresh_gives_a_new_pair_of_the_same_login(api, ada):
    """New tokens of the same session and user with the same lifetimes; the former access token stays valid."""
    pair = pair_of(refresh(api, ada.refresh))
    assert pair.keys() == {"accessToken", "refreshToken", "tokenType", "expiresIn"}
    old, new = claims_of(ada.refresh), claims_of(pair["refreshToken"])
    assert new["jti"] != old["jti"] and (new["sid"], new["sub"]) == (old["sid"], old["sub"])
    assert new["exp"] - new["iat"] == 7 * DAY
    assert claims_of(pair["accessToken"])["sid"] == old["sid"]
    assert profile(api, pair["accessToken"]).json["data"]["id"] == profile(api, ada.access).json["data"]["id"] == ada.id


def test_a_chain_of_refreshes_never_gives_a_token_twice(api, ada):
    """Not even within one second, when the times in the tokens are equal."""
    tokens = [ada.refresh]
    for _ in range(10):
        tokens.append(rotate(api, tokens[-1]))
    assert len(set(tokens)) == 11


def test_a_refreshed_access_token_has_the_newest_roles_and_address(api, admin, ada):
    api.patch(f"/users/{ada.id}", admin, {"roles": ["admin"], "email": "new@example.com"})
    claims = claims_of(pair_of(refresh(api, ada.refresh))["accessToken"])
    assert (claims["roles"], claims["email"]) == (["admin"], "new@example.com")


@pytest.mark.parametrize("wait", [0, GRACE - 1])
def test_within_the_grace_the_very_same_successor_is_given_again(api, ada, clock, wait):
    """With a new access token each time. All of them are valid, and the successor works."""
    first = pair_of(refresh(api, ada.refresh))
    clock.advance(wait)
    again = pair_of(refresh(api, ada.refresh))
    assert again["refreshToken"] == first["refreshToken"]
    assert again["accessToken"] != first["accessToken"]
    assert profile(api, again["accessToken"]).status_code == profile(api, first["accessToken"]).status_code == 200
    assert rotate(api, again["refreshToken"])


def test_the_grace_is_a_setting(make_api, clock):
    api = make_api(refresh_grace_seconds=100)
    ada = api.sign_up("Ada")
    successor = rotate(api, ada.refresh)
    clock.advance(99)
    assert rotate(api, ada.refresh) == successor
    clock.advance(2)
    assert reason(refresh(api, ada.refresh)) == "revoked"


def test_after_the_grace_a_used_token_ends_the_login_for_good(make_api, ada, clock):
    """401, and in spite of the 401 the family is revoked: newest refresh token and access tokens, on all workers."""
    api, other = make_api(), make_api()
    pair = pair_of(refresh(api, ada.refresh))
    newest = pair_of(refresh(api, pair["refreshToken"]))
    clock.advance(GRACE + 1)
    assert reason(refresh(api, ada.refresh)) == "revoked"
    for worker in (api, other):
        for token in (newest["refreshToken"], pair["refreshToken"], ada.refresh):
            assert reason(refresh(worker, token)) == "revoked"
        for token in (newest["accessToken"], ada.access):
            assert reason(profile(worker, token)) == "revoked"


def test_reuse_ends_only_that_login(api, ada, grace, clock):
    """Ada's other login goes on and does not list the ended one."""
    device = api.log_in(ada.email)
    rotate(api, ada.refresh)
    clock.advance(GRACE + 1)
    assert reason(refresh(api, ada.refresh)) == "revoked"
    assert [session["current"] for session in api.get("/auth/sessions", device).json["data"]] == [True]
    assert rotate(api, device.refresh) and rotate(api, grace.refresh)


@pytest.mark.parametrize("generations", [2, 3, 5])
def test_a_token_whose_successor_was_used_is_reuse_even_within_the_grace(api, ada, generations):
    """Grandparents and older: 401 at once, and the family is revoked."""
    newest = ada.refresh
    for _ in range(generations):
        newest = rotate(api, newest)
    assert reason(refresh(api, ada.refresh)) == "revoked"
    assert reason(refresh(api, newest)) == "revoked"


@pytest.mark.parametrize("workers", [1, 2])
def test_many_refreshes_at_once_get_one_and_the_same_successor(make_api, workers):
    """20 threads over one or two applications: 20 × 200, one refresh token that works, 20 valid access tokens."""
    apis = [make_api() for _ in range(workers)]
    ada = apis[0].sign_up("Ada")
    answers = at_once([lambda api=api: refresh(api, ada.refresh) for api in apis * (20 // workers)])
    pairs = [pair_of(answer) for answer in answers]
    assert len({pair["refreshToken"] for pair in pairs}) == 1
    assert len({pair["accessToken"] for pair in pairs}) == 20
    assert all(profile(apis[0], pair["accessToken"]).status_code == 200 for pair in pairs)
    assert len(apis[0].get("/auth/sessions", ada).json["data"]) == 1
    assert rotate(apis[-1], pairs[0]["refreshToken"])


def test_two_generations_at_once_make_no_second_family(api, ada):
    """A token and its successor at the same moment: whatever is answered, at most one chain goes on."""
    child = rotate(api, ada.refresh)
    answers = at_once([lambda token=token: refresh(api, token) for token in (ada.refresh, child) * 4])
    given = {answer.json["data"]["refreshToken"] for answer in answers if answer.status_code == 200}
    alive = [token for token in given - {child} if refresh(api, token).status_code == 200]
    assert len(given - {child}) <= 1 and len(alive) <= 1
    assert all(reason(answer) == "revoked" for answer in answers if answer.status_code != 200)


def test_a_refresh_that_races_a_logout_leaves_no_valid_token(api, ada):
    answers = at_once(
        [lambda: api.post("/auth/logout", json={"refreshToken": ada.refresh}), lambda: refresh(api, ada.refresh)]
    )
    assert answers[0].status_code == 204
    if answers[1].status_code == 200:
        pair = answers[1].json["data"]
        assert reason(refresh(api, pair["refreshToken"])) == reason(profile(api, pair["accessToken"])) == "revoked"


def test_a_login_lives_30_days_at_most_however_often_refreshed(api, ada, clock):
    """Towards the end tokens get shorter lives; afterwards none of them works."""
    end = claims_of(ada.refresh)["iat"] + 30 * DAY
    token = ada.refresh
    for _ in range(5):
        clock.advance(6 * DAY - 60)
        token = rotate(api, token)
        assert claims_of(token)["exp"] <= end
    assert claims_of(token)["exp"] == end
    clock.advance(4 * 60)  # one minute is left
    last = pair_of(refresh(api, token))
    assert profile(api, last["accessToken"]).status_code == 200
    clock.advance(61)
    assert reason(refresh(api, last["refreshToken"])) in ("expired", "revoked")
    assert reason(profile(api, last["accessToken"])) in ("expired", "revoked")


def test_a_login_that_is_not_refreshed_for_7_days_is_over(api, ada, clock):
    token = rotate(api, ada.refresh)
    clock.advance(7 * DAY - 2)
    token = rotate(api, token)
    clock.advance(7 * DAY)
    assert reason(refresh(api, token)) == "expired"


@pytest.mark.parametrize("used", [False, True], ids=["unused", "used"])
def test_a_token_that_is_not_byte_for_byte_one_that_was_issued_revokes_nothing(api, ada, clock, used):
    """401 `invalid`, also if its signature is good, and also after the grace of the token that it resembles."""
    while "K" not in ada.refresh:
        ada = api.log_in(ada.email)
    newest = rotate(api, ada.refresh) if used else ada.refresh
    clock.advance(GRACE + 1)
    kelvin = ada.refresh.replace("K", "\N{KELVIN SIGN}")  # equal once it is NFC-normalised
    others = [kelvin, *respelt(ada.refresh), signed_anew(ada.refresh), signed_anew(ada.refresh, jti="0" * 64)]
    assert [reason(refresh(api, token)) for token in others] == ["invalid"] * len(others)
    assert rotate(api, newest)


def test_a_token_like_one_of_a_dead_login_is_invalid_too(api, ada):
    """The answer does not reveal what it resembles."""
    api.post("/auth/logout", json={"refreshToken": ada.refresh})
    assert [reason(refresh(api, token)) for token in (f"{ada.refresh}=", signed_anew(ada.refresh))] == ["invalid"] * 2
    assert reason(refresh(api, ada.refresh)) == "revoked"


def test_a_logout_with_a_token_that_was_not_issued_ends_nothing(api, ada):
    for token in (signed_anew(ada.refresh), signed_anew(ada.refresh, jti="0" * 64)):
        assert api.post("/auth/logout", json={"refreshToken": token}).status_code == 204
    assert rotate(api, ada.refresh)


def test_a_repetition_within_the_grace_is_in_the_audit_log(api, admin, ada):
    """The first use is not. Each repetition is a row with session and user."""
    for _ in range(3):
        rotate(api, ada.refresh)

    def repeated():
        return api.get("/audit?action=session.refresh_repeated", admin).json["data"]

    wait_until(lambda: len(repeated()) == 2)
    about = [(row["resourceType"], row["resourceId"], row["userId"]) for row in repeated()]
    assert about == [("session", claims_of(ada.refresh)["sid"], ada.id)] * 2


def test_a_token_that_is_no_refresh_token_of_this_service_is_invalid_and_ends_nothing(api, ada):
    """401 for an access token, a forged one, garbage."""
    head, body, signature = ada.refresh.split(".")
    for token in (ada.access, f"{head}.{body}.{signature[::-1]}", f"{head}.{body}.", "garbage", "ü" * 100):
        assert reason(refresh(api, token)) == "invalid"
    assert rotate(api, ada.refresh)


@pytest.mark.parametrize("token", [None, 7, "", "x" * 4097, ["a"]])
def test_a_refresh_token_is_a_string_of_valid_length(api, token):
    answer = refresh(api, token)
    assert (answer.status_code, answer.json["error"]["details"].keys()) == (422, {"refreshToken"})


def test_a_refresh_needs_no_access_token_but_refuses_a_bad_one(api, ada, clock):
    """An expired access token is 401 on this public route too; without one the refresh succeeds."""
    clock.advance(901)
    answer = api.post("/auth/refresh", ada, {"refreshToken": ada.refresh})
    assert reason(answer) == "expired"
    assert rotate(api, ada.refresh)
