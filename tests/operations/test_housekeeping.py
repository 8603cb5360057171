"""Housekeeping: what has expired is deleted, what lives stays, in batches that let other writers in."""

import logging
import os
import threading
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial

import pytest

from backend.domain import Timestamp
from backend.infrastructure.database import Tx, connect
from backend.infrastructure.migrations import locked
from backend.operations import housekeeping as module
from backend.operations.housekeeping import Housekeeping, holding
from backend.repositories import cache_invalidations, idempotency_keys, oldest, outbox, sessions
from tests.at_once import at_once
from tests.conftest import PASSWORD
from tests.steps import steps
from tests.waiting import wait_until

MINUTE, DAY = 60, 86_400  # seconds
OLD = 1_000_000_000_000  # milliseconds: in the year 2001
EVENT = "id, name, resource_type, resource_id, user_id, request_id, payload, created_at"
OLD_ROWS = {
    "sessions": "VALUES (:text, :user, 1, '', '', '', :old, :old, :old, NULL)",
    # A chain of tokens of one session, each the successor of the one before, that expire in the same second.
    "refresh_tokens": "VALUES (:bytes, :session, 1, 1000, 'k', :old, NULL, :before)",
    "password_resets": "VALUES (:text, :user, :old, NULL)",
    "reset_requests": "VALUES (:text, 'ada@example.com', :old)",
    "idempotency_keys": "VALUES (:user, :bytes, :bytes, '{}', :old)",
    "audit": "VALUES (:text, NULL, 'thing.done', 'thing', '1', '-', :old)",
    "outbox": f"({EVENT}) VALUES (:text, 'thing.done', 'thing', '1', NULL, '-', '{{}}', :old)",
    "cache_invalidations": "VALUES (:number + 1000000, 'users:1')",
}
TABLES = [table for table in OLD_ROWS if table != "cache_invalidations"]  # which of itself keeps its last rows


def grow(api, user, count, *tables):
    """Fill the tables with this many rows that are old."""
    with api.app.database.transaction() as tx:
        insert(tx, user, count, tables or OLD_ROWS)


def insert(tx, user, count, tables):
    ((session,),) = tx.rows("SELECT id FROM sessions WHERE user_id = :user", user=user.id)
    same = {"user": user.id, "session": session, "old": OLD}
    texts = [f"{number:09}" for number in range(count)]
    rows = [
        same | {"number": number, "text": text, "bytes": text.encode(), "before": before and before.encode()}
        for number, (text, before) in enumerate(zip(texts, [None, *texts], strict=False))
    ]
    for table in tables:
        tx.run_each(f"INSERT INTO {table} {OLD_ROWS[table]}", rows)


def count(api, table):
    with api.app.database.snapshot() as tx:
        return tx.rows(f"SELECT count(*) FROM {table}")[0][0]


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch):
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0)


@pytest.fixture
def make_housekeeping(api, settings):
    """It keeps the audit log for ever, unless told otherwise."""
    made = []

    def make(database=api.app.database, **changes):
        kind = Housekeeping
        if settings.postgres_url:
            from backend.postgres.housekeeping import HostsHousekeeping as kind
        made.append(kind(replace(settings, **changes), database))
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.fixture
def housekeeping(make_housekeeping):
    """It keeps the audit log for 90 days."""
    return make_housekeeping(audit_keep_days=90)


@pytest.fixture
def outlived(api, housekeeping, clock):
    """`outlived(table, seconds)`: whether the rows that are there now stay for so long, and go with the next second."""

    def outlived(table, seconds):
        wait_until(lambda: count(api, "deliveries") == 0)  # the relay, too, has done its work
        rows = count(api, table)
        assert rows
        clock.advance(seconds - MINUTE)
        housekeeping.tidy()
        stayed = count(api, table) == rows
        clock.advance(2 * MINUTE)
        housekeeping.tidy()
        return stayed and count(api, table) == 0

    return outlived


def test_refresh_tokens_go_when_they_expire(ada, outlived):
    assert outlived("refresh_tokens", 7 * DAY)


def test_a_session_goes_30_days_after_its_login(ada, outlived):
    assert outlived("sessions", 30 * DAY)


def test_password_resets_go_after_half_an_hour(api, ada, outlived):
    api.post("/auth/password-reset", json={"email": ada.email})
    wait_until(lambda: count(api, "password_resets") == 1)
    assert outlived("password_resets", 30 * MINUTE)


def test_idempotency_keys_go_after_24_hours(api, ada, outlived):
    api.post("/accounts", ada, {"currency": "EUR"}, key="k")
    assert outlived("idempotency_keys", DAY)


def test_events_go_after_a_week_and_mails_with_them(api, ada, outlived):
    api.post("/auth/password", ada, {"currentPassword": PASSWORD, "newPassword": f"new {PASSWORD}"})
    assert count(api, "mails") == 1
    assert outlived("outbox", 7 * DAY)
    assert count(api, "mails") == 0


