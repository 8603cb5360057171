"""Mass assignment: a profile form makes its user an admin.

Catalogue: "PATCH updates the fields that the body contains."

Goes wrong: The body is the client's, so the client chooses the columns. `roles` is one of them, and so are `active`,
the password's hash and the id.

Bitten: https://github.com/HackTricks-wiki/hacktricks/pull/1515 reports that any user of the FIA's portal for racing
drivers could become its ADMIN, by sending `roles` with the profile.

Read: `backend/routes/users.py` says which fields a body may have, `backend/web/schemas.py` refuses all others, and
`backend/services/users.py` keeps `roles` and `active` for admins, whose role it reads again before it writes.

Exercise: `make exercise L=mass_assignment`: repair `tests/lessons/exercises/mass_assignment.py`, first with a list of
the columns that are forbidden. The table there has a column `credit`, too. Which list would have protected it?
"""

import json
import sqlite3
from contextlib import closing

from tests.conftest import Api, Person
from tests.lessons import Stage, Verdict

FORGED = {
    "roles": ["admin"],
    "active": False,
    "id": "0198c0de-0000-7000-8000-000000000000",
    "version": 99,
    "createdAt": "1970-01-01T00:00:00.000Z",
    "passwordHash": "!",
}


def update_user(db, user_id, body):
    columns = ", ".join(f"{name} = ?" for name in body)
    db.execute(f"UPDATE users SET {columns} WHERE id = ?", [*body.values(), user_id])


def naive(stage: Stage) -> list[Verdict]:
    changed, roles = 0, set()
    for name, value in FORGED.items():
        with closing(sqlite3.connect(":memory:")) as db:
            db.execute("CREATE TABLE users (id, name, roles, active, version, createdAt, passwordHash)")
            db.execute("INSERT INTO users VALUES (1, 'Mallory', 'user', TRUE, 1, 'today', 'a hash')")
            before = db.execute("SELECT * FROM users").fetchone()
            update_user(db, 1, {"name": "Mallory", name: json.dumps(value)})
            changed += db.execute("SELECT * FROM users").fetchone() != before
            roles |= {role for (role,) in db.execute("SELECT roles FROM users")}
    return [verdict(changed, '["admin"]' in roles)]


def ours(stage: Stage) -> list[Verdict]:
    api = stage.api()
    root, mallory = api.admin(), api.sign_up("Mallory")
    changed = 0
    for name, value in FORGED.items():
        before = row_of(api, mallory)
        api.patch("/users/me", mallory, {"name": "Mallory", name: value})
        changed += row_of(api, mallory) != before
    roles = api.get(f"/users/{mallory.id}", root).json["data"]["roles"]
    return [verdict(changed, "admin" in roles)]


def row_of(api: Api, person: Person) -> tuple[object, ...]:
    """All columns, with those that the API does not show, such as the password's hash."""
    with api.app.database.read() as tx:
        return tuple(tx.rows("SELECT * FROM users WHERE email = :email", email=person.email)[0])


def verdict(changed: int, is_admin: bool) -> Verdict:
    became = "became" if is_admin else "did not become"
    says = f"{changed} of {len(FORGED)} protected fields changed, and Mallory {became} an admin"
    return Verdict(changed == 0 and not is_admin, changed, says)
