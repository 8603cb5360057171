"""Storms: many requests at the same moment, each against one promise of the service.

A storm uses nothing but HTTP. It measures afterwards whether the promise held, in numbers. Against two workers of the
core two storms break theirs, as the core's docstrings say: its limiter and its cache are of one process.
"""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from backend.errors import Conflict
from backend.lab.load_client import Answer, HttpRequest, LoadClient
from backend.lab.logins import Login
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
    run: Callable[[LoadClient], Outcome]
    lab_only: bool = False  # it needs the lab's traces


def cold_key(client: LoadClient) -> Outcome:
    """A product that no cache has yet. The lab makes its load slow, so that the requests meet in it."""
    path = f"{API}/products/{_product(client, stock=1)}"
    by = client.logins.new_user()
    answers = client.send_at_once([HttpRequest("GET", path, by, headers={SLOW_LOAD: "0.2"})] * 50)
    seen = Counter(_cache_outcome(answer) for answer in answers)
    loads = seen["miss"] + seen["refused"]  # refused: a write came between, so the value was not stored
    holds = loads == 1 and {answer.status for answer in answers} == {200}
    others = f"{seen['coalesced']} joined it, {seen['hit']} found its value"
    figures = f"{len(answers)} requests, {_count(loads, 'load')}; {others}"
    return Outcome(holds, figures, _cache_outcome)


def burst(client: LoadClient) -> Outcome:
    """One user's requests, until each worker refuses. Quota that is back in the meantime may pass. Raises Conflict."""
    by = client.logins.new_user()
    first = client.request("GET", f"{API}/products", by)
    policy = re.search(r'"default";q=(\d+);w=([\d.]+)', first.headers.get("ratelimit-policy", ""))
    if policy is None:
        raise Conflict("The limit `default` is off: start the lab without RATE_LIMIT_DEFAULT.")
    quota, window = map(float, policy.groups())
    answers = [first, *client.until_each_worker(lambda: [HttpRequest("GET", f"{API}/products", by)] * 30, status=429)]
    passed = sum(answer.status == 200 for answer in answers)
    seconds = max(answer.ended for answer in answers) - first.began
    back = int(seconds * quota / window) + 1  # quota that came back while the requests were sent
    return Outcome(
        passed <= quota + back,
        f"limit {quota:.0f} in {window:.0f} s: of {len(answers)} requests in {seconds:.1f} s, {passed} passed",
    )


def refreshes(client: LoadClient) -> Outcome:
    """All within the grace. The one successor must be good for the next refresh."""
    token = client.logins.new_user().tokens.refresh_token
    refresh = _refresh(client, token)
    answers = client.send_at_once([refresh] * 20)
    successors = {answer.data["refreshToken"] for answer in answers if answer.status == 200}
    usable = [client.request(*refresh._replace(body={"refreshToken": successor})).status for successor in successors]
    holds = {answer.status for answer in answers} == {200} and usable == [200]
    succeeded = sum(answer.status == 200 for answer in answers)
    tokens, statuses = _count(len(successors), "token"), ", ".join(map(str, usable)) or "none"
    return Outcome(
        holds,
        f"{succeeded} of {len(answers)} refreshes succeed, {tokens} between them; its next refresh gets {statuses}",
    )


def thief(client: LoadClient) -> Outcome:
    """The first of three tokens again, while the owner reads."""
    owner = client.logins.new_user()
    tokens = [owner.tokens.refresh_token]
    for _ in range(2):
        pair = client.request(*_refresh(client, tokens[-1])).data
        tokens.append(pair["refreshToken"])
    stolen = _refresh(client, tokens[0])._replace(label="thief")
    own = HttpRequest("GET", f"{API}/users/me", owner, label="owner")
    answers = client.send_at_once([own, own, stolen] * 6)
    won = sum(answer.status == 200 for answer in answers if answer.request.label == "thief")
    access = client.request(*own).status
    refresh = client.request(*stolen._replace(body={"refreshToken": tokens[-1]})).status
    return Outcome(
        won == 0 and access == refresh == 401,
        f"the thief got {won} tokens in 6 tries; then the owner's tokens get {access} and {refresh}",
    )


def crossing(client: LoadClient) -> Outcome:
    """25 transfers each way. The balances must be what the successful answers say."""
    admin = client.logins.new_user(admin=True)
    ada, grace = (_rich_user(client, admin) for _ in range(2))
    transfers = [
        _transfer(by, source, target, 100 + number, label=label)
        for number in range(25)
        for (by, source), (_, target), label in ((ada, grace, "A → B"), (grace, ada, "B → A"))
    ]
    answers = client.send_at_once(transfers)
    statuses = Counter(answer.status for answer in answers)
    moved = {
        label: sum(a.request.body["amount"] for a in answers if a.status == 201 and a.request.label == label)
        for label in ("A → B", "B → A")
    }
    balances = [_balance(client, *each) for each in (ada, grace)]
    gain = moved["B → A"] - moved["A → B"]
    holds = balances == [EUROS + gain, EUROS - gain] and statuses == {201: len(transfers)}
    return Outcome(
        holds,
        f"{statuses[201]} of {len(transfers)} transfers; {_money(2 * EUROS)} before, {_money(sum(balances))} after",
    )


