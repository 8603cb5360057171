"""Logging in, the list of logins, ending them."""

from datetime import UTC, datetime

import jwt
import pytest

from backend.infrastructure.ids import is_id, new_id
from tests.answers import reason
from tests.conftest import PASSWORD
from tests.meanwhile import meanwhile
from tests.respelt import respelt

HOUR, WEEK = 3600, 7 * 86_400
COLUMNS = "user_id, token_version, user_agent, ip, network, created_at, last_used_at, expires_at, ended_at"
SESSION_FIELDS = {"id", "createdAt", "lastUsedAt", "userAgent", "ip", "current"}


def log_in(api, email, password=PASSWORD, **rest):
    return api.post("/auth/login", json={"email": email, "password": password}, **rest)


def claims_of(token):
    return jwt.decode(token, options={"verify_signature": False})


def sessions_of(api, person):
    return api.get("/auth/sessions", person).json["data"]


def log_out(api, token):
    """Log out with a refresh token and nothing else; always 204."""
    answer = api.post("/auth/logout", json={"refreshToken": token})
    assert (answer.status_code, answer.data) == (204, b"")


def test_a_login_gives_a_pair_of_tokens(api, ada):
    """An access token for 15 minutes with every claim, and a refresh token for 7 days, of one session."""
    answer = log_in(api, "ADA@Example.com")
    pair = answer.json["data"]
    assert answer.status_code == 200 and answer.headers["Cache-Control"] == "no-store"
    assert pair.keys() == {"accessToken", "refreshToken", "tokenType", "expiresIn"}
    assert (pair["tokenType"], pair["expiresIn"]) == ("Bearer", 900)
    access, refresh = claims_of(pair["accessToken"]), claims_of(pair["refreshToken"])
    names = {"sub", "email", "roles", "type", "ver", "sid", "iss", "aud", "iat", "exp", "jti"}
    assert access.keys() == names
    expected = {"sub": ada.id, "email": ada.email, "roles": ["user"], "type": "access", "sid": refresh["sid"]}
    assert {name: access[name] for name in expected} == expected
    assert (refresh["type"], refresh["sub"], access["exp"] - access["iat"]) == ("refresh", ada.id, 900)
    assert refresh["exp"] - refresh["iat"] == WEEK
    for token in (pair["accessToken"], pair["refreshToken"]):
        header = jwt.get_unverified_header(token)
        assert header["alg"] == "HS256" and header["kid"]


def test_every_failed_login_gets_the_same_answer(api, admin, ada, grace):
    """401 `credentials` with the same body and headers, even for the right password of a deactivated user."""
    api.sign_up("Gone")
    api.patch(f"/users/{grace.id}", admin, {"active": False})
    api.delete(f"/users/{api.log_in('gone@example.com').id}", admin)
    tries = [
        log_in(api, "nobody@example.com"), log_in(api, ada.email, "a wrong password"), log_in(api, ada.email, "x"),
        log_in(api, grace.email), log_in(api, "gone@example.com"),
    ]  # fmt: skip
    assert [reason(answer) for answer in tries] == ["credentials"] * 5
    for answer in tries[1:]:
        assert answer.json["error"] == tries[0].json["error"]
        mine, first = ({**one.headers, "X-Request-ID": ""} for one in (answer, tries[0]))
        assert mine == first
    assert tries[0].headers["WWW-Authenticate"].startswith("Bearer")


def test_a_failed_login_is_one_line_with_user_and_client_and_no_row(api, admin, ada, grace, outsider, caplog):
    """For an unknown e-mail, a wrong password and a deactivated user, without what was typed.

    A successful login logs no warning.
    """
    api.patch(f"/users/{grace.id}", admin, {"active": False})
    api.app.relay.stop()  # to deliver an event is a write
    before = outsider.version()
    for email, password, user in [
        ("Nobody@example.com", "typed here", "unknown"),
        (ada.email.upper(), "typed here", ada.id),
        (grace.email, PASSWORD, grace.id),
    ]:
        caplog.clear()
        assert log_in(api, email, password, address="2001:db8::7").status_code == 401
        (record,) = caplog.records
        assert (record.levelname, record.name) == ("WARNING", "backend.services.logins")
        assert record.getMessage() == f"failed login: user {user}, client 2001:db8::7"
    assert outsider.version() == before
    caplog.clear()
    assert log_in(api, ada.email).status_code == 200
    assert caplog.records == []


def test_a_login_of_a_user_who_is_deactivated_meanwhile_fails(api, admin, ada, monkeypatch, caplog):
    meanwhile(monkeypatch, lambda: api.patch(f"/users/{ada.id}", admin, {"active": False}))
    assert log_in(api, ada.email, address="192.0.2.7").status_code == 401
    assert f"failed login: user {ada.id}, client 192.0.2.7" in caplog.messages


