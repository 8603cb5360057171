"""`retry.py` is right if a payment with a key is made once, and a failure leaves no key."""

from contextlib import closing, suppress

from tests.lessons.exercises.attack import database, expect, overtaken
from tests.lessons.exercises.retry import SCHEMA, InsufficientFunds, pay_once
from tests.lessons.lesson_07_retry import AMOUNT, verdicts

DELIVERIES = 3


def balance(db, name):
    return db.execute("SELECT balance FROM accounts WHERE name = ?", [name]).fetchone()[0]


def bank(path, of_ada):
    return closing(database(path, f"{SCHEMA}; INSERT INTO accounts VALUES ('ada', {of_ada}), ('grace', 0);"))


def test_a_key_pays_once_also_for_requests_at_once(tmp_path):
    with bank(tmp_path / "app.db", 10 * AMOUNT) as db:
        answers = overtaken(tmp_path / "app.db", [lambda db: pay_once(db, "dinner", AMOUNT)] * DELIVERIES)
        paid = balance(db, "grace")
    expect(verdicts(paid, "", 0)[0])
    assert answers == ["paid"] * DELIVERIES


def test_a_payment_that_failed_can_be_tried_again(tmp_path):
    with bank(tmp_path / "app.db", 0) as db:
        with suppress(InsufficientFunds):
            pay_once(db, "lunch", AMOUNT)
        db.rollback()  # as a server does before it gives the connection to the next request
        db.execute("UPDATE accounts SET balance = ? WHERE name = 'ada'", [AMOUNT])
        db.commit()
        reported = pay_once(db, "lunch", AMOUNT)
        expect(verdicts(0, reported, balance(db, "grace"))[1])


def test_another_key_is_another_payment(tmp_path):
    with bank(tmp_path / "app.db", 10 * AMOUNT) as db:
        for key in ("monday", "tuesday"):
            pay_once(db, key, AMOUNT)
        assert (balance(db, "ada"), balance(db, "grace")) == (8 * AMOUNT, 2 * AMOUNT)
