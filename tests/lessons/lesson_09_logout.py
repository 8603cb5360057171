"""Logout: the token works for another fifteen minutes, and so does the role that was taken away.

Catalogue: "A JWT is stateless: verify the signature, read user and role from the claims. Logout deletes the tokens."

Goes wrong: The client deletes its copy, the server its refresh token. An access token that was copied before stays
valid until it expires, with the role that the user had when it was issued.

Bitten: https://github.com/artifact-keeper/artifact-keeper/issues/1821: a demoted admin could create a new admin with
the old token. https://github.com/FusionAuth/fusionauth-issues/issues/979: the same for logout, closed as "working as
designed".

Read: `backend/services/logins.py` (`identify`) verifies the token and then reads session and user: 40 µs from the
database, 10 in production from a cache that all workers keep true (`backend/production/cache.py`).

Exercise: Give the naive `log_out` a set of revoked tokens that `current_user` looks into. With two workers, where must
the set be? When may an entry be deleted? Does it help against the old role?
"""

import time

import jwt

from tests.lessons import Stage, Verdict

KEY = "a-secret-of-the-lesson-with-32-bytes-or-more"
MINUTES, REQUESTS = 15, 20


def log_in(user, refresh_tokens):
    refresh_tokens.add(user["name"])
    return jwt.encode({"sub": user["name"], "role": user["role"], "exp": int(time.time()) + MINUTES * 60}, KEY)


def log_out(user, refresh_tokens):
    refresh_tokens.discard(user["name"])


def current_user(token):
    return jwt.decode(token, KEY, ["HS256"])


def delete_user(token):
    if current_user(token)["role"] != "admin":
        raise PermissionError("Forbidden")
    return "deleted"


def naive(stage: Stage) -> list[Verdict]:
    mallory, refresh_tokens = {"name": "Mallory", "role": "admin"}, set()
    token = log_in(mallory, refresh_tokens)
    mallory["role"] = "user"
    as_admin = sum(delete_user(token) == "deleted" for _ in range(REQUESTS))
    log_out(mallory, refresh_tokens)
    served = sum(current_user(token)["sub"] == "Mallory" for _ in range(REQUESTS))
    return verdicts(served, as_admin)


def ours(stage: Stage) -> list[Verdict]:
    workers = [stage.api(), stage.api()]
    root, mallory = workers[0].admin(), workers[0].admin("Mallory")
    assert {worker.get("/users", mallory).status_code for worker in workers} == {200}

    workers[0].patch(f"/users/{mallory.id}", root, {"roles": ["user"]})
    as_admin = sum(workers[n % 2].get("/users", mallory).status_code == 200 for n in range(REQUESTS))
    mallory = workers[0].log_in(mallory.email)
    assert {worker.get("/users/me", mallory).status_code for worker in workers} == {200}
    workers[0].post("/auth/logout", json={"refreshToken": mallory.refresh})
    served = sum(workers[n % 2].get("/users/me", mallory).status_code == 200 for n in range(REQUESTS))
    return verdicts(served, as_admin)


def verdicts(served: int, as_admin: int) -> list[Verdict]:
    on = f", and so on for {MINUTES} minutes" * (served > 0)
    return [
        Verdict(served == 0, served, f"{served} of {REQUESTS} requests after the logout were served{on}"),
        Verdict(as_admin == 0, as_admin, f"{as_admin} of {REQUESTS} admin requests of a demoted admin were served"),
    ]
