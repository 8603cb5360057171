"""`refresh.py` is right if a token has one successor, and a thief's token ends the session."""

from contextlib import closing

import pytest

from tests.lessons.exercises.attack import database, expect, overtaken
from tests.lessons.exercises.refresh import Refused, refresh
from tests.lessons.lesson_08_refresh import CROWD, verdicts

SCHEMA = """
    CREATE TABLE tokens (token TEXT PRIMARY KEY, user TEXT, used INTEGER, revoked INTEGER);
    INSERT INTO tokens VALUES ('first', 'ada', 0, 0), ('hers', 'grace', 0, 0);
"""


def request(db, token):
    """The successor; None if the token is refused."""
    try:
        return refresh(db, token)
    except Refused:
        return None


@pytest.fixture
def db(tmp_path):
    with closing(database(tmp_path / "app.db", SCHEMA)) as db:
        yield db


def test_a_token_has_one_successor(db, tmp_path):
    answers = overtaken(tmp_path / "app.db", [lambda db: request(db, "first")] * CROWD)
    expect(verdicts(set(filter(None, answers)), None, None, False)[0])


def test_a_token_that_is_used_again_ends_the_sessions_of_its_user(db):
    newest = request(db, "first")
    reused = request(db, "first")
    expect(verdicts(set(), reused, request(db, newest), False)[1])
    assert request(db, "hers"), "Grace's session has ended, too"


def test_an_unknown_token_ends_no_session(db):
    assert request(db, "guessed") is None
    assert request(db, "first") and request(db, "hers")
