"""Amounts: a negative one steals, NaN passes every check, a missing payee burns money.

Catalogue: "Refuse a transfer if the balance is below the amount."

Goes wrong: `balance < amount` is one question, and an amount has more than one way to be wrong. -500 is below every
balance. NaN is not above any. 0.10 has no exact float. An UPDATE of a row that does not exist is no error.

Bitten: https://github.com/RP-Kit/RPKit/issues/247: a negative amount took money out of other players' accounts.
https://github.com/FPtje/DarkRP/pull/3299: NaN bypassed price checks, in use on servers.
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
    """The balances of Mallory, who began with this one, and of Ada, who began with 1,000.00, and what was refused."""
    refused = 0
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE accounts (id TEXT, balance REAL)")
        db.execute("INSERT INTO accounts VALUES ('mallory', ?), ('ada', 1000.00)", [balance])
        for body in bodies:
            try:
                transfer(db, body)
            except ValueError:
                refused += 1
        return [value for (value,) in db.execute("SELECT balance FROM accounts")], refused


def naive(stage: Stage) -> list[Verdict]:
    (mallory, _), _ = after(0.0, '{"from": "mallory", "to": "ada", "amount": -500}')
    (left, _), refused = after(0.30, *['{"from": "mallory", "to": "ada", "amount": 0.10}'] * 3)
    (nothing, ada), _ = after(0.0, '{"from": "mallory", "to": "ada", "amount": NaN}')
    (poorer, same), _ = after(500.0, '{"from": "mallory", "to": "adda", "amount": 500}')
    return [
        Verdict(mallory == 0, mallory, f"-500.00 was sent: Mallory's 0.00 became {mallory:,.2f}"),
        Verdict(refused == 0, refused, f"0.30 paid 0.10 for {3 - refused} times of 3, and {left!r} is left"),
        Verdict(
            ada == 1000, 1000 - (ada or 0), f"NaN was sent: Ada's 1,000.00 became {ada}, and 0.00 became {nothing}"
        ),
        Verdict(
            poorer + same == 1500, 1500 - poorer - same, f"paid to a typing error: 1,500.00 became {poorer + same:,.2f}"
        ),
    ]


def ours(stage: Stage) -> list[Verdict]:
    api = stage.api()
    root, ada, mallory = api.admin(), api.sign_up("Ada"), api.sign_up("Mallory")
    hers, purse = api.account(ada, balance=1_000_00, admin=root), api.account(mallory, balance=500_00, admin=root)

    def send(amount: str, to: str = hers) -> int:
        """The status of the answer. The amount is JSON text, because no JSON encoder would write NaN."""
        body = f'{{"fromAccountId": "{purse}", "toAccountId": "{to}", "amount": {amount}}}'
        return api.post("/transfers", mallory, data=body, content_type="application/json").status_code

    def balances() -> tuple[int, int]:
        return api.balance(purse, mallory), api.balance(hers, ada)

    negative, fraction, nan, nowhere = send("-50000"), send("0.10"), send("NaN"), send("50000", UNKNOWN_ID)
    unmoved = balances() == (500_00, 1_000_00)
    coins = sum(send("10") == 201 for _ in range(3))
    total = sum(balances())
    return [
        Verdict(negative == 422 and unmoved, 0, f"-500.00 was sent: {negative}, and nothing has moved"),
        Verdict(
            fraction == 422 and coins == 3, 3 - coins, f"0.10 is {fraction}; as 10 cents it is paid {coins} times of 3"
        ),
        Verdict(nan == 400 and unmoved, 0, f"NaN was sent: {nan}, it is no JSON"),
        Verdict(
            nowhere == 404 and total == 1_500_00, 0, f"paid to a typing error: {nowhere}, {money(total)} is still there"
        ),
    ]