def last_item(client: LoadClient) -> Outcome:
    """The stock and the account are read afterwards."""
    admin = client.logins.new_user(admin=True)
    by, account = _rich_user(client, admin)
    product = _product(client, stock=1)
    order = {"accountId": account, "items": [{"productId": product, "quantity": 1}]}
    answers = client.send_at_once([HttpRequest("POST", f"{API}/orders", by, order)] * 30)
    statuses = Counter(answer.status for answer in answers)
    stock = client.request("GET", f"{API}/products/{product}", admin).data["stock"]
    paid = EUROS - _balance(client, by, account)
    holds = statuses == {201: 1, 409: 29} and (stock, paid) == (0, 250)
    return Outcome(holds, f"30 orders for 1 item: {statuses[201]} placed, stock {stock}, {_money(paid)} paid")


def retries(client: LoadClient) -> Outcome:
    """The account is read afterwards."""
    admin = client.logins.new_user(admin=True)
    (by, source), (_, target) = (_rich_user(client, admin) for _ in range(2))
    transfer = _transfer(by, source, target, 500, headers={"Idempotency-Key": "lunch-1"})
    answers = client.send_at_once([transfer] * 20)
    made = {answer.data["id"] for answer in answers if answer.status == 201}
    replayed = sum("idempotency-replayed" in answer.headers for answer in answers)
    paid = EUROS - _balance(client, by, source)
    holds = len(made) == 1 and replayed == 19 and paid == 500
    return Outcome(
        holds,
        f"20 requests with one key: {_count(len(made), 'transfer')}, {_count(replayed, 'replay')}, {_money(paid)} paid",
    )


def one_truth(client: LoadClient) -> Outcome:
    """Each worker has read the product before its change, and reads it after the answer to the change."""
    admin = client.logins.new_user(admin=True)
    path = f"{API}/products/{_product(client, stock=10)}"
    client.read_by_each_worker(path, "before")  # now each worker has it in its cache
    client.request("PATCH", path, admin, {"stock": 7})
    answers = [answer for answer in client.read_by_each_worker(path, "after") if answer.status == 200]
    stale = {answer.worker for answer in answers if answer.data["stock"] == 10}
    workers = {answer.worker for answer in answers}
    return Outcome(
        not stale,
        f"stock 10 became 7: {len(stale)} of {len(workers)} workers still say 10",
        lambda answer: "stale" if answer.request.label == "after" and answer.worker in stale else "",
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


def run(name: str, client: LoadClient) -> dict[str, Any]:
    """Run the storm: its promise, whether it held, the figures, and the requests with times in milliseconds."""
    storm = STORMS[name]
    outcome = storm.run(client)
    start = min(answer.began for answer in client.drawn)
    return {
        "title": storm.title, "promise": storm.promise, "holds": outcome.holds, "figures": outcome.figures,
        "requests": [
            {
                "label": answer.request.label or f"{answer.request.method} {answer.request.path.removeprefix(API)}",
                "status": answer.status, "worker": answer.worker,
                "start": round((answer.began - start) * 1000, 2), "ms": round((answer.ended - answer.began) * 1000, 2),
                "note": outcome.note(answer),
            }
            for answer in client.drawn
        ],
    }  # fmt: skip


def _refresh(client: LoadClient, token: str) -> HttpRequest:
    """A refresh that another user sends: without a user it would count for the address, which storms share."""
    return HttpRequest("POST", f"{API}/auth/refresh", client.logins.new_user(), {"refreshToken": token})


def _transfer(by: Login, source: str, target: str, amount: int, **rest: Any) -> HttpRequest:
    body = {"fromAccountId": source, "toAccountId": target, "amount": amount}
    return HttpRequest("POST", f"{API}/transfers", by, body, **rest)


def _product(client: LoadClient, stock: int) -> str:
    """The id of a new product that costs 2.50."""
    admin = client.logins.new_user(admin=True)
    body = {"sku": admin.user_id, "name": "Tea", "unitPrice": 250, "currency": "EUR", "stock": stock}
    return str(client.request("POST", f"{API}/products", admin, body).data["id"])


def _rich_user(client: LoadClient, admin: Login) -> tuple[Login, str]:
    """A new user with an account of 1,000.00."""
    by = client.logins.new_user()
    account = str(client.request("POST", f"{API}/accounts", by, {"currency": "EUR"}).data["id"])
    client.request("POST", f"{API}/accounts/{account}/deposits", admin, {"amount": EUROS})
    return by, account


def _balance(client: LoadClient, by: Login, account: str) -> int:
    return int(client.request("GET", f"{API}/accounts/{account}", by).data["balance"])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _money(cents: int) -> str:
    return f"{cents / 100:,.2f}"


def _cache_outcome(answer: Answer) -> str:
    """Of the product: the identity's lookup comes first and is always `no cache`."""
    header = answer.headers.get("server-timing", "")
    return "".join(re.findall(r'cache;dur=[\d.]+;desc="no cache; ([\w ]+)"', header))
