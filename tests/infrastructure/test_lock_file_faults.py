"""The lock before the database when its file is deleted or a system call fails: nothing lost, nobody stuck."""

import errno
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from pathlib import Path

import pytest

from backend.errors import Unavailable
from backend.infrastructure import file_lock
from backend.infrastructure.database import Database
from backend.infrastructure.file_lock import FileLock
from backend.infrastructure.migrations import migrate
from tests.at_once import asleep, at_once, deleting
from tests.forked import Forked, Signal

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # 3.12: we fork beside threads on purpose


def gate_of(database_path: Path) -> Path:
    return database_path.with_name(f"{database_path.name}-gate")


def test_two_threads_never_have_the_lock_at_once_although_its_file_is_deleted(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "gate")
    inside: list[int] = []
    overlaps: list[list[int]] = []

    def work(number: int) -> None:
        for _ in range(30):
            assert lock.acquire(30)
            inside.append(number)
            time.sleep(0.001)
            if inside != [number]:
                overlaps.append(list(inside))
            inside.remove(number)
            lock.release()

    with deleting(tmp_path / "gate"):
        at_once(lambda n=n: work(n) for n in range(8))
    assert overlaps == []


def test_a_lock_whose_file_is_deleted_while_it_is_held_is_still_held(tmp_path: Path) -> None:
    lock, got = FileLock(tmp_path / "gate"), []
    assert lock.acquire(0)
    (tmp_path / "gate").unlink()
    assert not lock.acquire(0)
    assert not lock.acquire(0.05)
    waiting = threading.Thread(target=lambda: got.append(lock.acquire(30)))
    waiting.start()
    asleep(waiting)
    assert got == []
    lock.release()
    waiting.join()
    assert got == [True]


def test_a_lock_can_be_passed_on_after_its_file_was_deleted(tmp_path: Path) -> None:
    """The thread that waits gets it from its holder, once; afterwards it is free for everybody."""
    lock, got = FileLock(tmp_path / "gate"), []
    assert lock.acquire(0)
    (tmp_path / "gate").unlink()
    waiting = threading.Thread(target=lambda: got.append(lock.acquire(30)))
    waiting.start()
    asleep(waiting)
    assert lock.pass_on()
    waiting.join()
    assert got == [True]
    lock.release()
    assert lock.acquire(30)


def test_processes_exclude_each_other_again_from_the_first_turn_after_the_deletion(tmp_path: Path) -> None:
    """A process that used the deleted file takes the new one of a process that started later."""
    lock, leave = FileLock(tmp_path / "gate"), Signal()
    assert lock.acquire(0)
    lock.release()
    (tmp_path / "gate").unlink()
    has = Signal()

    def hold() -> None:
        later = FileLock(tmp_path / "gate")
        assert later.acquire(5)
        has.say()
        leave.wait()
        later.release()

    child = Forked(hold)
    has.wait()
    assert not lock.acquire(0.05)
    leave.say()
    child.result()
    assert lock.acquire(30)


def write_notes(database: Database, name: str, count: int) -> list[str]:
    """What was answered: each note in a transaction of its own that reads before it writes."""
    answered = []
    for number in range(count):
        with database.transaction() as tx:
            (total,) = tx.row("SELECT count(*) FROM notes")
            tx.run("INSERT INTO notes (text, number) VALUES (:t, :n)", t=f"{name}-{number}", n=total + 1)
        answered.append(f"{name}-{number}")
    database.close()
    return answered


def test_no_write_is_lost_or_refused_while_the_gate_is_deleted(notes_path: Path, written, outsider) -> None:
    database = Database(notes_path, busy_timeout=30, patient=8)
    with deleting(gate_of(notes_path)):
        answered = at_once(lambda n=n: write_notes(database, f"{n}", 25) for n in range(8))
    assert written() == sorted(note for notes in answered for note in notes)
    numbers = [number for (number,) in outsider.execute("SELECT number FROM notes ORDER BY number")]
    assert numbers == list(range(1, 201)), "two transactions have seen the same state"


def test_no_write_is_lost_or_refused_by_several_processes_while_the_gate_is_deleted(
    notes_path: Path, written, outsider
) -> None:
    """For a moment each may hold a gate of its own: then SQLite's own lock keeps them apart."""
    begin = [Signal() for _ in range(3)]

    def work(name: int) -> list[list[str]]:
        database = Database(notes_path, busy_timeout=20, patient=4)
        begin[name].wait()
        return at_once(lambda n=n: write_notes(database, f"{name}-{n}", 20) for n in range(4))

    children = [Forked(lambda n=n: work(n)) for n in range(3)]
    with deleting(gate_of(notes_path)):
        for signal in begin:
            signal.say()
        answered = [note for child in children for notes in child.result() for note in notes]
    assert written() == sorted(answered)
    numbers = [number for (number,) in outsider.execute("SELECT number FROM notes ORDER BY number")]
    assert numbers == list(range(1, 241)), "two transactions have seen the same state"


