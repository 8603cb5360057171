"""`python -m tests.bench.strangers COUNT`: this process's RSS in MB before and after so many clients, each with another
address. A tenth of them come through the whole chain, by a proxy that it trusts, and all of them to the limiter, which
is the only one to remember an address for longer than a request: a million requests would take most of a minute.
"""

import re
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

from backend.infrastructure.rate_limiter import Policy
from backend.production.rate_limiter import SharedRateLimiter
from backend.settings import Limit, Networks
from tests.bench.service import ask, asked_for_json, environ, folder, service


def main(count: int) -> None:
    limiter, limit = SharedRateLimiter(), Limit(300, 60)
    proxies = Networks("127.0.0.1")
    with folder() as path, service(path / "app.db", limiter, trusted_proxies=proxies, rate_limit_default=limit) as api:
        request = environ("GET", "/products")
        asked_for_json(api.app, request)
        before = resident()
        for address in addresses(count // 10):
            request["HTTP_X_FORWARDED_FOR"] = address
            ask(api.app, request)
        policy = Policy("default", limit.quota, limit.window)
        for address in addresses(count):
            limiter.hit(policy, f"address {address}")
        print(before, resident())


def addresses(count: int) -> Iterator[str]:
    return (str(IPv4Address("20.0.0.0") + number) for number in range(count))


def resident() -> float:
    """RSS in MB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(found[1]) * 1024 / 1e6 if found else 0.0


if __name__ == "__main__":
    main(int(sys.argv[1]))
