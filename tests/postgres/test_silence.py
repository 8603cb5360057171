"""A server that hangs, a firewall that forgets connections, a client that falls silent: every wait ends."""

import threading

import pytest

from backend.errors import Unavailable
from backend.postgres import database as module
from backend.postgres.database import PostgresDatabase
from tests.at_once import at_once
from tests.meanwhile import before_the_commit
from tests.postgres.silent_proxy import proxy_to
from tests.waiting import wait_until

INSERT = "INSERT INTO reset_requests VALUES ('1', 'a', 0)"
LOCK = "SELECT email FROM reset_requests WHERE id = '1'"


@pytest.fixture
def proxy(url):
    with proxy_to(url) as proxy:
        yield proxy


@pytest.fixture
def make_behind(proxy):
    """The service's database behind the proxy."""
    made = []

    def make(busy_timeout):
        made.append(PostgresDatabase(proxy.url, busy_timeout=busy_timeout))
        return made[-1]

    yield make
    for database in made:
        database.close()


@pytest.fixture
def behind(make_behind, monkeypatch):
    """The same with short time limits."""
    monkeypatch.setattr(module, "WORK_SECONDS", 0.5)
    return make_behind(0.5)


def answers(database):
    try:
        with database.read() as tx:
            return tx.row("SELECT 1") == (1,)
    except Unavailable:
        return False


@pytest.mark.parametrize("verb", ["read", "snapshot", "transaction"])
def test_a_statement_that_a_hanging_server_does_not_answer_ends_in_unavailable(behind, proxy, verb):
    with pytest.raises(Unavailable), getattr(behind, verb)() as tx:
        tx.row("SELECT 1")
        proxy.hang()
        tx.row("SELECT 1")


def test_a_commit_that_a_hanging_server_does_not_answer_may_have_been_made(behind, proxy):
    def told():
        proxy.go_on()
        with pytest.raises(Unavailable) as error, behind.transaction() as tx:
            tx.run("UPDATE reset_requests SET email = 'b'")
            proxy.hang()
        return error.value.message

    wait_until(lambda: "unknown" in told())  # on a busy machine, earlier statements may time out


def test_statements_share_the_time_of_their_block(behind):
    """Each of these waits for less than the limit."""
    with pytest.raises(Unavailable), behind.read() as tx:
        for _ in range(100):
            tx.row("SELECT pg_sleep(0.1)")


def test_after_one_connection_has_timed_out_the_next_requests_do_not_wait_for_theirs(
    behind, proxy, monkeypatch, opened
):
    monkeypatch.setattr(module, "RETRY_SECONDS", 3600)
    proxy.hang()
    assert not answers(behind)
    assert not any(at_once([lambda: answers(behind)] * 20))
    assert len(opened) == 1


def test_it_works_again_once_the_server_answers_again(behind, proxy):
    wait_until(lambda: answers(behind))
    proxy.hang()
    wait_until(lambda: not answers(behind))
    proxy.go_on()
    wait_until(lambda: answers(behind))


@pytest.mark.parametrize("verb", ["read", "snapshot", "transaction"])
def test_an_idle_connection_that_a_firewall_has_forgotten_costs_no_request(make_behind, proxy, monkeypatch, verb):
    monkeypatch.setattr(module, "IDLE_SECONDS", 0)
    monkeypatch.setattr(module, "TRY_SECONDS", 0.2)
    database = make_behind(60)
    assert answers(database)
    proxy.forget()
    with getattr(database, verb)() as tx:
        assert tx.row("SELECT 1") == (1,)
    assert proxy.connections == 2


def test_a_client_that_falls_silent_inside_a_transaction_loses_its_locks_and_writes_nothing(behind, outsider, url):
    outsider.execute(INSERT)
    patient, locked, over = PostgresDatabase(url, busy_timeout=30), threading.Event(), threading.Event()

    def fall_silent():
        with behind.transaction() as tx:
            tx.run("UPDATE reset_requests SET email = 'of the silent one'")
            locked.set()
            over.wait(60)
            tx.run("UPDATE reset_requests SET email = 'of the silent one, later'")

    def wait_for_the_lock():
        locked.wait(60)
        with patient.transaction() as tx:
            emails = tx.row(f"{LOCK}{tx.for_update}")
        patient.close()
        over.set()
        return emails

    def silent():
        with pytest.raises(Unavailable):
            fall_silent()
        behind.close()

    assert at_once([silent, wait_for_the_lock])[1] == ("a",)
    assert outsider.execute(LOCK).fetchall() == [("a",)]


def test_a_connection_of_a_host_that_is_gone_is_probed_by_the_server(make_database, proxy, url):
    """Over TCP; it would last for two hours otherwise."""
    names = ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout")
    with make_database().read() as tx:
        sources = {name: tx.row("SELECT source FROM pg_settings WHERE name = :name", name=name) for name in names}
    assert set(sources.values()) == {("client",)}


def test_a_probe_holds_no_lock_that_another_hosts_probe_needs(make_database, monkeypatch):
    """A host that is cut off during its probe would make all others unready."""
    one, other = make_database(), make_database()
    before_the_commit(monkeypatch, lambda: other.check_writable(at_most=0.1))
    one.check_writable()
