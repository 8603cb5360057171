"""Refresh: one token has ten successors, and a 401 undoes its own revocation.

Catalogue: "Short-lived access tokens, refresh tokens that rotate, and all sessions revoked if one is used twice."

Goes wrong: Ten requests find the token unused, and each gets a successor. The revocation is in the transaction that
the 401 rolls back. An access token is accepted for its signature alone, and a refresh token has a good one, too.

Bitten: https://github.com/nightscout/nocturne/pull/326: 415 of 679 tokens were revoked as stolen, because parallel
requests of one page had forked their family. https://github.com/NorthlandPositronics/Cogtrix/issues/2164: the 401
rolled the revocation back. https://github.com/apache/ofbiz-framework/pull/1664: refresh tokens worked as access
tokens, for 24 hours instead of 30 minutes.

Read: `backend/services/rotation.py` claims a token by one UPDATE and computes the same successor again,
`backend/services/logins.py` raises after the transaction that revokes, `backend/infrastructure/tokens.py` checks the
type.

Exercise: `make exercise L=refresh`: repair `tests/lessons/exercises/refresh.py`: put `AND used = 0` into the UPDATE and
look at `rowcount`, then let the revocation stay. What does a browser see that sends two requests at once?
"""

import secrets
import sqlite3
import threading
import time
from contextlib import closing, suppress

import jwt

from tests.at_once import at_once
from tests.lessons import Stage, Verdict

CROWD = 10
KEY = "a-secret-of-the-lesson-with-32-bytes-or-more"


def new_token(user):
    return jwt.encode({"sub": user, "jti": secrets.token_hex(), "exp": int(time.time()) + 7 * 86_400}, KEY)


def who_is(token):
    return jwt.decode(token, KEY, ["HS256"])["sub"]


def refresh(db, token, barrier):
    used, revoked = db.execute("SELECT used, revoked FROM tokens WHERE token = ?", [token]).fetchone()
    if revoked:
        raise PermissionError("This session has ended.")
    with db:  # commits, or rolls back if the block raises
        if used:
            db.execute("UPDATE tokens SET revoked = 1")
            raise PermissionError("This token was used before: all sessions end.")
        barrier.wait(60)  # all requests have found the token unused
        successor = new_token(who_is(token))
        db.execute("UPDATE tokens SET used = 1 WHERE token = ?", [token])
        db.execute("INSERT INTO tokens VALUES (?, 0, 0)", [successor])
    return successor


def naive(stage: Stage) -> list[Verdict]:
    database, stolen = stage.folder / "naive.db", new_token("ada")
    with closing(sqlite3.connect(database)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE tokens (token TEXT PRIMARY KEY, used INTEGER, revoked INTEGER)")
        db.execute("INSERT INTO tokens VALUES (?, 0, 0)", [stolen])
        db.commit()

    def request(token, barrier):
        """The successor; None if the token is refused."""
        with closing(sqlite3.connect(database, timeout=60)) as db, suppress(PermissionError):
            return refresh(db, token, barrier)

    crowd, alone = threading.Barrier(CROWD), threading.Barrier(1)
    successors = set(at_once([lambda: request(stolen, crowd)] * CROWD))
    newest = max(successors)
    return verdicts(successors, request(stolen, alone), request(newest, alone), who_is(newest) == "ada")


def ours(stage: Stage) -> list[Verdict]:
    workers = [stage.api(refresh_grace_seconds=600) for _ in range(2)]  # a slow machine is no thief
    ada = workers[0].sign_up("Ada")

    def request(token, worker=workers[0]):
        answer = worker.post("/auth/refresh", json={"refreshToken": token})
        return answer.json["data"]["refreshToken"] if answer.status_code == 200 else None

    successors = set(at_once([lambda n=n: request(ada.refresh, workers[n % 2]) for n in range(CROWD)]))
    newest = request(max(filter(None, successors)))  # the client has its answer, so the first token is used for good
    reused, survivor = request(ada.refresh), request(newest)
    other = workers[0].log_in(ada.email)
    opened = workers[0].get("/users/me", headers={"Authorization": f"Bearer {other.refresh}"})
    return verdicts(successors, reused, survivor, opened.status_code == 200)


def verdicts(successors: set[str | None], reused: str | None, survivor: str | None, opened: bool) -> list[Verdict]:
    count, end = len(successors), "lives on" if survivor else "has ended"
    theft = f"the stolen token was {'accepted' if reused else 'refused'}, and the session {end}"
    access = f"a refresh token as access token: {'welcome, for 7 days' if opened else '401'}"
    return [
        Verdict(count == 1, count, f"{CROWD} refreshes of one token at once: {count} successor{'s' * (count > 1)}"),
        Verdict(not reused and not survivor, int(survivor is not None), theft),
        Verdict(not opened, int(opened), access),
    ]