def test_the_audit_log_goes_after_the_days_that_the_setting_names(api, ada, outlived):
    wait_until(lambda: count(api, "audit") == 2)
    assert outlived("audit", 90 * DAY)


def test_the_audit_log_stays_without_the_setting(api, ada, make_housekeeping, clock):
    wait_until(lambda: count(api, "audit") == 2)
    clock.advance(3650 * DAY)
    make_housekeeping().tidy()
    assert count(api, "audit") == 2


def test_a_reset_request_that_the_relay_never_looked_up_goes_after_a_week(api, ada, housekeeping, clock):
    grow(api, ada, 1, "reset_requests")
    with api.app.database.transaction() as tx:
        tx.run("UPDATE reset_requests SET created_at = :now", now=tx.now)
    clock.advance(7 * DAY - MINUTE)
    assert "reset requests" not in housekeeping.tidy()
    clock.advance(2 * MINUTE)
    assert housekeeping.tidy()["reset requests"] == 1


@pytest.mark.sqlite
def test_the_log_of_invalidations_keeps_its_last_entries(api, ada, housekeeping):
    grow(api, ada, 10_250, "cache_invalidations")
    assert housekeeping.tidy()["cache invalidations"] >= 250
    with api.app.database.snapshot() as tx:
        assert tx.rows("SELECT count(*), max(seq) FROM cache_invalidations") == [(10_000, 1_010_249)]


def test_events_that_are_owed_stay_and_dead_letters_go(api, ada, housekeeping):
    """More than a batch of owed events at the beginning does not keep housekeeping from those behind."""
    grow(api, ada, 350, "outbox")
    with api.app.database.transaction() as tx:
        owed = "INSERT INTO deliveries (seq, subscriber, tries, due_at, aggregate) SELECT seq, 'down', 1, -1, 'x' FROM"
        tx.run(f"{owed} outbox WHERE id <= '000000249'")
        dead = "INSERT INTO deliveries (seq, subscriber, tries, due_at) SELECT seq, 'down', 100, NULL FROM"
        tx.run(f"{dead} outbox WHERE id BETWEEN '000000250' AND '000000349'")
    assert housekeeping.tidy()["events"] == 100
    with api.app.database.snapshot() as tx:
        assert tx.rows("SELECT count(*), max(id) FROM outbox WHERE name = 'thing.done'") == [(250, "000000249")]
        assert tx.rows("SELECT count(*) FROM deliveries WHERE subscriber = 'down'") == [(250,)]


def test_old_mails_of_development_are_deleted_and_other_files_stay(api, housekeeping, database_path):
    folder = database_path.parent / "outbox"
    folder.mkdir()
    for name in ("old.txt", "new.txt", "old.md"):
        (folder / name).touch()
        if name.startswith("old"):
            os.utime(folder / name, (OLD / 1000, OLD / 1000))
    assert housekeeping.tidy() == {"mails": 1}
    assert sorted(path.name for path in folder.iterdir()) == ["new.txt", "old.md"]


def test_a_login_that_is_refreshed_every_day_lives_on(api, ada, housekeeping, clock):
    """For its 30 days, with the tokens of a week."""
    for _ in range(29):
        clock.advance(DAY)
        answer = api.post("/auth/refresh", json={"refreshToken": ada.refresh})
        assert answer.status_code == 200
        ada.refresh = answer.json["data"]["refreshToken"]
        housekeeping.tidy()
    assert api.get("/users/me", headers={"Authorization": f"Bearer {answer.json['data']['accessToken']}"}).json
    assert count(api, "refresh_tokens") <= 8


def test_a_used_refresh_token_still_ends_its_login(api, ada, housekeeping, clock):
    """Its row stays until it expires, for that is how a thief is found."""
    stolen = {"refreshToken": ada.refresh}
    successor = api.post("/auth/refresh", json=stolen).json["data"]["refreshToken"]
    clock.advance(6 * DAY)
    housekeeping.tidy()
    assert api.post("/auth/refresh", json=stolen).status_code == 401
    assert api.post("/auth/refresh", json={"refreshToken": successor}).status_code == 401


def test_a_clock_that_was_set_back_deletes_nothing(api, ada, housekeeping, clock):
    api.post("/accounts", ada, {"currency": "EUR"}, key="k")
    wait_until(lambda: count(api, "deliveries") == 0)
    for days in (-365, 365):
        clock.advance(days * DAY)
        assert housekeeping.tidy() == {}
    assert api.get("/users/me", ada).status_code == 200


