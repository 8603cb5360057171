"""`/readyz` over the service's own connections."""

import threading

from backend.operations.in_time import LATE, InTime
from tests.waiting import wait_until


def test_a_second_look_opens_no_connection(make_api, clock, opened):
    api = make_api()
    api.app.relay.stop()
    wait_until(lambda: api.get("//readyz").status_code == 200)
    opened.clear()
    clock.advance(2)  # so that the first result is too old
    wait_until(lambda: api.get("//readyz").status_code == 200)
    assert opened == []


def test_a_probe_is_answered_although_a_check_hangs():
    """It then names the database. The next probe waits for the same run."""
    runs, over = [], threading.Event()
    checks = InTime(lambda: runs.append(1) or (over.wait(60) and {"outboxLag": "late"}))
    assert [checks(), checks(), len(runs)] == [LATE, LATE, 1]
    over.set()
    wait_until(lambda: checks() == {"outboxLag": "late"})
