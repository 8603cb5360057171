"""`mass_assignment.py` is right if a body changes the name and no other column."""

import json
import sqlite3
from contextlib import closing

from tests.lessons import Verdict
from tests.lessons.exercises.attack import expect
from tests.lessons.exercises.mass_assignment import UnknownField, update_user
from tests.lessons.lesson_03_mass_assignment import FORGED, verdict

BEFORE = {
    "id": 1, "name": "Mallory", "roles": "user", "active": 1, "version": 1, "createdAt": "today",
    "passwordHash": "a hash", "credit": 0,
}  # fmt: skip


def after(body):
    """Mallory's row, and whether the body was refused."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.row_factory = sqlite3.Row
        db.execute(f"CREATE TABLE users ({', '.join(BEFORE)})")
        db.execute(f"INSERT INTO users VALUES ({', '.join('?' * len(BEFORE))})", [*BEFORE.values()])
        refused = False
        try:
            update_user(db, 1, body)
        except UnknownField:
            refused = True
        return dict(db.execute("SELECT * FROM users").fetchone()), refused


def test_a_name_is_changed():
    assert after({"name": "Molly"}) == (BEFORE | {"name": "Molly"}, False)


def test_no_protected_column_is():
    rows = [after({name: json.dumps(value)})[0] for name, value in FORGED.items()]
    expect(verdict(sum(row != BEFORE for row in rows), any(row["roles"] == '["admin"]' for row in rows)))


def test_nor_is_a_column_that_was_added_later():
    credit = after({"credit": 1_000_000})[0]["credit"]
    expect(Verdict(credit == 0, credit, f"a column of next year: Mallory's credit is {credit:,}"))


def test_nor_do_the_keys_of_a_body_reach_the_sql():
    roles = after({"name = 'Mallory', roles": "admin"})[0]["roles"]
    expect(Verdict(roles == "user", 1, f"SQL in the name of a field: Mallory is {roles}"))


def test_a_body_with_another_field_is_refused_as_a_whole():
    answers = [after({"name": "Molly", name: "x"}) for name in [*FORGED, "credit"]]
    refused = answers.count((BEFORE, True))
    says = f"a name beside another field: {refused} of {len(answers)} bodies were refused"
    expect(Verdict(refused == len(answers), len(answers) - refused, says))
