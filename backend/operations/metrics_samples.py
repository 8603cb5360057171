"""What `/metrics` looks up at each scrape: the states of database, outbox and password queue, and the build.

They belong to the machine and not to a worker, so one worker's look is enough. What cannot be looked up is left out,
and `database_up` is 0 while the database cannot be read. The outbox costs a few thousand index entries at most: counts
stop at OUTBOX_COUNTED for each subscriber.
"""

import logging
import platform
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from backend import __version__
from backend.errors import Unavailable
from backend.infrastructure.database import Database
from backend.infrastructure.passwords import Passwords
from backend.repositories import outbox

OUTBOX_COUNTED = 10_000

log = logging.getLogger(__name__)


class Samples:
    """A collector of prometheus_client. Thread-safe. `sqlite_file` is None on another engine."""

    def __init__(self, sqlite_file: Path | None, database: Database, passwords: Passwords) -> None:
        self._wal = sqlite_file and sqlite_file.with_name(f"{sqlite_file.name}-wal")
        self._database, self._passwords = database, passwords

    def collect(self) -> Iterator[Metric]:
        """The metrics of this moment. Raises nothing."""
        build = {"version": __version__, "python": platform.python_version()}
        if self._wal:
            build["sqlite"] = sqlite3.sqlite_version
        yield _gauge("build_info", "Versions; the value is always 1.", 1, **build)
        with suppress(Unavailable):  # no descriptor is free
            running, waiting = self._passwords.queue()
            yield _gauge("bcrypt_running", "Password checks that run on this machine.", running)
            yield _gauge("bcrypt_waiting", "Password checks that wait for a core.", waiting)
        if self._wal:
            with suppress(OSError):
                yield _gauge("sqlite_wal_bytes", "Size of the write-ahead log.", self._wal.stat().st_size)
        yield from self._of_database()

    def _of_database(self) -> Iterator[Metric]:
        try:
            with self._database.snapshot() as tx:
                backlog, now = outbox.backlog(tx, OUTBOX_COUNTED), tx.now
        except Exception as error:  # of any engine
            log.warning("metrics without the database: %s", error)
            yield _gauge("database_up", "Whether the database can be read.", 0)
            return
        yield _gauge("database_up", "Whether the database can be read.", 1)
        deliveries = GaugeMetricFamily(
            "outbox_deliveries", f"Deliveries by state, at most {OUTBOX_COUNTED} a subscriber.", labels=["state"]
        )
        for state, count in (("due", backlog.due), ("waiting", backlog.waiting), ("dead", backlog.dead)):
            deliveries.add_metric([state], count)
        yield deliveries
        age = 0.0 if backlog.oldest is None else max(0, now - backlog.oldest) / 1000
        yield _gauge("outbox_oldest_due_seconds", "How long the oldest due delivery has been due.", age)


def _gauge(name: str, text: str, value: float, **labels: str) -> Metric:
    gauge = GaugeMetricFamily(name, text, labels=list(labels))
    gauge.add_metric(list(labels.values()), value)
    return gauge
