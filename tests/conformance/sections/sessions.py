"""Sessions: refresh rotation, reuse, logout, and the list of one's logins."""

from tests.conformance.checks import check, expect, expect_data, expect_error, expect_reason
from tests.conformance.client import UNKNOWN_ID, Answer, Client, Person, times


def refresh(api: Client, token: str) -> Answer:
    return api.post("/auth/refresh", json_={"refreshToken": token})


def refreshed(api: Client, person: Person) -> Person:
    """The same login with the next pair of tokens."""
    pair = expect_data(refresh(api, person.refresh))
    return Person(person.id, person.email, pair["accessToken"], pair["refreshToken"])


@check
def a_refresh_gives_a_new_pair(api: Client) -> None:
    """A refresh token is exchanged for its successor and a new access token; both work."""
    old = api.log_in(api.ada.email)
    new = refreshed(api, old)
    expect("the successor is another token", True, new.refresh != old.refresh)
    expect_data(api.get("/users/me", new))
    refreshed(api, new)


@check
def twenty_refreshes_at_once(api: Client) -> None:
    """20 refreshes of one token at once: 20 × 200 with one and the same refresh token, and the login goes on."""
    answers = times(20, refresh, api, api.log_in(api.ada.email).refresh)
    expect("POST /auth/refresh, 20 at once", [200] * 20, [answer.status for answer in answers])
    [successor] = {answer.data["refreshToken"] for answer in answers} if _one(answers) else [""]
    expect("one successor for all", True, bool(successor))
    expect_data(refresh(api, successor))


def _one(answers: list[Answer]) -> bool:
    return len({answer.data["refreshToken"] for answer in answers}) == 1


@check
def a_lost_answer(api: Client) -> None:
    """Within the grace, and while the successor is unused, the very same successor is given again."""
    login = api.log_in(api.ada.email)
    expect("the successor", refreshed(api, login).refresh, refreshed(api, login).refresh)


@check
def reuse_revokes_the_login(api: Client) -> None:
    """A token that is presented again after its successor was used revokes the whole family, and it stays revoked
    although the answer is 401."""
    first = api.log_in(api.ada.email)
    third = refreshed(api, refreshed(api, first))
    expect_reason(refresh(api, first.refresh), "revoked")
    expect_reason(refresh(api, third.refresh), "revoked")
    expect_reason(api.get("/users/me", third), "revoked")
    expect_data(api.get("/users/me", api.ada))


@check
def another_spelling_revokes_nothing(api: Client) -> None:
    """A token that is not byte for byte one that was issued is `invalid` and revokes nothing."""
    login = api.log_in(api.ada.email)
    for token in (login.refresh + "=", login.refresh[:-1], f" {login.refresh}"):
        expect_reason(refresh(api, token), "invalid")
    refreshed(api, login)


@check
def logout_ends_the_login_at_once(api: Client) -> None:
    """Logout takes effect on the very next request, although access tokens are JWTs: 401 `revoked`."""
    login = api.log_in(api.ada.email)
    expect_data(api.post("/auth/logout", json_={"refreshToken": login.refresh}), 204)
    expect_reason(api.get("/users/me", login), "revoked")
    expect_reason(refresh(api, login.refresh), "revoked")
    expect_data(api.post("/auth/logout", json_={"refreshToken": login.refresh}), 204)


@check
def logout_with_a_used_token(api: Client) -> None:
    """Logout with a rotated token ends its login too; with one that cannot be verified, nothing happens."""
    login = api.log_in(api.ada.email)
    newer = refreshed(api, login)
    expect_data(api.post("/auth/logout", json_={"refreshToken": "no token"}), 204)
    expect_data(api.get("/users/me", newer))
    expect_data(api.post("/auth/logout", json_={"refreshToken": login.refresh}), 204)
    expect_reason(api.get("/users/me", newer), "revoked")


@check
def the_list_of_logins(api: Client) -> None:
    """GET `/auth/sessions` lists the caller's live logins, newest first, and marks the current one."""
    listed = expect_data(api.get("/auth/sessions", api.log_in(api.ada.email)))
    keys = {"id", "createdAt", "lastUsedAt", "userAgent", "ip", "current"}
    expect("the fields of a session", keys, set(listed[0]))
    expect("the current one", [True] + [False] * (len(listed) - 1), [session["current"] for session in listed])


@check
def one_login_ends(api: Client) -> None:
    """DELETE `/auth/sessions/{id}` ends that login alone. An ended session is 404, as is a foreign or an absent one."""
    login = api.log_in(api.grace.email)
    [current] = [each for each in expect_data(api.get("/auth/sessions", login)) if each["current"]]
    path = f"/auth/sessions/{current['id']}"
    expect_error(api.delete(path, api.ada), 404, "NOT_FOUND")
    expect_data(api.delete(path, api.grace), 204)
    expect_reason(api.get("/users/me", login), "revoked")
    expect_error(api.delete(path, api.grace), 404, "NOT_FOUND")
    expect_error(api.delete(f"/auth/sessions/{UNKNOWN_ID}", api.grace), 404, "NOT_FOUND")


@check
def all_logins_end(api: Client) -> None:
    """DELETE `/auth/sessions` ends all logins of the caller, and of no other user."""
    person = api.sign_up("Leaving")
    again = api.log_in(person.email)
    expect_data(api.delete("/auth/sessions", again), 204)
    for login in (person, again):
        expect_reason(api.get("/users/me", login), "revoked")
    expect_data(api.get("/users/me", api.ada))
