"""The cache's promise over real processes: no read shows less than what was answered before it began.

Two workers, each with a cache of its own, four threads that read and two that write, and an outsider who knows nothing
of caches. Each product has one writer, who counts its stock up by one; after COMMIT has returned he puts the number in
memory that all share. A reader looks there first and asks the cache then: whoever gets less has read what was old.
A test that cannot fail proves little, so three caches with a piece taken out must be caught by the same test.
"""

import mmap
import random
import sqlite3
import sys
import threading
import time
import types
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from backend.infrastructure import cache as real
from backend.infrastructure.database import Database
from tests.at_once import at_once
from tests.conftest import Api
from tests.forked import Forked
from tests.infrastructure.worker import PUT
from tests.production.furnished_service import furnished_service

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # 3.12: we fork beside threads on purpose

READERS, WRITERS = 4, 2  # threads of each of two workers
READS = 104_000  # of all
PRODUCTS = 15  # three for each of five writers
BURST = 1000  # reads of a thread; then its worker is quiet for some own writes, which find others' that nobody has seen
WHOLE_LIST = PRODUCTS  # the number under which a reader asks for all at once

MUTANTS = {
    "without the lease": ("self._cleared == cleared and self._applied <= as_of", "True"),
    "without a look at the log": ('if version == getattr(self._seen, "version", None):', "if True:"),
}


READS_A_WRITE = 50  # at least, so that most reads can be hits however the machine shares out its time


class Shared:
    """Numbers that all processes see: what was answered, whether the readers have done, who has done how much."""

    def __init__(self) -> None:
        self._words = memoryview(mmap.mmap(-1, 4096)).cast("Q")

    def answered(self, number: int) -> list[int]:
        return self._words[:PRODUCTS].tolist() if number == WHOLE_LIST else [self._words[number]]

    def answer(self, number: int, stock: int) -> None:
        self._words[number] = stock

    def done(self, worker: int | None = None) -> bool:
        """Whether all readers have done; with a number: say so for those of that worker."""
        if worker is not None:
            self._words[PRODUCTS + worker] = 1
        return self._words[PRODUCTS] == self._words[PRODUCTS + 1] == 1

    def count_read(self, reader: int) -> None:
        self._words[PRODUCTS + 3 + reader] += 1

    def writers_are_ahead(self) -> bool:
        """Each writer counts its stocks up from 1, each reader its reads."""
        readers = self._words[PRODUCTS + 3 : PRODUCTS + 3 + 2 * READERS].tolist()
        return sum(self._words[:PRODUCTS].tolist()) * READS_A_WRITE > sum(readers)

    def stale(self, found: bool = False) -> bool:
        """Whether anybody has found a stale read: there is no more to learn then."""
        if found:
            self._words[PRODUCTS + 2] = 1
        return self._words[PRODUCTS + 2] == 1


