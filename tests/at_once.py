"""Races in one process: many threads that start at the same moment."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def at_once(calls: Iterable[Callable[[], T]]) -> list[T]:
    """The results of all `calls`: each runs in its own thread, and all start at the same moment."""
    works = list(calls)
    ready = threading.Barrier(len(works))

    def run(work: Callable[[], T]) -> T:
        ready.wait(60)
        return work()

    with ThreadPoolExecutor(len(works)) as threads:
        return list(threads.map(run, works))


def asleep(thread: threading.Thread, seconds: float = 0.03) -> None:
    """Return once `thread` has slept for `seconds` without a break: it waits for a thread or process, not for CPU.

    (A thread that waits for the interpreter wakes every 5 ms.)
    """
    _sleeps(Path(f"/proc/self/task/{thread.native_id}/status"), seconds)


def process_asleep(pid: int) -> None:
    """The same for the main thread of another process."""
    _sleeps(Path(f"/proc/{pid}/status"), 0.03)


def _sleeps(status: Path, seconds: float) -> None:
    before, slept_since, end = "", 0.0, time.monotonic() + 60
    while time.monotonic() < end:
        now = "".join(line for line in status.read_text().splitlines() if line.startswith(("State", "vol", "nonvol")))
        if now != before or "sleeping" not in now:
            before, slept_since = now, time.monotonic()
        elif time.monotonic() - slept_since > seconds:
            return
        time.sleep(0.002)
    raise AssertionError("the thread does not sleep")


@contextmanager
def deleting(path: Path) -> Iterator[None]:
    """Delete `path` every few milliseconds until the block ends, even if it is created again."""
    over = threading.Event()

    def delete() -> None:
        while not over.wait(0.003):
            path.unlink(missing_ok=True)

    thread = threading.Thread(target=delete)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
