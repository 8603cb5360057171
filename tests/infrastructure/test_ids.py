"""Ids: UUIDv7 (RFC 9562), which sort in the order of their creation."""

import sys
import time
import uuid

import pytest

from backend.infrastructure import ids
from backend.infrastructure.ids import is_id, new_id
from tests.at_once import at_once
from tests.forked import Forked

MOMENT = 1_645_557_742_000_000_000  # of the RFC's example, A.6: 2022-02-22 19:22:22 UTC
GOOD = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"  # the example itself


@pytest.fixture
def fresh(monkeypatch):
    """The state of a process that has made no id yet; the former state returns afterwards."""
    monkeypatch.setattr(ids, "_last", 0)


@pytest.fixture
def switching():
    """Threads that switch as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def parts(text):
    """Milliseconds, version, the 12 bits below them, variant, and the random bits."""
    value = uuid.UUID(text).int
    return value >> 80, value >> 76 & 0xF, value >> 64 & 0xFFF, value >> 62 & 3, value & (1 << 62) - 1


def test_an_id_is_a_canonical_uuid_of_version_7():
    text = new_id()
    assert is_id(text) and str(uuid.UUID(text)) == text
    assert (uuid.UUID(text).version, uuid.UUID(text).variant) == (7, uuid.RFC_4122)


def test_the_first_48_bits_are_the_milliseconds(fresh):
    """The RFC's example; version and variant are in the RFC's places."""
    text = new_id(lambda: MOMENT)
    assert text.startswith("017f22e2-79b0-7")
    assert parts(text)[:4] == (MOMENT // 10**6, 7, 0, 2)


@pytest.mark.parametrize(
    ("nanoseconds", "fraction"),
    [(0, 0), (244, 0), (245, 1), (500_000, 2048), (999_755, 4094), (999_756, 4095), (999_999, 4095)],
)
def test_the_next_12_bits_are_the_fraction_of_the_millisecond(fresh, nanoseconds, fraction):
    """RFC 9562, method 3: 4096 steps of a quarter of a microsecond."""
    milliseconds, _, bits, _, _ = parts(new_id(lambda: MOMENT + nanoseconds))
    assert (milliseconds, bits) == (MOMENT // 10**6, fraction)


def test_the_clock_is_the_wall_clock():
    before = time.time_ns() // 10**6
    made = parts(new_id())[0]
    assert before <= made <= time.time_ns() // 10**6 + 1


def test_ids_of_one_moment_rise(fresh):
    """More than 4096 of them: the counter carries over into the milliseconds."""
    made = [new_id(lambda: MOMENT) for _ in range(10_000)]
    assert made == sorted(set(made))
    assert parts(made[-1])[0] == MOMENT // 10**6 + 2


def test_ids_rise_when_the_clock_goes_back(fresh):
    """By an hour. Once the clock has caught up, ids have its time again."""
    times = [MOMENT, MOMENT - 3600 * 10**9, MOMENT - 1, MOMENT, MOMENT + 1, MOMENT + 10**9]
    made = [new_id(lambda now=now: now) for now in times]
    assert made == sorted(set(made))
    assert parts(made[-1])[:3] == (MOMENT // 10**6 + 1000, 7, 0)


def test_the_random_bits_are_random():
    """62 of them: in 500 ids each bit has both values, and no two ids are equal."""
    seen = [parts(new_id())[4] for _ in range(500)]
    assert len(set(seen)) == 500
    ones = zeros = 0
    for value in seen:
        ones, zeros = ones | value, zeros | ~value
    assert ones == zeros & (1 << 62) - 1 == (1 << 62) - 1


@pytest.mark.parametrize("clock", [time.time_ns, lambda: MOMENT])
def test_ids_of_several_threads_differ_and_rise_in_each(fresh, switching, clock):
    """8 threads with 10,000 ids each, while the clock stands: not even the time parts of two ids are equal."""
    made = at_once([lambda: [new_id(clock) for _ in range(10_000)]] * 8)
    assert all(mine == sorted(mine) for mine in made)
    assert len({one[:18] for mine in made for one in mine}) == 80_000


def test_ids_of_several_processes_differ(fresh):
    """Forks share the last id of their parent and here even the clock, but not the random bits."""
    children = [Forked(lambda: [new_id(lambda: MOMENT) for _ in range(500)]) for _ in range(4)]
    assert len({one for child in children for one in child.result()}) == 2000


@pytest.mark.parametrize(
    "text",
    [
        "", "not-an-id", GOOD.upper(), f"017F{GOOD[4:]}", GOOD.replace("-", ""), f"{{{GOOD}}}", f"{GOOD}\n",
        f" {GOOD}", f"{GOOD}0", GOOD[:-1], f"{GOOD[:-1]}g", f"urn:uuid:{GOOD}", f"٠{GOOD[1:]}",
        GOOD.replace("-", "_"), f"{GOOD}\0",
    ],
)  # fmt: skip
def test_only_the_canonical_form_is_an_id(text):
    """Lowercase hexadecimal digits and four hyphens, without a newline at the end."""
    assert is_id(GOOD) and not is_id(text)
