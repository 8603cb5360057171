"""Faults around a live server: a 503 with Retry-After, then full service again without a restart."""

import os
import resource
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from backend.infrastructure.migrations import migrate
from tests.at_once import at_once, deleting
from tests.conftest import Api, Clock
from tests.forked import Forked, Signal
from tests.production.furnished_service import Answer, Service, furnished_service
from tests.production.real_service import PATIENT
from tests.waiting import wait_until


def refused(answer: Answer) -> bool:
    """Whether it is a 503 with a Retry-After."""
    return answer.status == 503 and int(answer.headers["Retry-After"]) >= 1


def reset(service: Service, email: str) -> Answer:
    return service.ask("POST", "/api/v1/auth/password-reset", None, {"email": email})


def assert_sound(path: Path, service: Service, acknowledged: int) -> None:
    """Server and file both show what was acknowledged, and the file is consistent."""
    assert service.balance().data["balance"] == acknowledged
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        assert connection.execute("SELECT DISTINCT sum(balance) FROM accounts GROUP BY currency").fetchall() == [(0,)]
        moved = connection.execute("SELECT sum(amount), count(*) FROM transactions WHERE type = 'transfer'").fetchone()
        assert moved == (acknowledged, acknowledged)


@pytest.fixture
def service(tmp_path: Path, api: Api) -> Iterator[Service]:
    with furnished_service(tmp_path / "log", api, BUSY_TIMEOUT_SECONDS="5") as service:
        yield service


def test_the_start_warns_once_if_this_sqlite_has_the_wal_reset_bug(service: Service) -> None:
    affected = (3, 7, 0) <= sqlite3.sqlite_version_info <= (3, 51, 2)
    assert service.server.log.read_text().count("WAL-reset") == affected


def test_a_database_that_was_moved_away_takes_no_writes_until_it_is_back(
    service: Service, database_path: Path, tmp_path: Path
) -> None:
    """The server still has it open, but a write to the moved file would be lost."""
    assert service.transfer().status == 201
    elsewhere = database_path.rename(tmp_path / "elsewhere.db")
    for _ in range(8):
        assert refused(service.transfer())
    assert refused(service.balance())
    assert refused(service.ask("GET", "/readyz"))
    assert service.ask("GET", "/healthz").status == 200
    assert not database_path.exists()
    elsewhere.rename(database_path)
    assert service.transfer().status == 201
    wait_until(lambda: service.ask("GET", "/readyz").status == 200)  # a result is kept for a second
    assert_sound(database_path, service, acknowledged=2)


def test_a_database_with_another_in_its_place_takes_no_writes(service: Service, database_path: Path) -> None:
    """Even if it is a copy: the `-wal` beside it belongs to the original."""
    assert service.transfer().status == 201
    original = database_path.rename(database_path.with_name("original.db"))
    shutil.copy(original, database_path)
    before = database_path.read_bytes()
    for _ in range(8):
        assert refused(service.transfer())
    assert database_path.read_bytes() == before
    original.replace(database_path)
    assert service.transfer().status == 201
    assert_sound(database_path, service, acknowledged=2)


def test_while_an_outsider_holds_the_lock_reads_are_answered_and_writes_get_a_503(
    tmp_path: Path, api: Api, database_path: Path
) -> None:
    """Six writers for each of the four threads. Those with a place wait, and reads are answered before they are."""
    with (
        furnished_service(tmp_path / "log", api, BUSY_TIMEOUT_SECONDS="60") as service,
        closing(sqlite3.connect(database_path, isolation_level=None)) as outsider,
        ThreadPoolExecutor(24) as clients,
    ):
        outsider.execute("BEGIN IMMEDIATE")
        writes = [clients.submit(service.transfer) for _ in range(24)]
        wait_until(lambda: sum(write.done() for write in writes) >= 22)
        assert service.ask("GET", f"/api/v1/products/{service.product}").status == 200
        assert service.balance().status == 200
        assert not all(write.done() for write in writes)
        outsider.execute("ROLLBACK")
        answers = [write.result() for write in writes]
        made = sum(answer.status == 201 for answer in answers)
        assert 1 <= made <= 2
        assert sum(map(refused, answers)) == 24 - made
        assert_sound(database_path, service, acknowledged=made)


def test_no_transfer_is_lost_or_refused_while_the_gate_is_deleted(
    tmp_path: Path, api: Api, database_path: Path
) -> None:
    """Two workers, eight clients. Writes are served afterwards, too."""
    settings = {"WEB_CONCURRENCY": "2", "THREADS": "8", **PATIENT}
    with furnished_service(tmp_path / "log", api, **settings) as service:
        with deleting(database_path.with_name("app.db-gate")):
            answers = at_once([lambda: [service.transfer() for _ in range(25)]] * 8)
        assert {answer.status for of_one in answers for answer in of_one} == {201}
        assert service.transfer().status == 201
        assert_sound(database_path, service, acknowledged=201)


