"""`transfer.py` is right if twenty transfers at once neither make money nor lose it."""

from contextlib import closing

from tests.lessons import Verdict
from tests.lessons.exercises.attack import database, expect, overtaken
from tests.lessons.exercises.transfer import InsufficientFunds, transfer
from tests.lessons.lesson_04_transfer import AMOUNT, BALANCE, CROWD, verdict

PAYER, PAYEES = 0, range(1, CROWD + 1)
SCHEMA = f"""
    CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
    INSERT INTO accounts VALUES (0, {BALANCE}), {", ".join(f"({payee}, 0)" for payee in PAYEES)};
"""


def test_the_sum_of_all_balances_stays(tmp_path):
    def pay(db, payee):
        try:
            transfer(db, PAYER, payee, AMOUNT)
        except InsufficientFunds:
            return "refused"
        return "passed"

    with closing(database(tmp_path / "app.db", SCHEMA)) as db:
        requests = [lambda db, payee=payee: pay(db, payee) for payee in PAYEES]
        answers = overtaken(tmp_path / "app.db", requests)
        total, least = db.execute("SELECT sum(balance), min(balance) FROM accounts").fetchone()
    expect(verdict(answers.count("passed"), answers.count("refused"), total))
    expect(Verdict(least == 0, -least, f"the smallest balance is {least}"))
