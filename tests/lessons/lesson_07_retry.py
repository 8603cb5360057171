"""Retry: one payment is made three times, and a key remembers a failure as success.

Catalogue: "Retry failed requests with exponential backoff."

Goes wrong: A time-out does not tell the client whether the server has done the work. The retry pays again. A server
that stores the key before it does the work remembers a payment that then failed, and reports it as made.

Bitten: https://github.com/akash-network/console/pull/3449: customers were charged two or three times for one purchase,
because they tried again while a slow charge succeeded. https://github.com/ikyriak/IdempotentAPI/issues/37: the key
outlived a crash, and the retry was refused instead of run.

Read: `backend/services/idempotency.py` writes key, effect and answer in one transaction: a failure leaves no key.

Exercise: `make exercise L=retry`: repair `tests/lessons/exercises/retry.py`. First store the key after the payment
instead of before it. Which attack is gone? What happens if two deliveries of one request arrive at the same moment?
"""

from contextlib import suppress

from tests.lessons import Stage, Verdict, money

AMOUNT = 100_00


def with_retry(send, tries=3):
    """What the catalogue gives to clients, without the pauses."""
    for _ in range(tries - 1):
        with suppress(ConnectionError):
            return send()
    return send()


def lossy(send):
    """A network that delivers every request, and loses the first two answers."""
    answers = iter([ConnectionError, ConnectionError, None])

    def sent():
        answer = send()
        if lost := next(answers):
            raise lost
        return answer

    return sent


def pay(balances, amount):
    if balances["ada"] < amount:
        raise ValueError("insufficient funds")
    balances["ada"] -= amount
    balances["grace"] += amount


def pay_once(keys, balances, key, amount):
    if key in keys:
        return "paid already"
    keys.add(key)
    pay(balances, amount)
    return "paid"


def naive(stage: Stage) -> list[Verdict]:
    balances = {"ada": 10 * AMOUNT, "grace": 0}
    with_retry(lossy(lambda: pay(balances, AMOUNT)))
    paid = balances["grace"]

    keys, balances = set(), {"ada": 0, "grace": 0}
    try:
        pay_once(keys, balances, "lunch", AMOUNT)
    except ValueError:
        balances["ada"] = AMOUNT  # Ada pays money in, and tries again
    reported = pay_once(keys, balances, "lunch", AMOUNT)
    return verdicts(paid, reported, balances["grace"])


def ours(stage: Stage) -> list[Verdict]:
    api = stage.api()
    root, ada, grace = api.admin(), api.sign_up("Ada"), api.sign_up("Grace")
    purse, other = api.account(ada, balance=10 * AMOUNT, admin=root), api.account(grace)
    empty, hers = api.account(ada), api.account(grace)

    def pay(source, target, key):
        body = {"fromAccountId": source, "toAccountId": target, "amount": AMOUNT}
        return api.post("/transfers", ada, body, key=key)

    with_retry(lossy(lambda: pay(purse, other, "dinner")))
    paid = api.balance(other, grace)

    failed = pay(empty, hers, "lunch")
    assert failed.status_code == 422, failed.text
    api.post(f"/accounts/{empty}/deposits", root, {"amount": AMOUNT})
    reported = pay(empty, hers, "lunch")
    return verdicts(paid, "paid" if reported.status_code == 201 else reported.text, api.balance(hers, grace))


def verdicts(paid: int, reported: str, arrived: int) -> list[Verdict]:
    again = f'tried again after a failure: "{reported}", {money(arrived)} arrived'
    return [
        Verdict(paid == AMOUNT, paid, f"one payment of {money(AMOUNT)}, delivered 3 times: {money(paid)} was paid"),
        Verdict(arrived == AMOUNT, AMOUNT - arrived, again),
    ]