class Disk(NamedTuple):
    folder: Path
    fill: Callable[[Service], Any]
    free: Callable[[Service], Any]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Disk]:
    """A separate file system of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"may not mount a small disk: {mounted.stderr.decode().strip()}")
    filling = folder / "filling"

    def fill(_: Service) -> None:
        with filling.open("wb", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                try:
                    while file.write(b"x" * size) == size:
                        pass
                except OSError:
                    pass

    yield Disk(folder, fill, lambda _: filling.unlink())
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def no_room(tmp_path: Path) -> Disk:
    """The server's files may not grow. This needs no privilege, but the error is another one (EFBIG)."""

    def limit(service: Service, size: int) -> None:
        for pid in service.server.workers():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    return Disk(tmp_path, lambda service: limit(service, 8192), lambda service: limit(service, resource.RLIM_INFINITY))


@pytest.mark.parametrize("kind", ["tiny_disk", "no_room"])
def test_on_a_full_disk_reads_are_served_and_writes_once_there_is_room(
    kind: str, make_api: Any, request: pytest.FixtureRequest
) -> None:
    """Acknowledged writes are in the file, and refused ones are not, whichever write found no room."""
    disk: Disk = request.getfixturevalue(kind)
    path = disk.folder / "app.db"
    migrate(path)
    with furnished_service(disk.folder / "log", make_api(database_path=path)) as service:
        assert service.transfer().status == 201
        disk.fill(service)
        answers = [service.transfer() for _ in range(40)]  # the -wal may have free pages
        acknowledged = 1 + sum(answer.status == 201 for answer in answers)
        assert refused(answers[-1])
        assert all(refused(answer) for answer in answers if answer.status != 201)
        assert service.balance().data["balance"] == acknowledged
        assert service.ask("GET", f"/api/v1/products/{service.product}").status == 200
        assert refused(service.ask("POST", "/api/v1/accounts", service.ada, {"currency": "EUR"}))
        resets = [reset(service, email) for email in (service.ada.email, "nobody@example.com") * 20]
        assert [refused(answer) for answer in resets[-2:]] == [True, True]  # known and unknown alike
        disk.free(service)
        assert service.transfer().status == 201
        assert_sound(path, service, acknowledged + 1)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # 3.12: we fork beside threads on purpose
def test_a_read_only_file_is_read_and_is_written_once_it_is_writable(make_api: Any, clock: Clock) -> None:
    """In one process that does not run as root, for which file modes would have no effect."""
    told, tell = Signal(), Signal()
    with tempfile.TemporaryDirectory() as name:
        folder, path = Path(name), Path(name, "app.db")
        migrate(path)
        api: Api = make_api(database_path=path)
        root = api.admin()
        product, page = api.product(root), {"name": "Another name"}
        holder = sqlite3.connect(path)  # while a connection is open, the -wal and -shm exist
        holder.execute("SELECT * FROM users").fetchone()
        allow(folder, writing=False)

        def work() -> list[int]:
            if os.geteuid() == 0:
                os.setuid(65534)
            before = [
                api.get(f"/products/{product}"),
                api.patch(f"/products/{product}", root, page),
                api.get("//readyz"),
            ]
            tell.say()
            told.wait()
            clock.advance(1)  # for which /readyz keeps a result
            after = [
                api.patch(f"/products/{product}", root, page),
                api.get(f"/products/{product}"),
                api.get("//readyz"),
            ]
            return [answer.status_code for answer in before + after]

        api.app.database.close()  # no connection crosses the fork
        child = Forked(work)
        tell.wait()
        allow(folder, writing=True)
        told.say()
        assert child.result() == [200, 503, 503, 200, 200, 200]
        holder.close()


def allow(folder: Path, writing: bool) -> None:
    folder.chmod(0o777 if writing else 0o555)
    for file in folder.iterdir():
        file.chmod(0o666 if writing else 0o444)


DAY = 86_400.0


@pytest.mark.parametrize("jump", [-400 * DAY, -60.0, 0.0, 60.0, 400 * DAY])
def test_a_clock_that_jumps_breaks_nothing(api: Api, clock: Clock, jump: float) -> None:
    """Tokens issued at another time get 401, not 500. New tokens are valid, and writes succeed with them."""
    root, ada, grace = api.admin(), api.sign_up("Ada"), api.sign_up("Grace")
    source, target = api.account(ada, balance=100, admin=root), api.account(grace)
    body = {"fromAccountId": source, "toAccountId": target, "amount": 1}
    statuses = {api.post("/transfers", ada, body, key="k").status_code}
    for ahead in (jump, 0.0, jump):
        clock.ahead = ahead
        refreshed = api.post("/auth/refresh", json={"refreshToken": ada.refresh})
        for person in (ada, api.log_in("ada@example.com")):
            answers = [
                api.post("/transfers", person, body, key="k"), api.post("/transfers", person, body),
                api.get(f"/accounts/{source}/transactions?limit=1", person), api.get("/products"),
                api.patch("/users/me", person, {"name": f"Ada {ahead}"}), api.get("/auth/sessions", person), refreshed,
            ]  # fmt: skip
            statuses |= {answer.status_code for answer in answers}
        assert [answer.status_code for answer in answers[:6]] == [201, 201, 200, 200, 200, 200]
        wait_until(lambda: api.get("//readyz").status_code == 200)  # 503 while a check takes longer than 0.8 s
    assert statuses <= {200, 201, 401}
    clock.ahead = 0.0
    money = [api.balance(account, api.log_in(email)) for account, email in
             [(source, "ada@example.com"), (target, "grace@example.com")]]  # fmt: skip
    assert sum(money) == 100
