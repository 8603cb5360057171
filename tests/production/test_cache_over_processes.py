"""The cache's promise over real processes: no read is older than a write that was answered before it began.

There are two workers, each with a cache of its own, four reading and two writing threads, and a third process that
writes by SQL alone. Each product has one writer, which raises its stock by one and, after COMMIT has returned, puts the
number into memory that all processes share. A reader reads it before it asks the cache: a smaller stock is stale. The
same test must find stale reads with the textbook cache and with caches from which one piece was removed.
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
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from backend.infrastructure import cache as textbook
from backend.production import cache as coherent
from backend.production.database import GroupCommitDatabase
from tests.at_once import at_once
from tests.conftest import Api
from tests.forked import Forked
from tests.infrastructure.worker import PUT
from tests.production.furnished_service import furnished_service
from tests.production.real_service import PATIENT
from tests.waiting import wait_until

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # these tests fork beside threads

READERS, WRITERS = 4, 2  # threads of each of two workers
READS = 104_000  # of all threads
PRODUCTS = 15  # three for each of five writers
BURST = 1000  # reads of a thread; then its worker only writes for a while, with other writes still unapplied
WHOLE_LIST = PRODUCTS  # the number under which a reader asks for all products
READS_A_STOCK = 6  # at least, of all clients over HTTP, between two writes of a product
READS_A_WRITE = 50  # at least, so that most reads can be hits however the machine schedules the processes

PIECES = {  # the removed piece → module, text, replacement
    "the fill guard": (textbook, "if generation == self._generation:", "if True:"),
    "the look at the log": (coherent, 'if version != getattr(self._seen, "version", None):', "if False:"),
}


class Shared:
    """Numbers that all processes share: answered stocks, the reads of each reader, whether a read was stale."""

    def __init__(self) -> None:
        self._words = memoryview(mmap.mmap(-1, 4096)).cast("Q")

    def answered(self, number: int) -> list[int]:
        return self._words[:PRODUCTS].tolist() if number == WHOLE_LIST else [self._words[number]]

    def answer(self, number: int, stock: int) -> None:
        self._words[number] = stock

    def done(self, worker: int | None = None) -> bool:
        """Whether all readers have ended. With a number, first record that this worker's readers have."""
        if worker is not None:
            self._words[PRODUCTS + worker] = 1
        return self._words[PRODUCTS] == self._words[PRODUCTS + 1] == 1

    def count_read(self, reader: int) -> None:
        self._words[PRODUCTS + 3 + reader] += 1

    def writers_are_ahead(self) -> bool:
        """Each stock counts its writes, and each reader its reads."""
        readers = self._words[PRODUCTS + 3 : PRODUCTS + 3 + 2 * READERS].tolist()
        return sum(self._words[:PRODUCTS].tolist()) * READS_A_WRITE > sum(readers)

    def stale(self, found: bool = False) -> bool:
        """Whether a stale read was found, which ends the run."""
        if found:
            self._words[PRODUCTS + 2] = 1
        return self._words[PRODUCTS + 2] == 1


class CachedWorker:
    """One process's database and cache, with its readers and writers."""

    def __init__(self, path: Path, shared: Shared, cache: type[textbook.LruCache], number: int) -> None:
        self.database = GroupCommitDatabase(path, busy_timeout=30)
        self.cache = cache(self.database, 100, 60.0)
        self.shared, self.number = shared, number
        self.reads = self.puts = 0
        self.all_quiet = threading.Barrier(READERS)

    def run(self) -> tuple[int, int]:
        """Returns the numbers of reads and hits."""
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
        """Wait, with all readers of this worker, until it has written twice more."""
        with suppress(threading.BrokenBarrierError):  # a stale read was found
            self.all_quiet.wait(60)
            until = self.puts + 2
            while self.puts < until:
                time.sleep(0.001)

    def look_up(self, number: int) -> list[int]:
        tag = "products" if number == WHOLE_LIST else f"products:p{number:02}"
        return self.cache.get_or_load(number, lambda tx: stocks(tx, number), (tag,)) or []

    def put(self, product: str, stock: int) -> None:
        with self.database.transaction() as tx:
            tx.run(PUT, id=product, stock=stock)
            tx.after_commit(lambda: self.cache.invalidate(f"products:{product}", "products"))
        self.puts += 1


