"""Neither recycled workers nor requests leave descriptors, threads or shared memory behind."""

import os
import signal
from itertools import count
from pathlib import Path

from tests.conftest import Api, Person
from tests.production.gunicorn_server import Server, gunicorn
from tests.production.load import Load
from tests.production.real_service import ports_of, service
from tests.waiting import wait_until


def possessions(process: int) -> tuple[int, int, list[int]]:
    """The numbers of descriptors and threads of a process, and the sizes of its anonymous shared mappings."""
    maps = Path(f"/proc/{process}/maps").read_text().splitlines()
    spans = [line.split()[0].split("-") for line in maps if " rw-s " in line]
    return (
        len(list(Path(f"/proc/{process}/fd").iterdir())),
        len(list(Path(f"/proc/{process}/task").iterdir())),
        sorted(int(end, 16) - int(begin, 16) for begin, end in spans),
    )


def test_fifty_recycles_leak_neither_descriptors_nor_threads(tmp_path: Path) -> None:
    """Neither in the master nor in new workers. The tiny application is used because its workers start sooner."""
    with gunicorn(tmp_path / "log", WEB_CONCURRENCY="4") as server:
        workers = server.wait_for_workers(4)
        at_first = [possessions(server.process.pid), *map(possessions, workers)]
        for event in [signal.SIGHUP, signal.SIGKILL] * 6 + [signal.SIGHUP]:
            if event == signal.SIGHUP:
                server.process.send_signal(event)
            else:
                for worker in workers:
                    os.kill(worker, event)
            workers = server.wait_for_workers(4, others_than=workers)
        wait_until(lambda: [possessions(server.process.pid), *map(possessions, workers)] == at_first)


def test_requests_leave_no_descriptor_thread_or_mapping_in_their_worker(
    tmp_path: Path, database_path: Path, api: Api, ada: Person, admin: Person
) -> None:
    """Once all threads have opened their files, a hundred more requests open none."""
    accounts = api.account(ada, balance=1_000_000, admin=admin), api.account(admin)
    rushes = count()

    def after_a_rush(server: Server) -> list[tuple[int, int, list[int]]]:
        load = Load(server, ada, accounts, clients=20, name=f"rush-{next(rushes)}")
        wait_until(lambda: len(load.acknowledged) > 100)
        load.over = True
        load.join()
        wait_until(lambda: not any(map(ports_of, server.workers())))
        return [possessions(worker) for worker in server.workers()]

    with service(tmp_path / "log", database_path) as server:
        wait_until(lambda: after_a_rush(server) == after_a_rush(server), seconds=300)
