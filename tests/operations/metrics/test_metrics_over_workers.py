"""`/metrics` of a real gunicorn: sums over all workers that stay right when workers and masters come and go."""

import os
import signal
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from backend.operations.metrics import KEPT_SECONDS
from backend.operations.metrics_folder import MetricsFolder
from tests.conftest import Api, Person
from tests.operations.metrics.scraping import Scrape, scrape
from tests.production.gunicorn_server import Server, listens
from tests.production.real_service import LOST, call, connect_to, service
from tests.production.steady_clients import IN_TIME
from tests.waiting import wait_until, write_lock_held
from tests.watching import holds_gate

PRODUCTS = {"route": "/api/v1/products"}


@pytest.fixture
def server(tmp_path: Path, database_path: Path) -> Iterator[Server]:
    with service(tmp_path / "log", database_path, BUSY_TIMEOUT_SECONDS="60") as server:
        yield server


def folder_of(process: int) -> Path:
    """Where this worker's files are."""
    maps = Path(f"/proc/{process}/maps").read_text().splitlines()
    files = {line.split()[-1] for line in maps if "counter_" in line}
    return Path(files.pop()).parent


def counted(answer: Scrape) -> float:
    return answer.value("http_requests_total", **PRODUCTS)


def fresh_scrape(server: Server) -> Scrape:
    """A scrape made later than those before it: a worker sends its text again for KEPT_SECONDS."""
    time.sleep(KEPT_SECONDS + 0.1)
    return scrape(server)


def wait_for_count(server: Server, count: int) -> None:
    """Wait until so many requests for products are shown, and no more: each worker publishes once a second."""
    wait_until(lambda: counted(scrape(server)) >= count)
    assert counted(fresh_scrape(server)) == count


def ask(server: Server, times: int) -> None:
    for _ in range(times):
        assert call(server, "GET", "/products").status == 200


def test_a_scrape_of_any_worker_shows_the_sum_over_all(server: Server) -> None:
    for number, worker in enumerate(server.workers(), start=1):
        (caller,) = connect_to(server, worker)
        with caller:
            for _ in range(number * 10):
                caller.call("GET", "/products")
    wait_for_count(server, 30)
    for worker in server.workers():
        (caller,) = connect_to(server, worker)
        with caller:
            assert counted(scrape(server, caller.http)) == 30


def test_requests_that_the_server_refuses_count(server: Server) -> None:
    assert server.ask(b"GET / HTTP/1.1\r\nbad line\r\n\r\n").status == 400
    wait_until(lambda: scrape(server).value("http_server_refusals_total", status="400") == 1)


def test_reloads_change_no_count_and_need_no_more_files(server: Server) -> None:
    """Each reload makes two workers, which count on in the files of dead ones. Every scrape meanwhile is answered."""
    ask(server, 10)
    wait_for_count(server, 10)
    folder, seen = folder_of(server.workers()[0]), []
    for _ in range(4):
        before = server.workers()
        server.process.send_signal(signal.SIGHUP)
        while set(server.workers()) & set(before):
            seen += scraped_in_time(server)
    assert len(seen) > 4
    assert set(seen) == {(200, 10)}
    ask(server, 10)
    wait_for_count(server, 20)
    assert len(list(folder.iterdir())) <= 3 * 4  # counters, histograms, gauges of two workers and of two that end


def scraped_in_time(server: Server) -> list[tuple[int, float]]:
    """Status and count, or nothing: a worker that stops closes a connection that a busy machine leaves unused."""
    began = time.monotonic()
    try:
        answer = scrape(server)
    except LOST:
        assert time.monotonic() - began >= IN_TIME
        return []
    return [(answer.status, counted(answer))]


def test_a_file_that_a_worker_has_just_made_is_left_out(server: Server) -> None:
    (folder_of(server.workers()[0]) / "counter_0-99.db").touch()
    assert scrape(server).status == 200


def test_a_killed_worker_leaves_its_counts(server: Server) -> None:
    """The worker that replaces it counts on."""
    ask(server, 20)
    wait_for_count(server, 20)
    before = server.workers()
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: before[0] not in server.workers())
    server.wait_for_workers(2, others_than=before[:1])
    assert counted(fresh_scrape(server)) == 20
    ask(server, 5)
    wait_for_count(server, 25)


def test_a_killed_worker_has_nothing_in_flight(server: Server, api: Api, ada: Person, database_path: Path) -> None:
    """Also if none replaces it: SIGTTOU ends a worker, which waits for its request until it is killed."""
    with write_lock_held(database_path), ExitStack() as stack:
        before = server.workers()
        for worker in before:
            caller = stack.enter_context(connect_to(server, worker)[0])
            caller.send("POST", "/accounts", ada, {"currency": "EUR"})
            wait_until(lambda worker=worker: holds_gate(worker, database_path))
        wait_until(lambda: scrape(server).value("http_requests_in_flight") == 3)  # with the scrape itself
        server.process.send_signal(signal.SIGTTOU)
        os.kill(min(before), signal.SIGKILL)  # the oldest, which the master tells to stop
        wait_until(lambda: len(server.workers()) == 1)
        wait_until(lambda: scrape(server).value("http_requests_in_flight") <= 2)


def test_an_upgrade_counts_on_and_the_last_master_removes_the_folder(tmp_path: Path, database_path: Path) -> None:
    """SIGUSR2 starts a new master beside the old one; SIGTERM then ends the old one, and later the new one."""
    command = tmp_path / "gunicorn"  # the installed command: `python -m gunicorn` cannot start itself again
    command.write_text(f'#!/bin/sh\nshift 2\nexec {Path(sys.executable).with_name("gunicorn")} "$@"\n')
    command.chmod(0o755)
    with service(tmp_path / "log", database_path, python=str(command)) as server:
        ask(server, 10)
        wait_for_count(server, 10)
        old_workers = server.workers()
        folder = folder_of(old_workers[0])
        server.process.send_signal(signal.SIGUSR2)
        wait_until(lambda: len(server.workers()) == 3)
        (new_master,) = set(server.workers()) - set(old_workers)
        wait_until(lambda: len(workers := children_of(new_master)) == 2 and all(map(listens, workers)))
        ask(server, 10)
        wait_for_count(server, 20)
        server.process.terminate()
        assert server.process.wait(60) == 0
        ask(server, 10)
        wait_for_count(server, 30)
        assert folder.exists()
        os.kill(new_master, signal.SIGTERM)
        wait_until(lambda: not folder.exists())


def children_of(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def test_what_a_killed_master_left_does_not_count_and_goes_at_the_next_start(
    server: Server, tmp_path: Path, database_path: Path
) -> None:
    ask(server, 10)
    wait_for_count(server, 10)
    workers = server.workers()
    folder = folder_of(workers[0])
    server.process.kill()
    server.process.wait()
    wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    with service(tmp_path / "second log", database_path) as second:
        assert counted(scrape(second)) == 0
        assert not folder.exists()


def test_the_folder_is_private_and_goes_with_its_own_master_only(server: Server) -> None:
    ask(server, 10)
    wait_for_count(server, 10)
    folder, other = folder_of(server.workers()[0]), MetricsFolder()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROMETHEUS_MULTIPROC_DIR", "")  # which `open` sets
        other.open(upgrade=False)
        other.close()
    assert counted(fresh_scrape(server)) == 10
    server.process.terminate()
    assert server.process.wait(60) == 0
    assert not folder.exists()