def test_of_several_processes_one_migrates_although_the_gate_is_deleted(tmp_path: Path) -> None:
    folder, path = tmp_path / "sql", tmp_path / "app.db"
    folder.mkdir()
    for n in range(1, 10):
        (folder / f"{n:04}_n.sql").write_text(f"CREATE TABLE t{n} (x);", encoding="utf-8")
    begin = [Signal() for _ in range(4)]

    def work(n: int) -> list[str]:
        begin[n].wait()
        return migrate(path, folder)

    children = [Forked(lambda n=n: work(n)) for n in range(4)]
    with deleting(gate_of(path)):
        for signal in begin:
            signal.say()
        applied = [name for child in children for name in child.result()]
    assert sorted(applied) == [f"{n:04}_n" for n in range(1, 10)]


class FailingFlock:
    """`flock`, failing where `fails` says so, as often as there are `errors`."""

    def __init__(self, fails: Callable[[int], bool], *errors: BaseException) -> None:
        self._fails, self._errors = fails, list(errors)

    def __call__(self, number: int, operation: int) -> None:
        if self._errors and self._fails(operation):
            raise self._errors.pop()
        flock(number, operation)

    @property
    def failed(self) -> bool:
        return not self._errors


def waits(operation: int) -> bool:
    return operation == LOCK_EX


NO_LOCKS = OSError(errno.ENOLCK, "No locks available")


@pytest.mark.parametrize("error", [NO_LOCKS, MemoryError(), SystemError("unforeseen")], ids=repr)
def test_a_failed_wait_for_the_lock_refuses_those_in_line_and_nobody_after_them(tmp_path, monkeypatch, error) -> None:
    lock, failing = FileLock(tmp_path / "gate"), FailingFlock(waits, error)
    monkeypatch.setattr(file_lock, "flock", failing)
    assert lock.acquire(0)

    def wait() -> str:
        try:
            return "got" if lock.acquire(30) else "too late"
        except OSError:
            return "refused"

    assert at_once([wait]) == ["refused"]
    assert failing.failed
    got: list[str] = []
    next_writer = threading.Thread(target=lambda: got.append(wait()))
    next_writer.start()
    asleep(next_writer)
    lock.release()
    next_writer.join()
    assert got == ["got"]
    lock.release()
    assert lock.acquire(0)


def test_writing_goes_on_after_one_failed_wait_for_the_lock(notes_path, written, monkeypatch) -> None:
    """Through the database: 503 for who was in line, and the transaction that was open is written."""
    database = Database(notes_path, busy_timeout=30)
    monkeypatch.setattr(file_lock, "flock", FailingFlock(waits, NO_LOCKS))
    with database.transaction() as tx:
        tx.run("INSERT INTO notes (text) VALUES ('a')")
        with pytest.raises(Unavailable):
            at_once([database.check_writable])
    write_notes(database, "b", 1)
    at_once([lambda: write_notes(database, "c", 1)])
    assert written() == ["a", "b-0", "c-0"]


@pytest.mark.parametrize("operation", [LOCK_EX | LOCK_NB, LOCK_UN], ids=["taken", "let go of"])
def test_writing_goes_on_after_one_failed_call_for_the_lock(notes_path, written, monkeypatch, operation) -> None:
    database = Database(notes_path, busy_timeout=30)
    monkeypatch.setattr(file_lock, "flock", FailingFlock(lambda called: called == operation, NO_LOCKS))
    with suppress(Unavailable):
        write_notes(database, "a", 1)
    write_notes(database, "b", 1)
    assert Forked(lambda: write_notes(Database(notes_path, busy_timeout=5), "c", 1)).result() == ["c-0"]
    assert written()[-2:] == ["b-0", "c-0"]


def test_all_who_have_written_together_are_answered_although_the_lock_cannot_be_let_go_of(
    notes_path, written, monkeypatch
) -> None:
    database = Database(notes_path, busy_timeout=30)
    thread = threading.Thread(target=write_notes, args=(database, "b", 1))
    with database.transaction() as tx:
        tx.run("INSERT INTO notes (text) VALUES ('a')")
        thread.start()
        asleep(thread)
        monkeypatch.setattr(file_lock, "flock", FailingFlock(lambda called: called == LOCK_UN, NO_LOCKS))
    thread.join(30)
    assert not thread.is_alive()
    assert written() == ["a", "b-0"]


def test_a_thread_that_cannot_be_started_refuses_one_writer_and_no_more(notes_path, written, monkeypatch) -> None:
    database = Database(notes_path, busy_timeout=30)
    waiting, holding = threading.Event(), threading.Event()

    def hold() -> None:
        with database.transaction() as tx:
            tx.run("INSERT INTO notes (text) VALUES ('a')")
            holding.set()
            waiting.wait(30)

    def cannot(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    holder = threading.Thread(target=hold)
    holder.start()
    assert holding.wait(30)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", cannot)
        with pytest.raises(Unavailable):
            database.check_writable()
    waiting.set()
    holder.join()
    write_notes(database, "b", 1)
    assert written() == ["a", "b-0"]
