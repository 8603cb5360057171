"""A process of its own that holds the write gate."""

from pathlib import Path

from backend.production.write_gate import WriteGate
from tests.forked import Forked, Signal


def held_by_a_child(path: Path, until: Signal) -> Forked:
    """Returns once the child holds the gate, which it releases at the signal."""
    has = Signal()

    def work() -> None:
        gate = WriteGate(path)
        assert gate.acquire(5)
        has.say()
        until.wait()
        gate.release()

    child = Forked(work)
    has.wait()
    return child
