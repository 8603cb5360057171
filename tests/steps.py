"""What statements cost, as a number that does not depend on the load of the machine."""

import sqlite3
from collections.abc import Callable


def steps(connection: sqlite3.Connection, work: Callable[[], object]) -> int:
    """The steps that SQLite's virtual machine takes for `work` on this connection."""
    taken = [0]

    def count() -> None:
        taken[0] += 1

    connection.set_progress_handler(count, 1)
    work()
    connection.set_progress_handler(None, 0)
    return taken[0]
