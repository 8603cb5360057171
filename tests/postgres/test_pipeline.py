"""Statements that travel together: their order, their errors, and what a fault leaves behind."""

import select
import signal
from types import SimpleNamespace

import psycopg
import pytest

from backend.errors import Unavailable
from backend.infrastructure.database import Duplicate
from backend.postgres.pipeline import Pipeline

INSERT = "INSERT INTO reset_requests VALUES (:id, :email, 0)"
SELECT = "SELECT email FROM reset_requests ORDER BY id"


@pytest.fixture
def emails(outsider):
    """What has been committed."""
    return lambda: [row[0] for row in outsider.execute(SELECT)]


def test_statements_run_in_their_order(database, emails):
    with database.transaction() as tx:
        tx.write(INSERT, id="1", email="a")
        tx.write("UPDATE reset_requests SET email = email || :more", more="b")
        tx.write(INSERT, id="2", email="c")
        assert tx.rows(SELECT) == [("ab",), ("c",)]
        tx.write("DELETE FROM reset_requests WHERE id = :id", id="1")
    assert emails() == ["c"]


@pytest.mark.parametrize("last", [lambda tx: None, lambda tx: tx.rows(SELECT)], ids=["commit", "next statement"])
def test_the_error_of_a_statement_comes_from_what_it_travelled_with(database, emails, last):
    for _ in range(3):  # the first time, its statements are prepared in the trip that fails
        with pytest.raises(Duplicate), database.transaction() as tx:
            tx.write(INSERT, id="1", email="a")
            tx.write(INSERT, id="1", email="b")
            tx.write("UPDATE reset_requests SET email = 'c'")
            last(tx)
        assert emails() == []
    with database.transaction() as tx:
        tx.write(INSERT, id="1", email="a")
        tx.write("UPDATE reset_requests SET email = 'c'")
    assert emails() == ["c"]


def test_a_block_that_raises_sends_nothing_of_what_waits(database, emails):
    with pytest.raises(ZeroDivisionError), database.transaction() as tx:
        tx.write(INSERT, id="1", email="a")
        raise ZeroDivisionError
    with database.transaction() as tx:
        assert tx.rows(SELECT) == []
    assert emails() == []


def test_a_write_outside_a_transaction_is_made_at_the_end_of_the_block(database, emails):
    with database.autocommit() as tx:
        tx.write(INSERT, id="1", email="a")
    assert emails() == ["a"]


def test_what_the_server_refused_with_the_commit_was_not_written_and_the_error_says_nothing_else(
    make_database, url, emails
):
    database = make_database(busy_timeout=0.2)
    with psycopg.connect(url) as holder:
        holder.execute("LOCK TABLE reset_requests")
        with pytest.raises(Unavailable, match="just now"), database.transaction() as tx:
            tx.write(INSERT, id="1", email="a")
    assert emails() == []


def test_a_value_that_cannot_be_sent_costs_the_connection_nothing(database, emails):
    with database.read() as tx:
        ((before,),) = tx.rows("SELECT pg_backend_pid()")
    with pytest.raises(psycopg.DataError), database.transaction() as tx:
        tx.write(INSERT, id="1", email="a")
        tx.run(INSERT, id="2", email="no\0text")
    with database.read() as tx:
        assert tx.rows("SELECT pg_backend_pid()") == [(before,)]
    assert emails() == []


def test_more_than_any_buffer_holds_travels_both_ways(make_database):
    text = "x" * 20_000
    with make_database(busy_timeout=60).transaction() as tx:
        assert tx.run_each(INSERT, ({"id": f"{n:04}", "email": text} for n in range(150))) == 150
        assert tx.rows(SELECT) == [(text,)] * 150
        for _ in range(150):  # the server answers while it is still being sent to
            tx.write("SELECT :text", text=text)
        assert tx.rows("SELECT 1") == [(1,)]


def test_a_trip_that_is_interrupted_leaves_its_results_to_no_other(database):
    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt), database.read() as tx:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            tx.rows("SELECT pg_sleep(60)")
    finally:
        signal.signal(signal.SIGALRM, before)
    with database.read() as tx:
        assert tx.rows("SELECT 1") == [(1,)]


def test_an_answer_that_came_while_the_process_was_stopped_is_in_time(url, monkeypatch):
    stops = []

    def late():
        """The time after the deadline; the first call returns once the answer has come."""
        if not stops:
            stops.append(select.select([connection], [], [], 60))
        return 1.0

    with psycopg.connect(url, autocommit=True) as connection:
        pipeline = Pipeline(connection)
        pipeline.deadline = 0.0
        monkeypatch.setattr("backend.postgres.pipeline.time", SimpleNamespace(monotonic=late))
        assert pipeline.rows(pipeline.run([("SELECT 1", {})])[0]) == [(1,)]


def test_null_and_a_number_may_be_values_of_one_parameter(database):
    sql = "SELECT 1 + :n, :n IS NULL"
    with database.read() as tx:
        assert [tx.row(sql, n=n) for n in (7, None, 2**62)] == [(8, False), (None, True), (2**62 + 1, False)]
