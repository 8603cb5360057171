"""The gate when its file is deleted or a system call fails: no write is lost, and no thread blocks for ever."""

import errno
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from pathlib import Path

import pytest

from backend.errors import Unavailable
from backend.infrastructure.migrations import migrate
from backend.production import write_gate
from backend.production.database import GroupCommitDatabase
from backend.production.write_gate import WriteGate
from tests.at_once import asleep, at_once, deleting
from tests.forked import Forked, Signal
from tests.production.held_gate import held_by_a_child

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # 3.12: we fork beside threads on purpose


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a database that need not exist."""
    return tmp_path / "app.db"


def file_of(database: Path) -> Path:
    return database.with_name(f"{database.name}-gate")


def test_two_threads_never_hold_the_gate_together_although_its_file_is_deleted(path: Path) -> None:
    gate = WriteGate(path)
    inside: list[int] = []
    overlaps: list[list[int]] = []

    def work(number: int) -> None:
        for _ in range(30):
            assert gate.acquire(30)
            inside.append(number)
            time.sleep(0.001)
            if inside != [number]:
                overlaps.append(list(inside))
            inside.remove(number)
            gate.release()

    with deleting(file_of(path)):
        at_once(lambda n=n: work(n) for n in range(8))
    assert overlaps == []


def test_a_gate_whose_file_is_deleted_while_it_is_held_is_still_held(path: Path) -> None:
    gate, got = WriteGate(path), []
    assert gate.acquire(0)
    file_of(path).unlink()
    assert not gate.acquire(0)
    assert not gate.acquire(0.05)
    waiting = threading.Thread(target=lambda: got.append(gate.acquire(30)))
    waiting.start()
    asleep(waiting)
    assert got == []
    gate.release()
    waiting.join()
    assert got == [True]


def test_a_gate_can_be_passed_on_after_its_file_was_deleted(path: Path) -> None:
    """To one thread, once. Afterwards any thread can acquire it."""
    gate, got = WriteGate(path), []
    assert gate.acquire(0)
    file_of(path).unlink()
    waiting = threading.Thread(target=lambda: got.append(gate.acquire(30)))
    waiting.start()
    asleep(waiting)
    assert gate.pass_on()
    waiting.join()
    assert got == [True]
    gate.release()
    assert gate.acquire(30)


def test_processes_exclude_each_other_again_from_the_first_turn_after_the_deletion(path: Path) -> None:
    """A process that used the deleted file takes the new one of a process that started later."""
    gate, leave = WriteGate(path), Signal()
    assert gate.acquire(0)
    gate.release()
    file_of(path).unlink()
    child = held_by_a_child(path, until=leave)
    assert not gate.acquire(0.05)
    leave.say()
    child.result()
    assert gate.acquire(30)


def write_notes(database: GroupCommitDatabase, name: str, count: int) -> list[str]:
    """Write notes, each in a transaction that reads before it writes. Returns the notes that were answered."""
    answered = []
    for number in range(count):
        with database.transaction() as tx:
            (total,) = tx.row("SELECT count(*) FROM notes")
            tx.run("INSERT INTO notes (text, number) VALUES (:t, :n)", t=f"{name}-{number}", n=total + 1)
        answered.append(f"{name}-{number}")
    database.close()
    return answered


def test_no_write_is_lost_or_refused_while_the_file_is_deleted(make_database, notes_path, written, outsider) -> None:
    database = make_database(busy_timeout=30, max_waiters=8)
    with deleting(file_of(notes_path)):
        answered = at_once(lambda n=n: write_notes(database, f"{n}", 25) for n in range(8))
    assert written() == sorted(note for notes in answered for note in notes)
    numbers = [number for (number,) in outsider.execute("SELECT number FROM notes ORDER BY number")]
    assert numbers == list(range(1, 201)), "two transactions have seen the same state"


def test_no_write_is_lost_or_refused_by_several_processes_while_the_file_is_deleted(
    notes_path: Path, written, outsider
) -> None:
    """For a moment each process may hold a gate of its own. SQLite's lock then excludes them from each other."""
    begin = [Signal() for _ in range(3)]

    def work(name: int) -> list[list[str]]:
        database = GroupCommitDatabase(notes_path, busy_timeout=60, max_waiters=4)
        begin[name].wait()
        return at_once(lambda n=n: write_notes(database, f"{name}-{n}", 20) for n in range(4))

    children = [Forked(lambda n=n: work(n)) for n in range(3)]
    with deleting(file_of(notes_path)):
        for signal in begin:
            signal.say()
        answered = [note for child in children for notes in child.result() for note in notes]
    assert written() == sorted(answered)
    numbers = [number for (number,) in outsider.execute("SELECT number FROM notes ORDER BY number")]
    assert numbers == list(range(1, 241)), "two transactions have seen the same state"


