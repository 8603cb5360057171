"""The upper bound for writes: the statements of our transfer on one connection, with nothing around them.

They are recorded while the service makes two transfers between the same accounts. The two differ in the ids of their
rows, the number of their event and their times; the loop replaces only these.
"""

import itertools
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from backend.infrastructure.ids import new_id
from tests.bench.client import Outcome
from tests.bench.contenders import PASSWORD, our_database
from tests.bench.service import service

Statement = tuple[str, Any]


class RawTransfers:
    """A database of ours in `folder`, and one connection as durable as ours. Used by one thread."""

    def __init__(self, folder: Path) -> None:
        (own := folder / "raw").mkdir()
        tables = our_database(own / "app.db")
        accounts = [account["id"] for account in tables["accounts"]]
        pairs = list(itertools.pairwise([*accounts, accounts[0]]))
        first, second = overheard(own / "app.db", tables["users"][0]["email"], *pairs[0])
        self._statements = first
        self._made = made_values(first, second)
        self._pairs = itertools.cycle(dict(zip(pairs[0], pair, strict=True)) for pair in pairs)
        self._sqlite = sqlite3.connect(own / "app.db", isolation_level=None)
        for pragma in ("synchronous = FULL", "foreign_keys = ON"):
            self._sqlite.execute(f"PRAGMA {pragma}")

    def load(self, seconds: float) -> Outcome:
        """Make one transfer after another for `seconds`."""
        outcome = Outcome(seconds)
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            values: dict[str, Any] = next(self._pairs) | {value: new_id() for value in self._made}
            for sql, parameters in self._statements:
                returned = self._sqlite.execute(sql, replaced(parameters, values)).fetchall()
                if sql.endswith("RETURNING seq"):
                    values["seq"] = returned[0][0]
            outcome.answers["201"] += 1
            outcome.waits.append((time.perf_counter() - began) * 1000)
        return outcome

    def close(self) -> None:
        self._sqlite.close()


def overheard(database: Path, email: str, source: str, target: str) -> tuple[list[Statement], list[Statement]]:
    """The statements from BEGIN IMMEDIATE to COMMIT of each of two transfers."""
    said: list[Statement] = []
    body = {"fromAccountId": source, "toAccountId": target, "amount": 1}
    with overhearing(said), service(database) as api:
        caller = api.log_in(email, PASSWORD)
        api.app.relay.stop()  # otherwise its writes could be committed together with a transfer
        transfers = []
        for _ in range(2):
            said.clear()
            if api.post("/transfers", caller, body).status_code != 201:
                raise RuntimeError("the service refuses the transfer that is to be overheard")
            first = next(n for n, (sql, _) in enumerate(said) if sql.startswith("BEGIN IMMEDIATE"))
            last = next(n for n, (sql, _) in enumerate(said) if sql == "COMMIT" and n > first)
            transfers.append(said[first : last + 1])
    return transfers[0], transfers[1]


@contextmanager
def overhearing(said: list[Statement]) -> Iterator[None]:
    """Until the block ends, connections record what this thread executes."""
    listener = threading.get_ident()

    class Overheard(sqlite3.Connection):
        def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
            if threading.get_ident() == listener:
                said.append((sql, parameters))
            return super().execute(sql, parameters)

    with patch("sqlite3.connect", partial(sqlite3.connect, factory=Overheard)):
        yield


def made_values(first: list[Statement], second: list[Statement]) -> set[str]:
    """The texts of the first that are others in the second: ids that a transfer makes. Raises ValueError if the two
    are not the same statements."""
    made = set()
    for (sql, one), (same, other) in zip(first, second, strict=True):
        if sql != same:
            raise ValueError(f"one transfer says {sql!r}, the next {same!r}")
        differing = [value for value, now in zip(values_of(one), values_of(other), strict=True) if value != now]
        made |= {value for value in differing if isinstance(value, str)}
    return made


def values_of(parameters: Any) -> list[Any]:
    return list(parameters.values() if isinstance(parameters, dict) else parameters)


def replaced(parameters: Any, values: dict[str, Any]) -> Any:
    """With what `values` has for a name or, more often, for a value."""
    if isinstance(parameters, dict):
        return {name: values.get(name, values.get(value, value)) for name, value in parameters.items()}
    return tuple(values.get(value, value) for value in parameters)
