"""What one request counts: it raises when the quota is used up, and tells the state."""

import pytest

from backend.errors import RateLimited
from backend.infrastructure.rate_limiter import Policy, RateLimiter
from backend.web.counts import Count


def test_a_count_raises_when_it_is_full_and_tells_its_state():
    count = Count(RateLimiter(clock=lambda: 10**15), Policy("auth", 10, 60), "a")
    for _ in range(10):
        count.peek()
        count.hit()
    for full in (count.peek, count.hit):
        with pytest.raises(RateLimited) as refused:
            full()
        assert (refused.value.headers, count.result) == ({"Retry-After": "6"}, (False, 0, 60.0, 6.0))
    count.refund()
    assert count.result == (True, 1, 54.0, 0.0)