def test_of_several_processes_one_migrates_although_the_file_is_deleted(tmp_path: Path) -> None:
    folder, path = tmp_path / "sql", tmp_path / "app.db"
    folder.mkdir()
    for n in range(1, 10):
        (folder / f"{n:04}_n.sql").write_text(f"CREATE TABLE t{n} (x);", encoding="utf-8")
    begin = [Signal() for _ in range(4)]

    def work(n: int) -> list[str]:
        begin[n].wait()
        return migrate(path, folder, busy_timeout=60)

    children = [Forked(lambda n=n: work(n)) for n in range(4)]
    with deleting(file_of(path)):
        for signal in begin:
            signal.say()
        applied = [name for child in children for name in child.result()]
    assert sorted(applied) == [f"{n:04}_n" for n in range(1, 10)]


def test_a_migration_waits_for_the_writers_of_production(make_database, notes_path, tmp_path) -> None:
    folder = tmp_path / "sql"
    folder.mkdir()
    (folder / "0001_n.sql").write_text("CREATE TABLE n (x);", encoding="utf-8")
    path = tmp_path / "new.db"
    gate = WriteGate(path)
    assert gate.acquire(0)
    with pytest.raises(Unavailable):
        migrate(path, folder, busy_timeout=0.05)
    assert not path.exists()
    gate.release()
    assert migrate(path, folder, busy_timeout=30) == ["0001_n"]
    assert gate.acquire(0), "the migration has released it"


class FailingFlock:
    """`flock` that raises each of `errors` once, in calls for which `fails` is true."""

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
def test_a_failed_wait_for_the_lock_fails_the_threads_in_line_and_none_after_them(
    path: Path, monkeypatch, error
) -> None:
    gate, leave, failing = WriteGate(path), Signal(), FailingFlock(waits, error)
    child = held_by_a_child(path, until=leave)
    monkeypatch.setattr(write_gate, "flock", failing)
    with pytest.raises(OSError, match="gate"):
        gate.acquire(30)
    assert failing.failed
    got: list[bool] = []
    next_writer = threading.Thread(target=lambda: got.append(gate.acquire(30)))
    next_writer.start()
    asleep(next_writer)
    leave.say()
    next_writer.join()
    assert got == [True]
    child.result()


def test_writing_goes_on_after_one_failed_wait_for_the_lock(make_database, written, monkeypatch) -> None:
    """The writer in line gets Unavailable; the open transaction commits."""
    one, other = (make_database(busy_timeout=30) for _ in range(2))
    with one.transaction() as tx:
        tx.run("INSERT INTO notes (text) VALUES ('a')")
        monkeypatch.setattr(write_gate, "flock", FailingFlock(waits, NO_LOCKS))
        with pytest.raises(Unavailable):
            other.check_writable()
    write_notes(other, "b", 1)
    at_once([lambda: write_notes(one, "c", 1)])
    assert written() == ["a", "b-0", "c-0"]


def test_writing_goes_on_after_one_failed_call_for_the_lock(make_database, notes_path, written, monkeypatch) -> None:
    database = make_database(busy_timeout=30)
    monkeypatch.setattr(write_gate, "flock", FailingFlock(lambda called: called == LOCK_EX | LOCK_NB, NO_LOCKS))
    with suppress(Unavailable):
        write_notes(database, "a", 1)
    write_notes(database, "b", 1)
    other = Forked(lambda: write_notes(GroupCommitDatabase(notes_path, busy_timeout=5), "c", 1))
    assert other.result() == ["c-0"]
    assert written() == ["b-0", "c-0"]


def test_writers_of_one_group_are_answered_although_the_file_cannot_be_unlocked(
    make_database, notes_path, written, monkeypatch
) -> None:
    """Closing the file unlocks it as well, so other processes can write."""
    database = make_database(busy_timeout=30)
    thread = threading.Thread(target=write_notes, args=(database, "b", 1))
    failing = FailingFlock(lambda called: called == LOCK_UN, NO_LOCKS)
    with database.transaction() as tx:
        tx.run("INSERT INTO notes (text) VALUES ('a')")
        thread.start()
        asleep(thread)
        monkeypatch.setattr(write_gate, "flock", failing)
    thread.join()
    assert failing.failed
    assert written() == ["a", "b-0"]
    assert Forked(lambda: write_notes(GroupCommitDatabase(notes_path), "c", 1)).result() == ["c-0"]


def test_a_thread_that_cannot_be_started_fails_one_writer_and_no_more(make_database, written, monkeypatch) -> None:
    one, other = (make_database(busy_timeout=30) for _ in range(2))

    def cannot(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with one.transaction() as tx:
        tx.run("INSERT INTO notes (text) VALUES ('a')")
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", cannot)
            with pytest.raises(Unavailable):
                other.check_writable()
    write_notes(other, "b", 1)
    assert written() == ["a", "b-0"]
