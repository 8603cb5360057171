"""The verbs on PostgreSQL: what one block sees, what is written, and what a fault costs."""

import threading
from contextlib import suppress

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from backend.errors import Contention, Unavailable
from backend.infrastructure.database import Duplicate
from tests.at_once import asleep, at_once

INSERT = "INSERT INTO reset_requests VALUES (:id, :email, 0)"
SELECT = "SELECT email FROM reset_requests WHERE id = :id"


def put(database, id_, email="x"):
    with database.transaction() as tx:
        tx.run(INSERT, id=id_, email=email)


@pytest.fixture
def emails(outsider):
    """What has been committed."""
    return lambda: [row[0] for row in outsider.execute("SELECT email FROM reset_requests ORDER BY email")]


def test_a_block_that_raises_has_written_nothing(database, emails):
    with pytest.raises(ZeroDivisionError), database.transaction() as tx:
        tx.run(INSERT, id="1", email="a")
        raise ZeroDivisionError
    assert emails() == []


def test_actions_run_after_the_commit(database, emails):
    seen = []
    with database.transaction() as tx:
        tx.run(INSERT, id="1", email="a")
        tx.after_commit(lambda: seen.extend(emails()))
        assert seen == []
    assert seen == ["a"]


def test_blocks_do_not_nest(database):
    with database.snapshot(), pytest.raises(RuntimeError), database.transaction():
        pass


def test_a_transaction_that_is_over_runs_nothing(database):
    with database.transaction() as tx:
        pass
    with pytest.raises(RuntimeError):
        tx.rows(SELECT, id="1")


def test_a_snapshot_sees_one_state_and_a_read_the_latest(database, outsider):
    for block, seen in ((database.snapshot, None), (database.read, ("b",))):
        outsider.execute("DELETE FROM reset_requests")
        with block() as tx:
            assert tx.row(SELECT, id="1") is None
            outsider.execute("INSERT INTO reset_requests VALUES ('1', 'b', 0)")
            assert tx.row(SELECT, id="1") == seen


def test_a_snapshot_cannot_write(database, emails):
    with pytest.raises(Unavailable), database.snapshot() as tx:
        tx.run(INSERT, id="1", email="a")
    assert emails() == []


def test_a_second_row_of_one_key_is_a_duplicate_and_ends_the_transaction(database, emails):
    put(database, "1")
    with pytest.raises(Duplicate), database.transaction() as tx:
        tx.run(INSERT, id="2", email="y")
        tx.run(INSERT, id="1", email="z")
    assert emails() == ["x"]


@pytest.mark.parametrize(("id_", "email"), [("1", "z"), ("2", "no\0text")], ids=["refused", "not sent"])
def test_a_transaction_that_goes_on_after_an_error_writes_nothing_and_does_not_seem_committed(
    database, emails, id_, email
):
    put(database, "1")
    with pytest.raises(RuntimeError), database.transaction() as tx:
        tx.write(INSERT, id="3", email="y")
        with suppress(Duplicate, psycopg.DataError):
            tx.run(INSERT, id=id_, email=email)
    assert emails() == ["x"]
    put(database, "5", "z")
    assert emails() == ["x", "z"]


def test_percent_signs_colons_and_casts_are_text(database):
    with database.read() as tx:
        assert tx.row("SELECT ':id', '100 %', :id::bigint, :other", id="7", other=None) == (":id", "100 %", 7, None)


def test_a_row_read_for_update_waits_until_the_other_transaction_ends(database, emails):
    put(database, "1", "before")
    read = []

    def second():
        with database.transaction() as tx:
            read.append(tx.row(f"{SELECT}{tx.for_update}", id="1"))
        database.close()

    with database.transaction() as tx:
        tx.row(f"{SELECT}{tx.for_update}", id="1")
        thread = threading.Thread(target=second)
        thread.start()
        asleep(thread)
        tx.run("UPDATE reset_requests SET email = 'after' WHERE id = '1'")
    thread.join()
    assert read == [("after",)]


def test_locks_of_a_name_exclude_each_other_and_end_with_the_transaction(database):
    order = []

    def second():
        with database.transaction() as tx:
            tx.lock("a")
            tx.rows("SELECT 1")
            order.append("second")
        database.close()

    with database.transaction() as tx:
        tx.lock("a")
        tx.rows("SELECT 1")
        thread = threading.Thread(target=second)
        thread.start()
        asleep(thread)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_of_two_transactions_that_lock_crosswise_one_gets_contention(database, emails):
    put(database, "1")
    put(database, "2")
    both_hold = threading.Barrier(2)

    def cross(first, second):
        try:
            with database.transaction() as tx:
                for n, id_ in enumerate((first, second)):
                    tx.row(f"{SELECT}{tx.for_update}", id=id_)
                    if n == 0:
                        both_hold.wait(60)
                return "committed"
        except Contention:
            return "contention"
        finally:
            database.close()

    assert sorted(at_once([lambda: cross("1", "2"), lambda: cross("2", "1")])) == ["committed", "contention"]


