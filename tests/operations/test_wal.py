"""The `-wal` is emptied when it is above its limit and no connection needs it."""

import sqlite3
import threading
from contextlib import closing

import pytest

from backend.infrastructure.disk_space import size_of
from backend.operations import housekeeping as module
from backend.operations.housekeeping import Housekeeping
from backend.production.database import GroupCommitDatabase
from tests.forked import Signal
from tests.production.held_gate import held_by_a_child

LIMIT = 200_000  # bytes


@pytest.fixture
def wal(database_path):
    return database_path.with_name("app.db-wal")


@pytest.fixture
def housekeeping(api, settings, monkeypatch):
    monkeypatch.setattr(module, "WAL_LIMIT", LIMIT)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0)
    return Housekeeping(settings, api.app.database)


def fill(api, wal):
    """Write until the `-wal` is above its limit."""
    api.app.relay.stop()  # which would write, too
    while size_of(wal) <= LIMIT:
        with api.app.database.transaction() as tx:
            tx.run("INSERT INTO reset_requests VALUES (hex(randomblob(16)), hex(zeroblob(50000)), :now)", now=tx.now)


def test_it_is_emptied_as_soon_as_no_reader_needs_it(api, database_path, wal, housekeeping):
    with closing(sqlite3.connect(database_path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM users").fetchall()
        fill(api, wal)
        housekeeping.tidy()
        assert wal.stat().st_size > LIMIT
        assert reader.execute("SELECT count(*) FROM reset_requests").fetchall() == [(0,)]
        reader.execute("COMMIT")
        housekeeping.tidy()
        assert wal.stat().st_size == 0
        assert reader.execute("SELECT count(*) > 0 FROM reset_requests").fetchall() == [(1,)]


def test_below_the_limit_it_is_left_to_sqlite(api, wal, housekeeping):
    fill(api, wal)
    api.sign_up("Ada")
    housekeeping.tidy()
    with api.app.database.transaction() as tx:
        tx.run("UPDATE users SET name = 'New'")
    housekeeping.tidy()
    assert 0 < wal.stat().st_size <= LIMIT


def test_it_waits_for_no_writer(api, wal):
    """While another thread writes it does nothing. After that it works."""
    fill(api, wal)
    writes, go_on = threading.Event(), threading.Event()

    def write():
        with api.app.database.transaction():
            writes.set()
            assert go_on.wait(30)

    thread = threading.Thread(target=write)
    thread.start()
    assert writes.wait(30)
    api.app.database.empty_wal()
    assert wal.stat().st_size > LIMIT
    go_on.set()
    thread.join()
    api.app.database.empty_wal()
    assert wal.stat().st_size == 0


def test_in_production_it_is_emptied_under_the_gate(database_path, wal):
    """SQLite has a bug that a checkpoint beside a writer can trigger, so a process that holds the gate keeps it off."""
    database = GroupCommitDatabase(database_path)
    with database.transaction() as tx:
        tx.run("INSERT INTO reset_requests VALUES ('1', 'ada@example.com', 1)")
    until = Signal()
    child = held_by_a_child(database_path, until)
    database.empty_wal()
    assert wal.stat().st_size > 0
    until.say()
    child.result()
    database.empty_wal()
    assert wal.stat().st_size == 0
    database.close()
