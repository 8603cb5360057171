"""UUIDv7 (RFC 9562 §5.7, method 3): ids that sort by time of creation.

An id has 48 bits of milliseconds, 12 bits of fraction (steps of a quarter of a microsecond) and 62 random bits. Within
a process, each id is greater than the one before, even if the clock is set back. Between processes, ids that are made
under the write lock sort in the order of the writes.
"""

import os
import re
import threading
import time
from collections.abc import Callable

CANONICAL = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_lock = threading.Lock()  # guards _last
_last = 0


def new_id(clock: Callable[[], int] = time.time_ns) -> str:
    """A new id. Thread-safe."""
    global _last  # noqa: PLW0603 - ids rise within a process, so this is state of the process
    milliseconds, rest = divmod(clock(), 1_000_000)
    with _lock:
        _last = ticks = max(milliseconds << 12 | (rest << 12) // 1_000_000, _last + 1)
    random = int.from_bytes(os.urandom(8)) >> 2
    value = (ticks >> 12) << 80 | 7 << 76 | (ticks & 0xFFF) << 64 | 2 << 62 | random
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def is_id(text: str) -> bool:
    """Whether the text is a canonical, lowercase UUID of any version."""
    return CANONICAL.fullmatch(text) is not None