class CachedWorker:
    """One process's database and cache, and what its readers found."""

    def __init__(self, path: Path, shared: Shared, cache: type[real.CoherentCache], number: int) -> None:
        self.database = Database(path, busy_timeout=30)
        self.cache = cache(self.database, 100, 60.0)
        self.shared, self.number = shared, number
        self.reads = self.puts = 0
        self.all_quiet = threading.Barrier(READERS)

    def run(self) -> tuple[int, int]:
        """Reads and hits."""
        sys.setswitchinterval(0.0005)
        readers = [lambda n=n: self.read(READERS * self.number + n) for n in range(READERS)]
        writers = [lambda n=n: write(self.put, 6 * self.number + 3 * n, self.shared) for n in range(WRITERS)]
        at_once([lambda: self.readers(readers), *writers])
        return self.reads, self.cache.hits

    def readers(self, readers: list[Callable[[], int]]) -> None:
        try:
            self.reads = sum(at_once(readers))
        finally:
            self.shared.done(self.number)

    def read(self, reader: int) -> int:
        chance = random.Random(reader)
        for count in range(READS // READERS // 2):
            if count % BURST == 0:
                self.be_quiet()
            self.shared.count_read(reader)
            number = WHOLE_LIST if count % 32 == 0 else chance.randrange(PRODUCTS)
            least = self.shared.answered(number)
            seen = self.look_up(number)
            if any(stock < answered for stock, answered in zip(seen, least, strict=True)):
                self.shared.stale(found=True)
            if self.shared.stale():
                self.all_quiet.abort()
                break
        self.database.close()
        return count + 1

    def be_quiet(self) -> None:
        """All readers of this worker wait for it to write twice more."""
        with suppress(threading.BrokenBarrierError):  # a stale read was found, there is no more to do
            self.all_quiet.wait(20)
            until = self.puts + 2
            while self.puts < until:
                time.sleep(0.001)

    def look_up(self, number: int) -> list[int]:
        tag = "products" if number == WHOLE_LIST else f"products:p{number:02}"
        return self.cache.get_or_load(number, lambda tx: stocks(tx, number), (tag,)) or []

    def put(self, product: str, stock: int) -> None:
        with self.database.transaction() as tx:
            tx.run(PUT, id=product, stock=stock)
        self.puts += 1


def stocks(tx: Any, number: int) -> list[int]:
    if number == WHOLE_LIST:
        rows = tx.rows("SELECT stock FROM products ORDER BY id")
    else:
        rows = tx.rows("SELECT stock FROM products WHERE id = :id", id=f"p{number:02}")
    time.sleep(0.001)  # time for a write to overtake the load
    return [stock for (stock,) in rows]


def write(put: Callable[[str, int], Any], first: int, shared: Shared) -> None:
    """Count the stocks of three products up until all readers have done."""
    stock = 1
    while not shared.done():
        stock += 1
        for number in range(first, first + 3):
            put(f"p{number:02}", stock)
            shared.answer(number, stock)
        if shared.writers_are_ahead():
            time.sleep(0.02)


def write_outside(path: Path, shared: Shared) -> None:
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as connection:

        def put(product: str, stock: int) -> None:
            connection.execute(PUT, {"id": product, "stock": stock})
            time.sleep(
                0.005
            )  # it knows no gate, and SQLite's lock is no queue: without a pause nobody else would write

        write(put, 12, shared)


def run(path: Path, cache: type[real.CoherentCache]) -> tuple[bool, int, float]:
    """Whether a stale read was found, how many reads there were, and which part of them were hits."""
    shared = Shared()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for number in range(PRODUCTS):
            connection.execute(PUT, {"id": f"p{number:02}", "stock": 1})
    workers = [Forked(lambda n=n: CachedWorker(path, shared, cache, n).run()) for n in range(2)]
    outsider = Forked(lambda: write_outside(path, shared))
    results = [worker.result() for worker in workers]
    outsider.result()
    reads = sum(reads for reads, _ in results)
    return shared.stale(), reads, sum(hits for _, hits in results) / reads


def test_no_read_over_two_workers_and_an_outsider_is_older_than_an_answered_write(database_path: Path) -> None:
    stale, reads, hit_rate = run(database_path, real.CoherentCache)
    assert not stale
    assert reads >= 100_000
    assert hit_rate > 0.8


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_test_above_catches_a_cache(mutant: str, database_path: Path) -> None:
    source = Path(real.__file__).read_text(encoding="utf-8")
    original, changed = MUTANTS[mutant]
    assert source.count(original) == 1
    module = types.ModuleType("mutant")
    sys.modules[module.__name__] = module  # where dataclasses look for their annotations
    exec(source.replace(original, changed), module.__dict__)
    stale, _, _ = run(database_path, module.CoherentCache)
    assert stale


def test_no_answer_of_two_gunicorn_workers_is_older_than_an_answered_write(tmp_path: Path, api: Api) -> None:
    """Two clients write by PATCH, an outsider by SQL, and six clients read, each of which stays with one worker."""
    admin = api.admin("Boss")
    products = [api.product(admin, f"CACHED-{number}", stock=1) for number in range(3)]
    shared, writing = [1, 1, 1], [True] * 3
    stale: list[tuple[int, int]] = []
    api.app.close()

    def write_all(number: int, put: Callable[[int], object]) -> None:
        for stock in range(2, 100):
            put(stock)
            shared[number] = stock
            time.sleep(0.005)
        writing[number] = False

    def write_outside() -> None:
        with closing(sqlite3.connect(tmp_path / "app.db", isolation_level=None, timeout=30)) as outsider:
            sql = "UPDATE products SET stock = ? WHERE id = ?"
            write_all(2, lambda stock: outsider.execute(sql, (stock, products[2])))

    with furnished_service(tmp_path / "log", api, WEB_CONCURRENCY="2", BUSY_TIMEOUT_SECONDS="20") as service:

        def write_over_http(number: int) -> None:
            with service.connect() as ask:
                path = f"/api/v1/products/{products[number]}"
                write_all(number, lambda stock: ask("PATCH", path, admin, {"stock": stock}))

        def read() -> int:
            reads = 0
            with service.connect() as ask:
                while any(writing):
                    number = reads % 3
                    least = shared[number]
                    seen = ask("GET", f"/api/v1/products/{products[number]}").data["stock"]
                    stale.extend([(seen, least)] if seen < least else [])
                    reads += 1
            return reads

        writers = [lambda: write_over_http(0), lambda: write_over_http(1), write_outside]
        reads = sum(count or 0 for count in at_once([*writers, *[read] * 6]))
    assert stale == []
    assert reads > 500
