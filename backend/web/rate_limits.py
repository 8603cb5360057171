"""Rate limits: the `default` policy on all requests, the `auth` policy on those that check passwords or send mail.

`default` is keyed by user id, or by client address for anonymous requests. `auth` keeps three kinds of count, each with
the whole quota: attempts from a client address, wrong passwords for an e-mail, resets for an e-mail. So one address
cannot guess at many users, and many addresses cannot guess at one. Wrong passwords from an address that the user has
logged in from count under that address alone, so guesses from elsewhere do not lock the user out.

Every counted response has the headers of draft-ietf-httpapi-ratelimit-headers.
"""

import math
from collections.abc import Callable
from functools import cache

from backend.domain import fold, network_of
from backend.infrastructure.rate_limiter import Policy, RateLimiter, RateLimitResult
from backend.settings import Limit
from backend.web.counts import Count
from backend.web.middleware import Handler
from backend.web.request import Request
from backend.web.response import Response

UNLIMITED = {"/healthz", "/readyz", "/metrics"}


class RateLimits:
    """Thread-safe. A limit of None is off. `is_known(email, address)`: the user has logged in from there recently."""

    def __init__(
        self, limiter: RateLimiter, default: Limit | None, auth: Limit | None, is_known: Callable[[str, str], bool]
    ) -> None:
        self._limiter = limiter
        self._default = Policy("default", default.quota, default.window) if default else None
        self._auth = Policy("auth", auth.quota, auth.window) if auth else None
        self._is_known = is_known

    def middleware(self, next_handler: Handler) -> Handler:
        """Count a request before any other work is done for it."""

        def handle(request: Request) -> Response:
            if request.path in UNLIMITED:
                return next_handler(request)
            caller = request.caller
            subject = f"user {caller.user.id}" if caller else f"address {network_of(request.client)}"
            try:
                self._hit(request, self._default, subject)
                if request.endpoint is not None and request.endpoint.route.auth_limited:
                    self.count_try(request)
                return next_handler(request)
            finally:
                request.response_headers += _headers(request.counts)

        return handle

    def count_try(self, request: Request) -> None:
        """Count, by client address, a request that may check a password or send mail. Raises RateLimited."""
        self._hit(request, self._auth, f"address {network_of(request.client)}")

    def count_reset(self, request: Request, email: str) -> None:
        """Count a reset for this e-mail, whether or not it is a user's. Raises RateLimited."""
        self._hit(request, self._auth, f"resets of {fold(email)}")

    def wrong_passwords(self, request: Request, email: str) -> Count | None:
        """The count of wrong passwords for this e-mail, a user's or not. Raises RateLimited if it is full.

        None if the policy is off, and for an address that the user has logged in from: the attempt counts under it.
        """
        if self._auth is None or self._is_known(email, request.client):
            return None
        count = self._count(request, self._auth, f"wrong passwords of {fold(email)}")
        count.peek()
        return count

    def _hit(self, request: Request, policy: Policy | None, subject: str) -> None:
        """Count the request once, even if a lost race makes its handler run again."""
        counted = any((count.policy, count.subject) == (policy, subject) for count in request.counts)
        if policy is not None and not counted:
            self._count(request, policy, subject).hit()

    def _count(self, request: Request, policy: Policy, subject: str) -> Count:
        count = Count(self._limiter, policy, subject)
        request.counts.append(count)
        return count


def _headers(counts: list[Count]) -> list[tuple[str, str]]:
    """The headers of the counts; of several under one policy, the one that has used most."""
    limit_results: dict[Policy, RateLimitResult] = {}
    for policy, result in ((count.policy, count.result) for count in counts):
        if result and (policy not in limit_results or result.reset_after > limit_results[policy].reset_after):
            limit_results[policy] = result
    if not limit_results:
        return []
    states = [
        f'"{policy.name}";r={result.remaining};t={math.ceil(result.reset_after)}'
        for policy, result in limit_results.items()
    ]
    return [("RateLimit-Policy", ", ".join(map(_described, limit_results))), ("RateLimit", ", ".join(states))]


@cache
def _described(policy: Policy) -> str:
    return f'"{policy.name}";q={policy.quota};w={policy.window:g}'