BODIES = ["login", "refresh", "logout", "password-reset", "password-reset/confirm", "password"]


@pytest.mark.parametrize("path", BODIES)
def test_a_body_is_read_strictly(api, ada, path):
    """415 for another type, 400 for what is no JSON, 422 for no object, naming each unknown or missing field."""

    def code(**body):
        answer = api.post(f"/auth/{path}", ada if path == "password" else None, **body)
        return answer.status_code, answer.json["error"]["code"], answer.json["error"].get("details", {})

    assert code(data="a=b", content_type="application/x-www-form-urlencoded")[:2] == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert code(data="{", content_type="application/json")[:2] == (400, "MALFORMED_JSON")
    assert code(json=[])[:2] == (422, "VALIDATION_ERROR")
    status, _, details = code(json={"other": 1})
    assert status == 422 and details["other"] == "unknown field"
    missing = {name for name, problem in details.items() if problem == "is required"}
    assert missing == {
        "login": {"email", "password"}, "refresh": {"refreshToken"}, "logout": {"refreshToken"},
        "password-reset": {"email"}, "password-reset/confirm": {"token", "newPassword"},
        "password": {"currentPassword", "newPassword"},
    }[path]  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_sessions_are_for_users(api, method):
    assert reason(api(method, "/auth/sessions")) == "missing"
    assert reason(api("DELETE", f"/auth/sessions/{new_id()}")) == "missing"


def test_each_login_is_a_session_newest_first(api, ada, grace, clock):
    """With all fields, and no sessions of other users; `current` marks the one that makes the request."""
    clock.advance(60)
    log_in(api, ada.email, address="192.0.2.7", headers={"User-Agent": "Browser/1.0 (été)"})
    second, first = sessions_of(api, ada)
    assert second.keys() == SESSION_FIELDS and is_id(second["id"])
    assert first["id"] == claims_of(ada.access)["sid"]
    assert (first["current"], second["current"]) == (True, False)
    assert second["ip"] == "192.0.2.7" and second["userAgent"].startswith("Browser/1.0")
    assert second["createdAt"] > first["createdAt"]


@pytest.mark.parametrize("length", [0, 200, 201, 5000])
def test_a_user_agent_is_cut_to_200_characters(api, ada, length):
    log_in(api, ada.email, headers={"User-Agent": "u" * length})
    assert sessions_of(api, ada)[0]["userAgent"] == "u" * min(length, 200)


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("Browser/1.0 (été, 日本, 🦊)".encode(), "Browser/1.0 (été, 日本, 🦊)"),
        ("Browser/1.0 (été)".encode("latin-1"), "Browser/1.0 (été)"),
        (b"\xc3\xa9 \xe9", "Ã© é"),  # not UTF-8 as a whole
        ("\u0085tab\t, delete\x7f, next line\u0085".encode(), "tab, delete, next line"),
        (b"latin \x85\xff", "latin ÿ"),
        (b"\xed\xa0\x80", "í\xa0"),  # half a pair of surrogates is no UTF-8
        ("é".encode() * 201, "é" * 200),
        (b"\t" * 300 + b"x" * 201, "x" * 200),
    ],
)
def test_a_user_agent_is_read_as_utf_8_or_else_as_latin_1(api, ada, sent, shown):
    """Without control characters, and cut in characters, not bytes. WSGI hands on bytes as Latin-1 (PEP 3333)."""
    log_in(api, ada.email, headers={"User-Agent": sent.decode("latin-1")})
    assert sessions_of(api, ada)[0]["userAgent"] == shown


def hour_of(clock):
    """The present hour, as the API writes times."""
    return datetime.fromtimestamp(clock(), UTC).strftime("%Y-%m-%dT%H:00:00.000Z")


def to_the_next_hour(clock, seconds=0):
    clock.advance(HOUR - clock() % HOUR + seconds)


def test_a_refresh_is_the_last_use_of_its_session_to_the_hour(make_api, clock):
    """As another login of the user sees it."""
    api = make_api(access_token_seconds=WEEK)
    to_the_next_hour(clock)
    ada = api.sign_up("Ada")
    other = api.log_in(ada.email)
    before = sessions_of(api, other)[1]
    assert before["lastUsedAt"] == hour_of(clock)
    to_the_next_hour(clock, 60)
    assert sessions_of(api, other)[1] == before
    api.post("/auth/refresh", json={"refreshToken": ada.refresh})
    after = sessions_of(api, other)[1]
    assert after["lastUsedAt"] == hour_of(clock) > before["lastUsedAt"]
    assert after == {**before, "lastUsedAt": after["lastUsedAt"]}


