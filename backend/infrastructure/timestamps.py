"""Points in time as text: RFC 3339 in UTC, to the millisecond."""

import time
from datetime import UTC, datetime
from functools import lru_cache


def iso_time(milliseconds: int) -> str:
    """The text of a time given in milliseconds since 1970."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_iso_second(seconds)}.{rest:03d}Z"


def iso_now() -> str:
    return iso_time(time.time_ns() // 1_000_000)


@lru_cache(4096)  # without it a page of 20 orders, which shows some 40 times, takes 50 to 80 µs longer
def _iso_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()
