"""Storms: many requests at the same moment, each against one promise of the service.

A storm uses nothing but HTTP. It measures afterwards whether the promise held, in numbers. Against two workers of the
core two storms break theirs, as the core's docstrings say: its limiter and its cache are of one process.
"""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from backend.errors import Conflict
from backend.lab.arena import Answer, Arena, Ask
from backend.lab.backstage import Login
from backend.lab.tracing import SLOW_LOAD

API = "/api/v1"
EUROS = 1000_00  # cents: what an account begins with


def _replayed(answer: Answer) -> str:
    return "replayed" if "idempotency-replayed" in answer.headers else ""


class Outcome(NamedTuple):
    """`note` says in a word what is special about an answer, or ""."""

    holds: bool
    figures: str
    note: Callable[[Answer], str] = _replayed


class Storm(NamedTuple):
    title: str
    promise: str
    run: Callable[[Arena], Outcome]
    lab_only: bool = False  # it needs the lab's traces


def cold_key(arena: Arena) -> Outcome:
    """A product that no cache has yet. The lab makes its load slow, so that the requests meet in it."""
    path = f"{API}/products/{_product(arena, stock=1)}"
    by = arena.backstage.new_user()
    answers = arena.storm([Ask("GET", path, by, headers={SLOW_LOAD: "0.2"})] * 50)
    seen = Counter(_cache_outcome(answer) for answer in answers)
    loads = seen["miss"] + seen["refused"]  # refused: a write came between, so the value was not stored
    holds = loads == 1 and {answer.status for answer in answers} == {200}
    others = f"{seen['coalesced']} joined it, {seen['hit']} found its value"
    figures = f"{len(answers)} requests, {_count(loads, 'load')}; {others}"
    return Outcome(holds, figures, _cache_outcome)


def burst(arena: Arena) -> Outcome:
    """One user, until each worker refuses. What becomes free again meanwhile is allowed for. Raises Conflict."""
    by = arena.backstage.new_user()
    first = arena.ask("GET", f"{API}/products", by)
    policy = re.search(r'"default";q=(\d+);w=([\d.]+)', first.headers.get("ratelimit-policy", ""))
    if policy is None:
        raise Conflict("The limit `default` is off: start the lab without RATE_LIMIT_DEFAULT.")
    quota, window = map(float, policy.groups())
    answers = [first, *arena.until_each_worker(lambda: [Ask("GET", f"{API}/products", by)] * 30, status=429)]
    passed = sum(answer.status == 200 for answer in answers)
    seconds = max(answer.ended for answer in answers) - first.began
    back = int(seconds * quota / window) + 1  # what has become free again meanwhile
    return Outcome(
        passed <= quota + back,
        f"limit {quota:.0f} in {window:.0f} s: of {len(answers)} requests in {seconds:.1f} s, {passed} passed",
    )


def refreshes(arena: Arena) -> Outcome:
    """All within the grace. The one successor must be good for the next refresh."""
    token = arena.backstage.new_user().tokens.refresh_token
    ask = _refresh(arena, token)
    answers = arena.storm([ask] * 20)
    successors = {answer.data["refreshToken"] for answer in answers if answer.status == 200}
    usable = [arena.ask(*ask._replace(body={"refreshToken": successor})).status for successor in successors]
    holds = {answer.status for answer in answers} == {200} and usable == [200]
    succeeded = sum(answer.status == 200 for answer in answers)
    tokens, statuses = _count(len(successors), "token"), ", ".join(map(str, usable)) or "none"
    return Outcome(
        holds,
        f"{succeeded} of {len(answers)} refreshes succeed, {tokens} between them; its next refresh gets {statuses}",
    )


def thief(arena: Arena) -> Outcome:
    """The first of three tokens again, while the owner reads."""
    owner = arena.backstage.new_user()
    tokens = [owner.tokens.refresh_token]
    for _ in range(2):
        pair = arena.ask(*_refresh(arena, tokens[-1])).data
        tokens.append(pair["refreshToken"])
    stolen = _refresh(arena, tokens[0])._replace(label="thief")
    own = Ask("GET", f"{API}/users/me", owner, label="owner")
    answers = arena.storm([own, own, stolen] * 6)
    won = sum(answer.status == 200 for answer in answers if answer.ask.label == "thief")
    access = arena.ask(*own).status
    refresh = arena.ask(*stolen._replace(body={"refreshToken": tokens[-1]})).status
    return Outcome(
        won == 0 and access == refresh == 401,
        f"the thief got {won} tokens in 6 tries; then the owner's tokens get {access} and {refresh}",
    )


def crossing(arena: Arena) -> Outcome:
    """25 transfers each way. The balances must be what the successful answers say."""
    admin = arena.backstage.new_user(admin=True)
    ada, grace = (_rich_user(arena, admin) for _ in range(2))
    asks = [
        Ask(
            "POST",
            f"{API}/transfers",
            by,
            {"fromAccountId": source, "toAccountId": target, "amount": 100 + number},
            label=label,
        )
        for number in range(25)
        for (by, source), (_, target), label in ((ada, grace, "A → B"), (grace, ada, "B → A"))
    ]
    answers = arena.storm(asks)
    statuses = Counter(answer.status for answer in answers)
    moved = {
        label: sum(a.ask.body["amount"] for a in answers if a.status == 201 and a.ask.label == label)
        for label in ("A → B", "B → A")
    }
    balances = [_balance(arena, *each) for each in (ada, grace)]
    gain = moved["B → A"] - moved["A → B"]
    holds = balances == [EUROS + gain, EUROS - gain] and statuses == {201: len(asks)}
    return Outcome(
        holds, f"{statuses[201]} of {len(asks)} transfers; {_money(2 * EUROS)} before, {_money(sum(balances))} after"
    )