def stocks(tx: Any, number: int) -> list[int]:
    if number == WHOLE_LIST:
        rows = tx.rows("SELECT stock FROM products ORDER BY id")
    else:
        rows = tx.rows("SELECT stock FROM products WHERE id = :id", id=f"p{number:02}")
    time.sleep(0.001)  # time for a write to overtake the load
    return [stock for (stock,) in rows]


def write(put: Callable[[str, int], Any], first: int, shared: Shared) -> None:
    """Raise the stocks of three products until all readers have ended."""
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
            time.sleep(0.005)  # SQLite's lock is no queue: without a pause other processes would not get it

        write(put, 12, shared)


def run(path: Path, cache: type[textbook.LruCache]) -> tuple[bool, int, float]:
    """Returns whether a read was stale, the number of reads, and the share of hits."""
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
    stale, reads, hit_rate = run(database_path, coherent.CoherentCache)
    assert not stale
    assert reads >= 100_000
    assert hit_rate > 0.8


def test_the_textbook_cache_shows_stale_reads_over_two_workers(database_path: Path) -> None:
    """Only its own process's writes invalidate it."""
    stale, _, _ = run(database_path, textbook.LruCache)
    assert stale


@pytest.mark.parametrize("piece", PIECES)
def test_without_one_piece_the_coherent_cache_shows_stale_reads(piece: str, database_path: Path) -> None:
    module, text, replacement = PIECES[piece]
    sources = {each: Path(each.__file__ or "").read_text(encoding="utf-8") for each in (textbook, coherent)}
    assert sources[module].count(text) == 1
    sources[module] = sources[module].replace(text, replacement)
    base = loaded("changed_textbook", sources[textbook])
    changed = loaded("changed_coherent", sources[coherent].replace(textbook.__name__, base.__name__))
    stale, _, _ = run(database_path, changed.CoherentCache)
    assert stale


def loaded(name: str, source: str) -> Any:
    """A module with this source, where the import statement finds it."""
    module = sys.modules[name] = types.ModuleType(name)
    exec(source, module.__dict__)
    return module


@pytest.mark.parametrize("wiring", ["production"], indirect=True)
def test_no_answer_of_two_gunicorn_workers_is_older_than_an_answered_write(tmp_path: Path, api: Api) -> None:
    """Two clients write by PATCH, an outsider by SQL; six clients read, each over a connection to one worker."""
    admin = api.admin("Boss")
    products = [api.product(admin, f"CACHED-{number}", stock=1) for number in range(3)]
    shared, writing, reads = [1, 1, 1], [True] * 3, []
    stale: list[tuple[int, int]] = []
    api.app.close()

    def write_all(number: int, put: Callable[[int], object]) -> None:
        for stock in range(2, 100):
            put(stock)
            shared[number] = stock
            seen = len(reads)
            wait_until(lambda seen=seen: len(reads) >= seen + READS_A_STOCK)
        writing[number] = False

    def write_outside() -> None:
        with closing(sqlite3.connect(tmp_path / "app.db", isolation_level=None, timeout=30)) as outsider:
            sql = "UPDATE products SET stock = ? WHERE id = ?"
            write_all(2, lambda stock: outsider.execute(sql, (stock, products[2])))

    with furnished_service(tmp_path / "log", api, WEB_CONCURRENCY="2", **PATIENT) as service:

        def write_over_http(number: int) -> None:
            with service.connect() as ask:
                path = f"/api/v1/products/{products[number]}"
                write_all(number, lambda stock: change(ask, path, stock))

        def change(ask: Callable[..., Any], path: str, stock: int) -> None:
            assert ask("PATCH", path, admin, {"stock": stock}).status == 200

        def read() -> None:
            with service.connect() as ask:
                for number in cycle(range(3)):
                    if not any(writing):
                        return
                    least = shared[number]
                    seen = ask("GET", f"/api/v1/products/{products[number]}").data["stock"]
                    stale.extend([(seen, least)] if seen < least else [])
                    reads.append(seen)

        writers = [lambda: write_over_http(0), lambda: write_over_http(1), write_outside]
        at_once([*writers, *[read] * 6])
    assert stale == []
    assert len(reads) > 500
