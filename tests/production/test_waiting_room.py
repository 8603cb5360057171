"""Which connections have to go when all of them together hold too much, or are too many."""

import contextlib
import selectors
import socket
from collections.abc import Iterator

import pytest

from backend.production.connection import Connection
from backend.production.waiting_room import WaitingRoom


@pytest.fixture
def room() -> Iterator[WaitingRoom]:
    with selectors.DefaultSelector() as poller:
        yield WaitingRoom(poller, lambda conn, step: step(conn))


@pytest.fixture
def waiting(room: WaitingRoom) -> Iterator[list[Connection]]:
    """Five that have sent 10 bytes each, the first of them before the others; they stand in the room in no order."""
    with contextlib.ExitStack() as stack:
        conns = []
        for _ in range(5):
            ours, theirs = socket.socketpair()
            stack.enter_context(theirs)
            conns.append(Connection(stack.enter_context(ours), None, None))
            conns[-1].allow(10)
            conns[-1].reader.feed(b"GET / HTTP")
        for conn in sorted(conns, key=id):
            room.enter(conn, selectors.EVENT_READ, lambda conn: None)
        yield conns


@pytest.mark.parametrize(("most", "gone"), [(50, 0), (49, 1), (40, 1), (39, 2), (1, 5)])
def test_the_surplus_is_taken_from_those_that_have_waited_longest(
    room: WaitingRoom, waiting: list[Connection], most: int, gone: int
) -> None:
    """No more of them than it takes. The newest may well be quite well-behaved."""
    assert list(room.take_surplus(most)) == waiting[:gone]
    assert len(room) == 5 - gone


def test_who_holds_nothing_is_no_surplus(room: WaitingRoom, waiting: list[Connection]) -> None:
    waiting[0].reader.feed(b"/1.1\r\nHost: a\r\n\r\n")
    assert waiting[0].reader.take() is not None
    assert list(room.take_surplus(1)) == waiting[1:]


def test_those_that_have_waited_longest_make_room(room: WaitingRoom, waiting: list[Connection]) -> None:
    """And a connection that has begun to wait anew is among the newest."""
    waiting[0].allow(10)
    assert room.take_longest(3) == waiting[1:4]
    assert room.take_longest(3) == [waiting[4], waiting[0]]
