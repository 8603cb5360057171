"""Time tells which addresses have an account: an unknown address is refused before bcrypt runs.

Catalogue: "Find the user by e-mail; if there is none, or the password does not match, answer 401."

Goes wrong: Both refusals have the same text. But bcrypt takes a fifth of a second, on purpose, and `or` skips it for an
address that is unknown. That answer comes at once, so a stranger with a list of addresses learns which of them are
customers' without guessing one password. (The lesson runs bcrypt at cost 8, which takes a sixteenth of the usual 12.)

Bitten: https://github.com/pallets-eco/flask-security/pull/39, where a login took considerably less time for an unknown
user; and https://github.com/authelia/authelia/issues/949, the same in a proxy that asks for logins.

Read: `backend/infrastructure/passwords.py`: an unknown user's password is compared with a decoy hash of today's cost,
and a hash of a lower cost is topped up. `backend/services/logins.py`, `Logins.log_in`, passes None for no user.

Exercise: Repair `log_in` with a decoy. Then raise the cost of decoy and new hashes from 8 to 10, and measure again with
a user that signed up before. Which addresses does the time tell now?
"""

import time
from collections.abc import Callable

import bcrypt

from tests.lessons import Stage, Verdict

ROUNDS, TRIES = 8, 9
KNOWN, UNKNOWN, GUESS = "ada@example.com", "unknown@example.com", "not the password"


def log_in(users, email, password):
    user = users.get(email)
    if user is None or not bcrypt.checkpw(password.encode(), user["hash"]):
        return 401
    return 200


def naive(stage: Stage) -> list[Verdict]:
    users = {KNOWN: {"hash": bcrypt.hashpw(b"correct horse", bcrypt.gensalt(ROUNDS))}}
    return [verdict(lambda email: log_in(users, email, GUESS))]


def ours(stage: Stage) -> list[Verdict]:
    api = stage.api(bcrypt_rounds=ROUNDS)
    api.sign_up("Ada")
    return [verdict(lambda email: api.post("/auth/login", json={"email": email, "password": GUESS}).status_code)]


def verdict(log_in: Callable[[str], int]) -> Verdict:
    """The least CPU time of several tries each: other programs can only add to it."""
    times: dict[str, list[float]] = {KNOWN: [], UNKNOWN: []}
    for _ in range(TRIES):
        for email, spent in times.items():
            began = time.thread_time()
            assert log_in(email) == 401
            spent.append(time.thread_time() - began)
    known, unknown = (min(spent) * 1000 for spent in times.values())
    says = f"a wrong password: {known:.1f} ms for a known address, {unknown:.1f} ms for an unknown one"
    return Verdict(known < 2 * unknown, known / unknown, says)
