"""Check, then insert: twenty people sign up with one e-mail, and all of them get an account.

Catalogue: "The service checks that the e-mail is free, then creates the user."

Goes wrong: Between the check and the insert, nineteen other requests make the same check. It is true for each of them.
A double click on the button is enough.

Bitten: https://github.com/hedgedoc/hedgedoc/issues/6875: concurrent registrations gave several accounts with one
address, and a login found an arbitrary one of them.

Read: `sql/sqlite/0001_users_and_sessions.sql` has the unique constraint, `backend/services/users.py` inserts without
a check and turns the refusal into a 409.

Exercise: `make exercise L=sign_up`: repair `tests/lessons/exercises/sign_up.py`. With `UNIQUE` alone, what do nineteen
users see, and what should they see?
"""

import sqlite3
import threading
from contextlib import closing

from tests.at_once import at_once
from tests.conftest import PASSWORD
from tests.lessons import Stage, Verdict

CROWD = 20
EMAIL = "ada@example.com"


def sign_up(database, email, barrier):
    with closing(sqlite3.connect(database, timeout=60)) as db:
        if db.execute("SELECT 1 FROM users WHERE email = ?", [email]).fetchone():
            raise ValueError("This e-mail is taken.")
        barrier.wait(60)  # all twenty requests have checked
        db.execute("INSERT INTO users (email) VALUES (?)", [email])
        db.commit()


def naive(stage: Stage) -> list[Verdict]:
    database, barrier = stage.folder / "naive.db", threading.Barrier(CROWD)
    with closing(sqlite3.connect(database)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT NOT NULL)")
        at_once([lambda: sign_up(database, EMAIL, barrier)] * CROWD)
        (users,) = db.execute("SELECT count(*) FROM users WHERE email = ?", [EMAIL]).fetchone()
    return [verdict(users, 0)]


def ours(stage: Stage) -> list[Verdict]:
    workers = [stage.api(), stage.api()]
    root = workers[0].admin()
    body = {"email": EMAIL, "password": PASSWORD, "name": "Ada"}
    answers = at_once([lambda n=n: workers[n % 2].post("/users", json=body) for n in range(CROWD)])
    users = workers[0].get(f"/users?q={EMAIL}", root).json["data"]
    return [verdict(len(users), sum(answer.status_code == 409 for answer in answers))]


def verdict(users: int, refused: int) -> Verdict:
    says = f"one e-mail, {users} user{'s' * (users > 1)}: {refused} of {CROWD} sign-ups were refused"
    return Verdict(users == 1, users, says)