TOLD = ["/auth/sessions", "/users/me", "/users/{ada}"]  # what a stolen access token can ask about its login and user


@pytest.mark.parametrize("since", [0, 1, 4000])
def test_nothing_that_an_access_token_can_read_tells_when_its_refresh_token_was_used(make_api, clock, since):
    """Data and headers are the same right before and right after a refresh, also after the first one in an hour."""
    api = make_api(access_token_seconds=WEEK)
    ada = api.sign_up("Ada")
    to_the_next_hour(clock, since)

    def readable():
        answers = [api.get(path.format(ada=ada.id), ada) for path in TOLD]
        own = {"X-Request-ID"}
        return [(one.json["data"], [each for each in one.headers if each[0] not in own]) for one in answers]

    before = readable()
    assert api.post("/auth/refresh", json={"refreshToken": ada.refresh}).status_code == 200
    assert readable() == before


def test_a_second_refresh_in_an_hour_shows_in_no_login(make_api, clock):
    api = make_api(access_token_seconds=WEEK)
    ada = api.sign_up("Ada")
    other = api.log_in(ada.email)
    to_the_next_hour(clock)
    first = api.post("/auth/refresh", json={"refreshToken": ada.refresh}).json["data"]
    before = sessions_of(api, other)
    clock.advance(600)
    api.post("/auth/refresh", json={"refreshToken": first["refreshToken"]})
    assert sessions_of(api, other) == before


def test_expired_sessions_are_neither_listed_nor_ended(api, ada, clock):
    """A login that is not refreshed for 7 days is not in the list, and 404 to end."""
    old = sessions_of(api, ada)[0]["id"]
    clock.advance(WEEK + 1)
    now = api.log_in(ada.email)
    assert [session["current"] for session in sessions_of(api, now)] == [True]
    assert api.delete(f"/auth/sessions/{old}", now).status_code == 404


def test_a_user_ends_one_login(api, ada):
    """204; its tokens stop working at once, the others do not; the second time it is 404."""
    other = api.log_in(ada.email)
    path = f"/auth/sessions/{claims_of(other.access)['sid']}"
    answer = api.delete(path, ada)
    assert (answer.status_code, answer.data) == (204, b"")
    assert reason(api.get("/users/me", other)) == "revoked"
    assert reason(api.post("/auth/refresh", json={"refreshToken": other.refresh})) == "revoked"
    assert [session["current"] for session in sessions_of(api, ada)] == [True]
    assert api.delete(path, ada).status_code == 404


def test_a_user_ends_the_current_login(api, ada):
    assert api.delete(f"/auth/sessions/{claims_of(ada.access)['sid']}", ada).status_code == 204
    assert reason(api.get("/auth/sessions", ada)) == "revoked"


def test_logins_of_others_are_not_found(api, admin, ada, grace):
    """404 and no effect, for an admin too."""
    theirs = claims_of(grace.access)["sid"]
    for by in (ada, admin):
        for session_id in (theirs, new_id(), "not-an-id", theirs.upper()):
            answer = api.delete(f"/auth/sessions/{session_id}", by)
            assert (answer.status_code, answer.json["error"]["code"]) == (404, "NOT_FOUND")
    assert api.get("/users/me", grace).status_code == 200


def test_a_user_ends_all_logins(api, ada, grace):
    """204; the current one as well, and none of other users."""
    other = api.log_in(ada.email)
    assert api.delete("/auth/sessions", ada).status_code == 204
    for person in (ada, other):
        assert reason(api.get("/users/me", person)) == "revoked"
        assert reason(api.post("/auth/refresh", json={"refreshToken": person.refresh})) == "revoked"
    assert api.get("/users/me", grace).status_code == 200
    assert len(sessions_of(api, api.log_in(ada.email))) == 1


def test_a_logout_ends_only_its_login(api, ada):
    """Access and refresh token stop working at once; a second logout is 204 as well."""
    other = api.log_in(ada.email)
    log_out(api, ada.refresh)
    assert reason(api.get("/users/me", ada)) == "revoked"
    assert reason(api.post("/auth/refresh", json={"refreshToken": ada.refresh})) == "revoked"
    log_out(api, ada.refresh)
    assert len(sessions_of(api, other)) == 1


def test_a_logout_with_a_rotated_token_ends_its_login_too(api, ada, clock):
    """Within the grace and after it."""
    for wait in (0, 60):
        person = api.log_in(ada.email)
        pair = api.post("/auth/refresh", json={"refreshToken": person.refresh}).json["data"]
        clock.advance(wait)
        log_out(api, person.refresh)
        assert reason(api.post("/auth/refresh", json={"refreshToken": pair["refreshToken"]})) == "revoked"


