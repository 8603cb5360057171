"""Refresh: one token has ten successors, and a 401 undoes its own revocation.

Catalogue: "Short-lived access tokens, refresh tokens that rotate, and all sessions revoked if one is used twice."

Goes wrong: Ten requests find the token unused, and each gets a successor. The revocation is in the transaction that
the 401 rolls back. An access token is accepted for its signature alone, and a refresh token has a good one, too.

Bitten: https://github.com/nightscout/nocturne/pull/326: 415 of 679 tokens were revoked as stolen, because parallel
requests of one page had forked its family. https://github.com/NorthlandPositronics/Cogtrix/issues/2164: the 401 rolled
the revocation back. https://github.com/apache/ofbiz-framework/pull/1664: refresh tokens worked as access tokens, for
24 hours instead of 30 minutes.

Read: `backend/services/rotation.py` claims a token by one UPDATE and computes the same successor again,
`backend/services/logins.py` raises after the transaction that revokes, `backend/infrastructure/tokens.py` checks the
type.

Exercise: Repair `refresh` so that the first attack fails: put `AND used = 0` into the UPDATE and look at `rowcount`.
What does a browser see that sends two requests at once?
"""

import secrets
import sqlite3
import threading
import time
from contextlib import closing

import jwt

from tests.at_once import at_once
from tests.lessons import Stage, Verdict

CROWD = 10
KEY = "a-secret-of-the-lesson-with-32-bytes-or-more"
FIRST = {"sub": "ada", "jti": "the first"}


def sign(claims, seconds):
    return jwt.encode({**claims, "exp": int(time.time()) + seconds}, KEY)


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
        successor = sign({"sub": who_is(token), "jti": secrets.token_hex()}, 7 * 86_400)
        db.execute("UPDATE tokens SET used = 1 WHERE token = ?", [token])
        db.execute("INSERT INTO tokens VALUES (?, 0, 0)", [successor])
    return successor


def naive(stage: Stage) -> list[Verdict]:
    database, stolen = stage.folder / "naive.db", sign(FIRST, 7 * 86_400)
    with closing(sqlite3.connect(database)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE tokens (token TEXT PRIMARY KEY, used INTEGER, revoked INTEGER)")
        db.execute("INSERT INTO tokens VALUES (?, 0, 0)", [stolen])
        db.commit()

    def request(token, barrier):
        with closing(sqlite3.connect(database, timeout=60)) as db:
            return refresh(db, token, barrier)

    crowd, alone = threading.Barrier(CROWD), threading.Barrier(1)
    successors = set(at_once([lambda: request(stolen, crowd)] * CROWD))
    newest = successors.pop()
    answers = [attempt(lambda token=token: request(token, alone)) for token in (stolen, newest)]
    return verdicts(len(successors) + 1, answers, who_is(newest) == "ada")


def ours(stage: Stage) -> list[Verdict]:
    workers = [stage.api(refresh_grace_seconds=600) for _ in range(2)]  # a slow machine is no thief
    ada = workers[0].sign_up("Ada")

    def request(token, worker=workers[0]):
        answer = worker.post("/auth/refresh", json={"refreshToken": token})
        if answer.status_code != 200:
            raise PermissionError(answer.text)
        return answer.json["data"]["refreshToken"]

    successors = set(at_once([lambda n=n: request(ada.refresh, workers[n % 2]) for n in range(CROWD)]))
    newest = request(min(successors))  # the client has its answer, so the first token is used for good
    answers = [attempt(lambda token=token: request(token)) for token in (ada.refresh, newest)]
    other = workers[0].log_in(ada.email)
    opened = workers[0].get("/users/me", headers={"Authorization": f"Bearer {other.refresh}"})
    return verdicts(len(successors), answers, opened.status_code == 200)


def attempt(request):
    """Whether the request was served."""
    try:
        request()
    except PermissionError:
        return False
    return True


def verdicts(successors: int, answers: list[bool], opened: bool) -> list[Verdict]:
    reused, alive = answers
    return [
        Verdict(
            successors == 1,
            successors,
            f"{CROWD} refreshes of one token at once: {successors} successor{'s' * (successors > 1)}",
        ),
        Verdict(
            not reused and not alive,
            int(alive),
            f"the stolen token was refused, and the session {'lives on' if alive else 'has ended'}",
        ),
        Verdict(
            not opened, int(opened), f"a refresh token as access token: {'welcome, for 7 days' if opened else '401'}"
        ),
    ]
