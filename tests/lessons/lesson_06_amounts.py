"""Amounts: a negative one steals, NaN passes every check, a missing payee burns money.

Catalogue: "Refuse a transfer if the balance is below the amount."

Goes wrong: `balance < amount` is one question, and an amount has more than one way to be wrong. -500 is below every
balance. NaN is not above any, and SQLite stores it as NULL. 0.10 has no exact float. An UPDATE of a row that does not
exist is no error.

Bitten: https://github.com/RP-Kit/RPKit/issues/247: a negative amount took money out of other players' accounts.
https://github.com/FPtje/DarkRP/pull/3299: NaN bypassed price checks, and players used it.
https://github.com/econumo/econumo/pull/262: without a payee the sender was debited and no account credited.

Read: `backend/web/constraints.py` admits whole numbers from 1 to 10^12, `backend/web/json_body.py` refuses NaN,
`backend/services/ledger.py` reads the payee before it moves anything, and CHECKs in `sql/sqlite` repeat the rules.

Exercise: Add `if amount <= 0: raise ValueError` to `transfer`. Which three of the attacks still work?
"""

import json
import sqlite3
from contextlib import closing

from tests.conftest import UNKNOWN_ID
from tests.lessons import Stage, Verdict, money


def transfer(db, text):
    body = json.loads(text)
    amount = float(body["amount"])
    (balance,) = db.execute("SELECT balance FROM accounts WHERE id = ?", [body["from"]]).fetchone()
    if balance < amount:
        raise ValueError("insufficient funds")
    db.execute("UPDATE accounts SET balance = balance - ? WHERE id = ?", [amount, body["from"]])
    db.execute("UPDATE accounts SET balance = balance + ? WHERE id = ?", [amount, body["to"]])


def after(balance, *bodies):
    """Mallory's balance, which began with this one, Ada's, which began with 1,000.00, and how many were refused."""
    refused = 0
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE accounts (id TEXT, balance REAL)")
        db.execute("INSERT INTO accounts VALUES ('mallory', ?), ('ada', 1000.00)", [balance])
        for body in bodies:
            try:
                transfer(db, body)
            except ValueError:
                refused += 1
        return *[value for (value,) in db.execute("SELECT balance FROM accounts")], refused


def naive(stage: Stage) -> list[Verdict]:
    stolen, _, _ = after(0.0, '{"from": "mallory", "to": "ada", "amount": -500}')
    left, _, refused = after(0.30, *['{"from": "mallory", "to": "ada", "amount": 0.10}'] * 3)
    _, ada, _ = after(0.0, '{"from": "mallory", "to": "ada", "amount": NaN}')
    poorer, same, _ = after(500.0, '{"from": "mallory", "to": "adda", "amount": 500}')
    return [
        verdict(stolen, f"-500.00 was sent: Mallory's 0.00 became {stolen:,.2f}"),
        verdict(refused, f"0.30 is enough for {3 - refused} of 3 payments of 0.10; {left!r} is left"),
        verdict(1000 - (ada or 0), f"NaN was sent from an empty account: Ada's 1,000.00 became {ada or 'NULL'}"),
        verdict(1500 - poorer - same, f"500.00 was sent to a mistyped payee: 1,500.00 became {poorer + same:,.2f}"),
    ]


def ours(stage: Stage) -> list[Verdict]:
    api = stage.api()
    root, ada, mallory = api.admin(), api.sign_up("Ada"), api.sign_up("Mallory")
    hers, purse = api.account(ada, balance=1_000_00, admin=root), api.account(mallory, balance=500_00, admin=root)

    def send(amount: str, to: str = hers) -> tuple[int, int, int]:
        """The status, and what has left either account. The amount is JSON text, for no JSON encoder writes NaN."""
        before = api.balance(purse, mallory), api.balance(hers, ada)
        body = f'{{"fromAccountId": "{purse}", "toAccountId": "{to}", "amount": {amount}}}'
        answer = api.post("/transfers", mallory, data=body, content_type="application/json")
        return answer.status_code, before[0] - api.balance(purse, mallory), before[1] - api.balance(hers, ada)

    negative, _, stolen = send("-50000")
    fraction, paid, _ = send("0.10")
    coins = [send("10")[0] for _ in range(3)].count(201)
    nan, _, vanished = send("NaN")
    nowhere, burnt, _ = send("50000", UNKNOWN_ID)
    assert (negative, fraction, nan, nowhere) == (422, 422, 400, 404)  # a 500 would be no refusal
    return [
        verdict(stolen, f"-500.00 was sent: status {negative}, and {money(stolen)} was taken from Ada"),
        verdict(paid + 3 - coins, f"0.10 is refused with {fraction}; {coins} of 3 payments of 10 cents are made"),
        verdict(vanished, f"NaN was sent: status {nan}, because it is no JSON"),
        verdict(burnt, f"500.00 was sent to a mistyped payee: status {nowhere}, and {money(burnt)} is gone"),
    ]


def verdict(wrong: float, says: str) -> Verdict:
    return Verdict(wrong == 0, abs(wrong), says)
