"""Housekeeping over hosts: one worker of all works, and another takes over."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from backend.domain import Timestamp
from backend.operations import housekeeping as module
from backend.postgres.database import PostgresTx
from backend.postgres.housekeeping import HostsHousekeeping
from backend.postgres.pipeline import Pipeline
from backend.repositories import idempotency_keys, oldest, sessions
from backend.settings import Settings
from tests.waiting import wait_until

OLD_ROWS = """INSERT INTO reset_requests
    SELECT to_char(n, 'FM000000000'), 'ada@example.com', 1000000000000 FROM generate_series(1, 120) AS n"""
LOCK = "pg_advisory_lock(hashtextextended('housekeeping', 0))"
HOLDERS = """SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted = %s AND objsubid = 1
    AND (classid::bigint << 32) + objid::bigint = hashtextextended('housekeeping', 0)
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""


class Observed(HostsHousekeeping):
    """`tries` has an entry for each time that it asked whether it is the one."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.tries = []

    def is_mine(self):
        self.tries.append(super().is_mine())
        return self.tries[-1]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for pause in ("LOOK_SECONDS", "ROUND_SECONDS", "PAUSE_SECONDS"):
        monkeypatch.setattr(module, pause, 0.01)


@pytest.fixture
def make_host(url, make_database):
    """The housekeeping of one worker of one host."""
    made = []

    def make():
        made.append(Observed(Settings(postgres_url=url), make_database()))
        return made[-1]

    yield make
    for host in made:
        host.stop()


def tidied(outsider):
    """Whether old rows, inserted now, are deleted."""
    outsider.execute(OLD_ROWS)
    wait_until(lambda: outsider.execute("SELECT count(*) FROM reset_requests").fetchone() == (0,))


def looks_in_vain(host):
    """Wait until it has asked three more times; none of the answers was that it is the one."""
    known = len(host.tries)
    wait_until(lambda: len(host.tries) >= known + 3)
    assert not any(host.tries[known + 1 :])  # the first of them may have been under way


def test_one_host_works_and_the_next_takes_over_when_it_stops(make_host, outsider):
    first, second = make_host(), make_host()
    first.start()
    wait_until(lambda: any(first.tries))
    second.start()
    looks_in_vain(second)
    tidied(outsider)
    first.stop()
    wait_until(lambda: any(second.tries))
    tidied(outsider)


def test_a_host_whose_connection_has_ended_works_no_more_once_another_has_the_lock(make_host, url, outsider):
    host = make_host()
    host.start()
    wait_until(lambda: any(host.tries))
    with psycopg.connect(url, autocommit=True) as other, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(other.execute, f"SELECT {LOCK}")
        wait_until(lambda: bool(outsider.execute(HOLDERS, (False,)).fetchall()))
        ((holder,),) = outsider.execute(HOLDERS, (True,)).fetchall()
        outsider.execute("SELECT pg_terminate_backend(%s)", (holder,))
        waiting.result(60)
        looks_in_vain(host)
        outsider.execute(OLD_ROWS)
        looks_in_vain(host)
        assert outsider.execute("SELECT count(*) FROM reset_requests").fetchone() == (120,)
    wait_until(lambda: outsider.execute("SELECT count(*) FROM reset_requests").fetchone() == (0,))


def test_a_host_whose_round_fails_lets_another_try(make_host, outsider, monkeypatch):
    failing, other = make_host(), make_host()

    def tidy():
        monkeypatch.setattr(module, "ROUND_SECONDS", 60)  # for which it pauses now
        raise OSError("on purpose")

    monkeypatch.setattr(failing, "tidy", tidy)
    failing.start()
    wait_until(lambda: any(failing.tries))
    outsider.execute(OLD_ROWS)
    other.start()
    wait_until(lambda: outsider.execute("SELECT count(*) FROM reset_requests").fetchone() == (0,))


def test_to_look_at_the_lock_of_another_host_again_opens_no_connection(make_host, outsider, opened):
    outsider.execute(f"SELECT {LOCK}")
    host = make_host()
    host.start()
    looks_in_vain(host)
    assert len(opened) == 1


TEXT = "to_char(n, 'FM000000000')"
FILLED = {
    "sessions": f"{TEXT}, '', 1, '', '', '', n, n, n, NULL",
    "refresh_tokens": f"{TEXT}::bytea, '', 1, n, 'k', n, NULL, NULL",
    "password_resets": f"{TEXT}, '', n, NULL",
    "reset_requests": f"{TEXT}, 'ada@example.com', n",
    "idempotency_keys": f"'', {TEXT}::bytea, '', '{{}}', n",
    "audit": f"{TEXT}, NULL, 'thing.done', 'thing', '1', '-', n",
}
PRUNE = {
    "refresh_tokens": lambda tx: sessions.prune_tokens(tx, 50, 50),
    "idempotency_keys": lambda tx: idempotency_keys.prune(tx, 50, 50),
}


class Planned(PostgresTx):
    """Keeps the plans of statements and runs none of them."""

    def run(self, sql, **parameters):
        self.plan = "\n".join(line for (line,) in self.rows(f"EXPLAIN {sql}", **parameters))
        return 0


@pytest.mark.parametrize("table", FILLED)
def test_a_batch_finds_its_rows_by_an_index(url, table):
    with psycopg.connect(url, options="-c session_replication_role=replica") as connection:
        connection.execute(f"INSERT INTO {table} SELECT {FILLED[table]} FROM generate_series(1, 50000) AS n")
        connection.execute(f"ANALYZE {table}")
        tx = Planned(Pipeline(connection), Timestamp(0))
        PRUNE.get(table, lambda tx: oldest.prune(tx, table, 50, 50))(tx)
        connection.rollback()
    assert "Index Scan" in tx.plan
    assert "Seq Scan" not in tx.plan
