"""Rights hold at the commit: a write checks its caller again, under the write lock, before it writes anything.

A request is authenticated before it gets the lock and may wait seconds for it. Meanwhile another request can end its
session, deactivate its user or take away the admin role. Every service opens the transaction of a caller's request
here, so no write commits after a commit that took away the right to make it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from backend.domain import Caller
from backend.errors import Forbidden, Unauthorized
from backend.infrastructure.database import Database, Tx
from backend.repositories import users


@contextmanager
def authorised(database: Database, caller: Caller, user_id: str | None = None) -> Iterator[tuple[Tx, Caller]]:
    """A write transaction, and the caller as read in it, to be used instead of `caller`.

    If it changes a user, `user_id` names that user, so that both are locked in the order of their ids.

    Raises Unauthorized `revoked` if the session has ended or its user is inactive, Forbidden if the request was
    admitted by the admin role and the role is gone; nothing is written then. Raises Unavailable as
    `Database.transaction` does.
    """
    with database.transaction() as tx:
        if user_id not in (None, caller.user.id):
            users.lock(tx, (caller.user.id, user_id))
        user = users.active_of_session(tx, caller.session_id)
        if user is None:
            raise Unauthorized("revoked")
        present = replace(caller, user=user)
        yield tx, as_admin(present) if caller.as_admin else present


def as_admin(caller: Caller) -> Caller:
    """The caller, marked so that the admin role is checked again at the commit. Raises Forbidden without the role."""
    if not caller.is_admin:
        raise Forbidden
    return replace(caller, as_admin=True)
