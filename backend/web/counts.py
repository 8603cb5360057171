"""One count that a request makes with the rate limiter: one subject under one policy."""

import math

from backend.errors import RateLimited
from backend.infrastructure.rate_limiter import Policy, RateLimiter, RateLimitResult


class Count:
    """Used by one thread. `result` is the limiter's latest; None before the first call."""

    def __init__(self, limiter: RateLimiter, policy: Policy, subject: str) -> None:
        self.policy, self.subject = policy, subject
        self.result: RateLimitResult | None = None
        self._limiter = limiter
        self._hit_at = 0

    def hit(self) -> None:
        """Count the request. Raises RateLimited."""
        self._hit_at = self._limiter.clock()
        self._require(self._limiter.hit(self.policy, self.subject))

    def peek(self) -> None:
        """Count nothing. Raises RateLimited if a hit could not pass."""
        self._require(self._limiter.peek(self.policy, self.subject))

    def refund(self) -> None:
        """Take the hit back."""
        self.result = self._limiter.refund(self.policy, self.subject, self._hit_at)

    def _require(self, result: RateLimitResult) -> None:
        self.result = result
        if not result.allowed:
            raise RateLimited(max(1, math.ceil(result.retry_after)))