def test_a_transaction_deletes_ten_rows_if_that_is_a_batch(api, ada, housekeeping, monkeypatch):
    """Between them other writers have their turns."""
    api.app.close()  # the relay writes, too
    monkeypatch.setattr(module, "BATCH", 10)
    grow(api, ada, 35, *TABLES)
    deleted = {table: [] for table in TABLES}
    database, transaction = api.app.database, api.app.database.transaction

    @contextmanager
    def counting():
        before = {table: count(api, table) for table in TABLES}
        with transaction() as tx:
            yield tx
        for table, rows in before.items():
            deleted[table].append(rows - count(api, table))

    monkeypatch.setattr(database, "transaction", counting)
    housekeeping.tidy()
    assert [(max(rows), sum(rows)) for rows in deleted.values()] == [(10, 35)] * len(TABLES)


PRUNE = {
    "refresh_tokens": lambda tx: sessions.prune_tokens(tx, OLD, 100),
    "idempotency_keys": lambda tx: idempotency_keys.prune(tx, OLD, 100),
    "outbox": lambda tx: outbox.prune(tx, OLD, 0, 100)[0],
    "cache_invalidations": lambda tx: cache_invalidations.prune(tx, 0, 100),
}


@pytest.mark.sqlite
@pytest.mark.parametrize("table", OLD_ROWS)
def test_a_batch_costs_what_it_deletes_and_not_what_the_table_holds(api, ada, table, database_path):
    """With forty times as many rows, SQLite's virtual machine takes as many steps; foreign keys are part of them."""
    api.app.close()
    prune, costs = PRUNE.get(table, lambda tx: oldest.prune(tx, table, OLD, 100)), []
    with closing(connect(database_path, query_only=False)) as connection:
        for rows in (500, 20_000):
            connection.execute("BEGIN")
            tx = Tx(connection, Timestamp(OLD))
            insert(tx, ada, rows, [table])
            costs.append(steps(connection, partial(prune, tx)))
            connection.execute("ROLLBACK")
    assert costs[1] <= 1.1 * costs[0] + 100


def test_a_round_is_one_line_that_says_what_was_deleted(api, ada, housekeeping, caplog):
    grow(api, ada, 150, "audit", "idempotency_keys")
    with caplog.at_level(logging.INFO, module.__name__):
        housekeeping.tidy()
        housekeeping.tidy()
    assert [record.getMessage() for record in caplog.records] == ["deleted 150 idempotency keys, 150 audit"]


@pytest.mark.sqlite
def test_two_rounds_at_once_delete_each_row_once(api, ada, housekeeping, make_housekeeping):
    """As after the lock file was deleted."""
    grow(api, ada, 450, *TABLES)
    other = make_housekeeping(audit_keep_days=90)
    one, two = at_once([housekeeping.tidy, other.tidy])
    assert {kind: one.get(kind, 0) + two.get(kind, 0) for kind in one | two} == dict.fromkeys(one | two, 450)
    assert len(one | two) == len(TABLES)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(module, "ROUND_SECONDS", 0.01)


def test_the_thread_survives_a_round_that_fails(api, ada, make_api, make_housekeeping, outsider, quick, caplog):
    """A WARNING while another program keeps writers waiting; then the next round does the work."""
    grow(api, ada, 150, "idempotency_keys")
    housekeeping = make_housekeeping(make_api(busy_timeout_seconds=0.05).app.database)
    with outsider.locked():
        housekeeping.start()
        wait_until(lambda: "housekeeping will try again" in caplog.text)
    wait_until(lambda: count(api, "idempotency_keys") == 0)
    assert "Traceback" not in caplog.text


@pytest.mark.sqlite
def test_one_thread_works_and_the_next_one_takes_over(api, ada, housekeeping, database_path, quick, monkeypatch):
    """While another process holds the lock, housekeeping tries again and again to get it, and deletes nothing."""
    tries = []
    monkeypatch.setattr(module, "locked", lambda descriptor: tries.append(locked(descriptor)) or tries[-1])
    grow(api, ada, 150, "idempotency_keys")
    with holding(database_path.with_name("app.db-housekeeping")) as is_mine:
        assert is_mine
        housekeeping.start()
        wait_until(lambda: tries.count(False) >= 3)
        assert count(api, "idempotency_keys") == 150
    wait_until(lambda: count(api, "idempotency_keys") == 0)


def test_stop_ends_a_round_after_its_batch(api, ada, housekeeping, monkeypatch):
    """However many batches are left: the first chore alone has three."""
    monkeypatch.setattr(module, "PAUSE_SECONDS", 30)
    monkeypatch.setattr(module, "STOP_SECONDS", 30)
    grow(api, ada, 250, "refresh_tokens")
    housekeeping.start()
    wait_until(lambda: count(api, "refresh_tokens") == 201)
    housekeeping.stop()
    assert "housekeeping" not in [thread.name for thread in threading.enumerate()]
    assert count(api, "refresh_tokens") == 201