def last_item(arena: Arena) -> Outcome:
    """The stock and the account are read afterwards."""
    admin = arena.backstage.new_user(admin=True)
    by, account = _rich_user(arena, admin)
    product = _product(arena, stock=1)
    order = {"accountId": account, "items": [{"productId": product, "quantity": 1}]}
    answers = arena.storm([Ask("POST", f"{API}/orders", by, order)] * 30)
    statuses = Counter(answer.status for answer in answers)
    [stock] = {answer.data["stock"] for answer in [arena.ask("GET", f"{API}/products/{product}", admin)]}
    paid = EUROS - _balance(arena, by, account)
    holds = statuses == {201: 1, 409: 29} and (stock, paid) == (0, 250)
    return Outcome(holds, f"30 orders for 1 item: {statuses[201]} placed, stock {stock}, {_money(paid)} paid")


def retries(arena: Arena) -> Outcome:
    """The account is read afterwards."""
    admin = arena.backstage.new_user(admin=True)
    (by, source), (_, target) = (_rich_user(arena, admin) for _ in range(2))
    body = {"fromAccountId": source, "toAccountId": target, "amount": 500}
    answers = arena.storm([Ask("POST", f"{API}/transfers", by, body, {"Idempotency-Key": "lunch-1"})] * 20)
    made = {answer.data["id"] for answer in answers if answer.status == 201}
    replayed = sum("idempotency-replayed" in answer.headers for answer in answers)
    paid = EUROS - _balance(arena, by, source)
    holds = len(made) == 1 and replayed == 19 and paid == 500
    return Outcome(
        holds,
        f"20 requests with one key: {_count(len(made), 'transfer')}, {_count(replayed, 'replay')}, {_money(paid)} paid",
    )


def one_truth(arena: Arena) -> Outcome:
    """Each worker has read the product before its change, and reads it after the answer to the change."""
    admin = arena.backstage.new_user(admin=True)
    path = f"{API}/products/{_product(arena, stock=10)}"
    arena.read_by_each_worker(path, "before")  # now each worker has it in its cache
    arena.ask("PATCH", path, admin, {"stock": 7})
    answers = [answer for answer in arena.read_by_each_worker(path, "after") if answer.status == 200]
    stale = {answer.worker for answer in answers if answer.data["stock"] == 10}
    workers = {answer.worker for answer in answers}
    return Outcome(
        not stale,
        f"stock 10 became 7: {len(stale)} of {len(workers)} workers still say 10",
        lambda answer: "stale" if answer.ask.label == "after" and answer.worker in stale else "",
    )


STORMS = {
    "cold-key": Storm("50 for one cold key", "Concurrent misses share one load.", cold_key, lab_only=True),
    "burst": Storm("A burst into the limiter", "No more requests pass than the limit allows.", burst),
    "refreshes": Storm("20 refreshes of one token", "All get the same successor, and the login goes on.", refreshes),
    "thief": Storm("A thief with an old token", "The thief gets nothing, and the whole login ends.", thief),
    "crossing": Storm("A → B against B → A", "No transfer blocks, and no cent is lost or made.", crossing),
    "last-item": Storm("30 for the last item", "One order is placed, and paid once.", last_item),
    "retries": Storm("A retry storm with one key", "The effect happens once; all others are replays.", retries),
    "one-truth": Storm("Reads after a write", "No worker shows what was before an answered write.", one_truth),
}


def run(name: str, arena: Arena) -> dict[str, Any]:
    """Run the storm: its promise, whether it held, the figures, and the requests with times in milliseconds."""
    storm = STORMS[name]
    outcome = storm.run(arena)
    start = min(answer.began for answer in arena.drawn)
    return {
        "title": storm.title, "promise": storm.promise, "holds": outcome.holds, "figures": outcome.figures,
        "requests": [
            {
                "label": answer.ask.label or f"{answer.ask.method} {answer.ask.path.removeprefix(API)}",
                "status": answer.status, "worker": answer.worker,
                "start": round((answer.began - start) * 1000, 2), "ms": round((answer.ended - answer.began) * 1000, 2),
                "note": outcome.note(answer),
            }
            for answer in arena.drawn
        ],
    }  # fmt: skip


def _refresh(arena: Arena, token: str) -> Ask:
    """A refresh that another user sends: without a user it would count for the address, which storms share."""
    return Ask("POST", f"{API}/auth/refresh", arena.backstage.new_user(), {"refreshToken": token})


def _product(arena: Arena, stock: int) -> str:
    """The id of a new product that costs 2.50."""
    admin = arena.backstage.new_user(admin=True)
    body = {"sku": admin.user_id, "name": "Tea", "unitPrice": 250, "currency": "EUR", "stock": stock}
    return str(arena.ask("POST", f"{API}/products", admin, body).data["id"])


def _rich_user(arena: Arena, admin: Login) -> tuple[Login, str]:
    """A new user with an account of 1,000.00."""
    by = arena.backstage.new_user()
    account = str(arena.ask("POST", f"{API}/accounts", by, {"currency": "EUR"}).data["id"])
    arena.ask("POST", f"{API}/accounts/{account}/deposits", admin, {"amount": EUROS})
    return by, account


def _balance(arena: Arena, by: Login, account: str) -> int:
    return int(arena.ask("GET", f"{API}/accounts/{account}", by).data["balance"])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _money(cents: int) -> str:
    return f"{cents / 100:,.2f}"


def _cache_outcome(answer: Answer) -> str:
    """Of the product: the identity's lookup comes first and is always `no cache`."""
    header = answer.headers.get("server-timing", "")
    return "".join(re.findall(r'cache;dur=[\d.]+;desc="no cache; ([\w ]+)"', header))
