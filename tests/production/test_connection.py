"""Which connections a worker closes first when it holds too many bytes or connections."""

import contextlib
import socket
from collections.abc import Iterator

import pytest

from backend.production.connection import Connection, longest_waiting, surplus


@pytest.fixture
def waiting() -> Iterator[list[Connection]]:
    """Five connections, the longest waiting first. Each client has sent 10 bytes."""
    with contextlib.ExitStack() as stack:
        conns = []
        for _ in range(5):
            ours, theirs = socket.socketpair()
            stack.enter_context(theirs)
            conns.append(Connection(stack.enter_context(ours), None, None))
            conns[-1].allow(10)
            conns[-1].reader.feed(b"GET / HTTP")
        yield conns


@pytest.mark.parametrize(("limit", "closed"), [(50, 0), (49, 1), (40, 1), (39, 2), (1, 5)])
def test_the_longest_waiting_are_the_surplus(waiting: list[Connection], limit: int, closed: int) -> None:
    """No more of them than needed. The newest are the least likely to be hostile."""
    assert surplus(set(waiting), limit) == waiting[:closed]


def test_a_connection_that_holds_nothing_is_no_surplus(waiting: list[Connection]) -> None:
    waiting[0].reader.feed(b"/1.1\r\nHost: a\r\n\r\n")
    assert waiting[0].reader.take() is not None
    assert surplus(set(waiting), 1) == waiting[1:]


def test_the_longest_waiting_make_room(waiting: list[Connection]) -> None:
    """A connection whose wait has restarted is the newest."""
    waiting[0].allow(10)
    assert longest_waiting(set(waiting), 3) == waiting[1:4]
    assert longest_waiting(set(waiting), 9) == [*waiting[1:], waiting[0]]
