"""`/readyz`: whether the service can do its work, and the failing checks if it cannot."""

import shutil
import time
from collections import namedtuple

import pytest

from backend.infrastructure.shutdown import shutting_down
from tests.at_once import at_once

Usage = namedtuple("Usage", "total used free")


def failing(api):
    """The failing checks with their messages, from an answer that keeps the contract."""
    answer = api.get("//readyz")
    if answer.status_code == 200:
        assert answer.json["data"] == {"status": "ok"}
        return {}
    assert (answer.status_code, answer.json["error"]["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert int(answer.headers["Retry-After"]) >= 1
    return answer.json["error"]["details"]


def test_a_service_that_can_work_is_ready(api):
    assert failing(api) == {}


def test_a_database_that_another_program_has_locked_is_not_writable(make_api, outsider, clock):
    api = make_api(busy_timeout_seconds=1)
    with outsider.locked():
        assert failing(api).keys() == {"database"}
    clock.advance(1)
    assert failing(api) == {}


def test_a_database_that_is_gone_is_named(make_api, outsider):
    assert {"schema", "database"} <= failing(make_api(**outsider.nowhere())).keys()


@pytest.mark.parametrize(
    "change", ["DELETE FROM schema_migrations WHERE version = 1", "INSERT INTO schema_migrations VALUES (9999, 'x', 0)"]
)
def test_a_schema_of_another_version_is_named(api, database_path, outsider, change):
    """Older or newer. Only the log has the path of the database."""
    with outsider.changed(change):
        details = failing(api)
    assert details.keys() == {"schema"}
    assert str(database_path.parent) not in str(details)


def test_a_disk_that_is_nearly_full_is_named(api, monkeypatch):
    """Before it is full and commits fail."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2**40, 2**40 - 2**20, 2**20))
    assert failing(api) == {"diskSpace": "1 MB are free, 32 needed."}


def test_events_that_are_not_delivered_are_named(api, ada, standing_clock):
    """After a minute; here the relay is stopped."""
    api.app.relay.stop()
    api.post("/accounts", ada, {"currency": "EUR"})
    standing_clock.advance(55)
    assert failing(api) == {}
    standing_clock.advance(6)
    assert failing(api).keys() == {"outboxLag"}


def test_a_process_that_is_stopping_says_so(api):
    """At once, without waiting for the next check."""
    assert failing(api) == {}
    shutting_down.set()
    try:
        assert failing(api).keys() == {"shutdown"}
    finally:
        shutting_down.clear()
    assert failing(api) == {}


def test_a_probe_does_not_wait_for_the_write_lock_as_long_as_a_writer_may(make_api, outsider, clock):
    """It answers while another program holds the lock, and that program can go on to write."""
    api = make_api(busy_timeout_seconds=3600)
    with outsider.locked():
        began = time.monotonic()
        assert failing(api).keys() == {"database"}
        assert time.monotonic() - began < 600
        outsider.rows("UPDATE users SET name = name")
    clock.advance(1)
    assert failing(api) == {}


def test_the_result_of_a_check_is_used_for_a_second(api, standing_clock, monkeypatch):
    """No longer, and not if the clock is set back."""
    full, empty = Usage(2**40, 2**40, 0), Usage(2**40, 0, 2**40)

    def after(seconds, usage):
        standing_clock.advance(seconds)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        return set(failing(api))

    assert after(0, empty) == set()
    assert after(0.5, full) == set()
    assert after(0.5, full) == {"diskSpace"}
    assert after(0.5, empty) == {"diskSpace"}
    assert after(-3600, empty) == set()


def test_many_requests_write_to_the_database_once_a_second(api, app, standing_clock, monkeypatch):
    """Twenty at once, twice, share one check; a second later there is another one."""
    checks, checked = [], app.database.check_writable

    def counted(**options):
        checks.append(options)
        return checked(**options)

    monkeypatch.setattr(app.database, "check_writable", counted)
    for number in (1, 2):
        for _ in range(2):
            assert at_once([lambda: failing(api)] * 20) == [{}] * 20
        assert len(checks) == number
        standing_clock.advance(1)


def test_requests_that_arrive_during_a_check_share_its_result(make_api, standing_clock, outsider, monkeypatch):
    """While the database is locked a check takes long. They wait for that one instead of starting their own."""
    api, disk_usage, checks = make_api(busy_timeout_seconds=3600), shutil.disk_usage, []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: checks.append(path) or disk_usage(path))
    with outsider.locked():
        assert [answer.keys() for answer in at_once([lambda: failing(api)] * 10)] == [{"database"}] * 10
    assert len(checks) == 1
