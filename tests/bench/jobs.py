"""The jobs of the contenders, as pre-encoded requests."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench.furniture import Tables

ONE_USER, PRODUCT_PAGE, ORDER_LIST, TRANSFER = "one user", "product page", "order list", "transfer"
LOGIN, ORDER = "login", "order"
READS = (ONE_USER, PRODUCT_PAGE, ORDER_LIST)
MARKERS = {
    ONE_USER: (b'"email"', 1), PRODUCT_PAGE: (b'"sku"', 20), ORDER_LIST: (b'"quantity"', 60), TRANSFER: (b'"amount"', 1)
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """Requests, sent in turns; the first 2xx on each connection must contain `marker` that many times."""

    requests: Sequence[bytes]
    marker: bytes
    times: int


def jobs(tables: Tables, tokens: Sequence[str], paths: Mapping[str, str]) -> dict[str, Job]:
    """Each caller requests itself (`{}` in the path is its id) and its orders, and pays the next caller."""
    accounts = [account["id"] for account in tables["accounts"]]
    requests = {
        ONE_USER: [
            get(paths[ONE_USER].format(user["id"]), token)
            for user, token in zip(tables["users"], tokens, strict=False)  # not every user is a caller
        ],
        PRODUCT_PAGE: [get(paths[PRODUCT_PAGE])],
        ORDER_LIST: [get(paths[ORDER_LIST], token) for token in tokens],
        TRANSFER: [
            post(paths[TRANSFER], {"fromAccountId": source, "toAccountId": target, "amount": 1}, token)
            for source, target, token in zip(accounts, [*accounts[1:], accounts[0]], tokens, strict=True)
        ],
    }
    return {name: Job(asked, *MARKERS[name]) for name, asked in requests.items()}


def orders(tables: Tables, tokens: Sequence[str], path: str) -> Job:
    """Each caller orders one product after the other. All pay the shop's one account."""
    return Job(
        [
            post(path, {"accountId": account["id"], "items": [{"productId": product["id"], "quantity": 1}]}, token)
            for product in tables["products"] for account, token in zip(tables["accounts"], tokens, strict=True)
        ],
        b'"quantity"', 1,
    )  # fmt: skip


def same_length(job: Job, answer: bytes) -> Job:
    """The job with the same headers for `peers/bare_function.py`, with answers of the same length."""
    length = len(answer.partition(b"\r\n\r\n")[2])
    requests = [b"GET /%d HTTP/1.1\r\n" % length + request.partition(b"\r\n")[2] for request in job.requests]
    return Job(requests, b"_", length)


def get(path: str, token: str = "") -> bytes:
    return _request(f"GET {path}", token, b"")


def post(path: str, body: Mapping[str, object], token: str = "") -> bytes:
    return _request(f"POST {path}", token, json.dumps(body).encode())


def data_of(answer: bytes) -> Any:
    """The answer's body. Raises RuntimeError unless it is that of a success."""
    if answer[9:10] != b"2":
        raise RuntimeError(answer[:500])
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def _request(line: str, token: str, body: bytes) -> bytes:
    lines = [f"{line} HTTP/1.1", "Host: localhost", "Accept: application/json", "User-Agent: bench"]
    lines += [f"Authorization: Bearer {token}"] * bool(token)
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"] * bool(body)
    return "\r\n".join([*lines, "", ""]).encode() + body
