"""Rate limits: the `default` policy on everything, the `auth` policy on what guesses or sends mail.

`default` counts a user, or the address of who has not said who he is. `auth` counts the address, and one e-mail address
apart, so that neither many addresses against one user nor one address against many users get far.
The headers are those of draft-ietf-httpapi-ratelimit-headers, on every answer that was counted.
"""

import math
from functools import cache

from backend.errors import RateLimited
from backend.infrastructure.rate_limiter import Policy, RateLimiter, Verdict
from backend.settings import Limit
from backend.web.client_address import limit_key
from backend.web.middleware import Handle
from backend.web.request import Request
from backend.web.response import Response

UNLIMITED = {"/healthz", "/readyz"}


class RateLimits:
    """Thread-safe. A limit of None is switched off."""

    def __init__(self, limiter: RateLimiter, default: Limit | None, auth: Limit | None) -> None:
        self._limiter = limiter
        self._default = Policy("default", default.quota, default.window) if default else None
        self._auth = Policy("auth", auth.quota, auth.window) if auth else None

    def middleware(self, following: Handle) -> Handle:
        """Counts a request before anything is done for it."""

        def handle(request: Request) -> Response:
            if request.path in UNLIMITED:
                return following(request)
            caller, address = request.caller, limit_key(request.client)
            try:
                self._count(request, self._default, f"user {caller.user.id}" if caller else f"address {address}")
                if request.endpoint is not None and request.endpoint.route.auth_limited:
                    self._count(request, self._auth, f"address {address}")
                return following(request)
            finally:
                request.answer_headers += _headers(request.verdicts)

        return handle

    def count_email(self, request: Request, email: str) -> None:
        """Count a login or reset for this address under `auth`. Raises RateLimited."""
        self._count(request, self._auth, f"email {email.casefold()}")

    def _count(self, request: Request, policy: Policy | None, subject: str) -> None:
        if policy is None:
            return
        verdict = self._limiter.hit(policy, subject)
        before = request.verdicts.get(policy)
        if before is None or not verdict.allowed or verdict.remaining < before.remaining:
            request.verdicts[policy] = verdict  # of two counts, the one that is nearer its end
        if not verdict.allowed:
            raise RateLimited(max(1, math.ceil(verdict.retry_after)))


def _headers(verdicts: dict[Policy, Verdict]) -> list[tuple[str, str]]:
    if not verdicts:
        return []
    states = [
        f'"{policy.name}";r={verdict.remaining};t={math.ceil(verdict.reset_after)}'
        for policy, verdict in verdicts.items()
    ]
    return [("RateLimit-Policy", ", ".join(map(_described, verdicts))), ("RateLimit", ", ".join(states))]


@cache
def _described(policy: Policy) -> str:
    return f'"{policy.name}";q={policy.quota};w={policy.window:g}'