@pytest.mark.parametrize("verb", ["read", "snapshot", "transaction"])
def test_a_connection_that_the_server_closed_between_blocks_costs_nothing(database, outsider, verb):
    own = "SELECT pg_backend_pid()"
    with database.read() as tx:
        ((closed,),) = tx.rows(own)
    outsider.execute("SELECT pg_terminate_backend(%s, 60000)", (closed,))
    with getattr(database, verb)() as tx:
        assert tx.rows(own) != [(closed,)]


def test_a_connection_that_is_closed_inside_a_block_has_written_nothing(database, outsider, emails):
    with pytest.raises(Unavailable), database.transaction() as tx:
        tx.run(INSERT, id="1", email="a")
        ((pid,),) = tx.rows("SELECT pg_backend_pid()")
        outsider.execute("SELECT pg_terminate_backend(%s, 60000)", (pid,))
        tx.run(INSERT, id="2", email="b")
    assert emails() == []
    put(database, "3", "c")
    assert emails() == ["c"]


def test_a_commit_without_an_answer_does_not_claim_that_nothing_was_written(database, outsider):
    with pytest.raises(Unavailable, match="unknown"), database.transaction() as tx:
        tx.run(INSERT, id="1", email="a")
        ((pid,),) = tx.rows("SELECT pg_backend_pid()")
        outsider.execute("SELECT pg_terminate_backend(%s, 60000)", (pid,))


def test_a_snapshot_whose_end_got_no_answer_does_not_say_that_something_may_be_written(database, outsider):
    with pytest.raises(Unavailable, match="just now"), database.snapshot() as tx:
        ((pid,),) = tx.rows("SELECT pg_backend_pid()")
        outsider.execute("SELECT pg_terminate_backend(%s, 60000)", (pid,))


def test_parameters_of_the_url_hold_beside_those_of_the_service_and_override_them(make_database, url):
    """Without its schema, for example, the service would find no table that `migrate` has made there."""
    given = make_conninfo(url, options="-c search_path=mine -c random_page_cost=4", application_name="host-7")
    names = ("search_path", "application_name", "random_page_cost", "lock_timeout")
    with make_database(given, busy_timeout=5).read() as tx:
        assert [tx.row(f"SHOW {name}") for name in names] == [("mine",), ("host-7",), ("4",), ("5s",)]


def test_the_rows_of_twenty_orders_are_found_by_index_among_two_thousand(database, outsider):
    """By the costs of a spinning disk, the server's default, it would read the whole table."""
    outsider.execute("SET session_replication_role = replica")  # without foreign keys
    outsider.execute("""INSERT INTO order_items (order_id, position, product_id, sku, name, quantity, unit_price)
        SELECT 'order' || i / 3, i % 3, 'product' || i % 3, 'SKU', 'Name', 1, 1 FROM generate_series(0, 1999) AS i""")
    outsider.execute("ANALYZE order_items")
    with database.read() as tx:
        [(first, *_), *_] = tx.rows_for(
            "EXPLAIN SELECT name FROM order_items WHERE order_id IN (:ids) ORDER BY order_id, position",
            [f"order{number}" for number in range(20)],
        )
    assert first.startswith("Index Scan using order_items_pkey")


def test_a_lock_that_is_held_too_long_makes_it_unavailable(make_database, url):
    database = make_database(busy_timeout=0.2)
    with psycopg.connect(url) as holder:
        holder.execute("LOCK TABLE reset_requests")
        with pytest.raises(Unavailable):
            put(database, "1")
    put(make_database(), "1")  # the first one's transactions end if this thread pauses for 0.2 s


def test_a_database_that_is_read_only_is_not_writable(database, outsider):
    name = outsider.info.dbname
    outsider.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    try:
        with pytest.raises(Unavailable):
            database.check_writable()
        with pytest.raises(Unavailable):
            put(database, "1")
    finally:
        outsider.execute("SET default_transaction_read_only = off")
        outsider.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    database.close()
    database.check_writable()


def test_a_threads_connection_closes_with_the_thread(database, outsider):
    pids = []

    def work():
        with database.read() as tx:
            pids.extend(pid for (pid,) in tx.rows("SELECT pg_backend_pid()"))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    while outsider.execute("SELECT 1 FROM pg_stat_activity WHERE pid = ANY(%s)", (pids,)).fetchone():
        pass  # the server needs a moment; a connection that stays open makes the test time out