def test_a_logout_with_a_token_that_cannot_be_verified_does_nothing(api, ada, clock):
    """204 for an access token, a forged one, one of other secrets, garbage, another encoding of the token."""
    head, body, signature = ada.refresh.split(".")
    forged = f"{head}.{body}.{signature[::-1]}"
    foreign = jwt.encode(claims_of(ada.refresh), "another secret of more than 32 bytes", headers={"kid": "x"})
    for token in (ada.access, forged, foreign, "garbage", "ü", ".", *respelt(ada.refresh)):
        log_out(api, token)
    assert api.get("/users/me", ada).status_code == 200


def test_a_logout_with_a_dead_token_is_a_success(api, admin, ada, grace, clock):
    """204 after the login was ended, after its user was deleted, and after the token expired."""
    api.delete("/auth/sessions", ada)
    api.delete(f"/users/{grace.id}", admin)
    log_out(api, ada.refresh)
    log_out(api, grace.refresh)
    clock.advance(WEEK + 1)
    log_out(api, admin.refresh)


def test_a_login_ends_once(api, ada, grace):
    """However often it is logged out and with any of its tokens, there is one event."""
    newer = api.post("/auth/refresh", json={"refreshToken": ada.refresh}).json["data"]["refreshToken"]
    for token in (ada.refresh, newer, ada.refresh):
        assert api.post("/auth/logout", json={"refreshToken": token}).status_code == 204
    with api.app.database.snapshot() as tx:
        assert tx.rows("SELECT user_id FROM outbox WHERE name = 'session.ended'") == [(ada.id,)]


def test_a_user_has_a_hundred_live_logins_and_the_next_ends_the_oldest(api, ada, grace, clock):
    """The one that was opened first, whichever was used last.

    Its tokens stop working at once; those of the others do not.
    """
    for _ in range(99):
        assert log_in(api, ada.email).status_code == 200
    clock.advance(60)
    refreshed = api.post("/auth/refresh", json={"refreshToken": ada.refresh}).json["data"]["refreshToken"]
    assert api.get("/users/me", ada).status_code == 200
    oldest, second = (session["id"] for session in sessions_of(api, ada)[:-3:-1])
    last = api.log_in(ada.email)
    assert reason(api.get("/users/me", ada)) == "revoked"
    assert reason(api.post("/auth/refresh", json={"refreshToken": refreshed})) == "revoked"
    listed = [session["id"] for session in sessions_of(api, last)]
    assert (len(listed), listed[0], listed[-1]) == (100, claims_of(last.access)["sid"], second)
    assert oldest not in listed
    assert api.get("/users/me", grace).status_code == 200


def test_the_end_of_the_oldest_login_is_an_event_as_every_end_is(api, ada):
    for _ in range(100):
        log_in(api, ada.email)
    with api.app.database.snapshot() as tx:
        ended = tx.rows("SELECT resource_id, user_id FROM outbox WHERE name = 'session.ended'")
    assert ended == [(claims_of(ada.access)["sid"], ada.id)]


def test_expired_and_ended_logins_do_not_count_among_the_hundred(api, ada, clock):
    """A login that is older than 120 others but is still refreshed stays."""
    for _ in range(60):
        log_in(api, ada.email)
    for _ in range(60):
        log_out(api, log_in(api, ada.email).json["data"]["refreshToken"])
    clock.advance(WEEK - 60)
    kept = api.post("/auth/refresh", json={"refreshToken": ada.refresh}).json["data"]
    clock.advance(120)
    for _ in range(99):
        log_in(api, ada.email)
    assert api.post("/auth/refresh", json={"refreshToken": kept["refreshToken"]}).status_code == 200
    assert len(sessions_of(api, api.log_in(ada.email))) == 100
    assert reason(api.post("/auth/refresh", json={"refreshToken": kept["refreshToken"]})) == "revoked"


def test_a_list_of_logins_holds_a_hundred_whatever_the_database_holds(api, ada):
    """Each login of a user with more than a hundred removes some of the surplus, at a bounded cost."""
    with api.app.database.transaction() as tx:
        tx.run_each(
            f"INSERT INTO sessions (id, {COLUMNS}) SELECT :id, {COLUMNS} FROM sessions WHERE user_id = :user LIMIT 1",
            [{"id": new_id(), "user": ada.id} for _ in range(400)],
        )
    assert len(sessions_of(api, ada)) == 100
    for left in (301, 201, 101, 100, 100):
        log_in(api, ada.email)
        with api.app.database.snapshot() as tx:
            live = "SELECT count(*) FROM sessions WHERE user_id = :id AND ended_at IS NULL"
            assert tx.rows(live, id=ada.id) == [(left,)]
