"""`sign_up.py` is right if twenty requests with one e-mail create one user."""

from contextlib import closing

from tests.lessons.exercises.attack import database, expect, overtaken
from tests.lessons.exercises.sign_up import SCHEMA, EmailTaken, sign_up
from tests.lessons.lesson_02_sign_up import CROWD, EMAIL, verdict


def test_one_email_is_one_user(tmp_path):
    def request(db):
        try:
            sign_up(db, EMAIL)
        except EmailTaken:
            return "refused"
        return "created"

    with closing(database(tmp_path / "app.db", SCHEMA)) as db:
        answers = overtaken(tmp_path / "app.db", [request] * CROWD)
        (users,) = db.execute("SELECT count(*) FROM users WHERE email = ?", [EMAIL]).fetchone()
    expect(verdict(users, answers.count("refused")))
    assert answers.count("refused") == CROWD - 1
