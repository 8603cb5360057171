"""The outbox over two real workers that are killed: each event of an answered write arrives, in order."""

import os
import random
import signal
from contextlib import suppress
from typing import Any

from tests.production.real_service import LOST, Caller, service
from tests.waiting import wait_until
from tests.webhook_receiver import Arrival, receiving

SEED = 20_261_123
RENAMINGS, KILL_EVERY = 60, 15


def test_every_event_of_an_answered_write_arrives_although_workers_are_killed(api, ada, database_path, tmp_path):
    """At least once. Without repeats, a user's events come in the order of their writes, and never two at once."""
    choose = random.Random(SEED)
    api.app.close()  # only the server delivers
    with receiving() as (receiver, port):
        environment = {
            "WEBHOOK_URLS": f"http://127.0.0.1:{port}/hook",
            "WEBHOOK_SECRET": f"whsec_{'test' * 8}",
            "WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
        }
        with service(tmp_path / "log", database_path, **environment) as server:
            answered = 0
            for number in range(RENAMINGS):
                if number % KILL_EVERY == KILL_EVERY - 1:
                    wait_until(lambda: bool(server.workers()))
                    with suppress(ProcessLookupError):  # it was dead already
                        os.kill(choose.choice(server.workers()), signal.SIGKILL)
                answered += renamed(server, ada, f"Ada {number}")
            assert answered >= RENAMINGS // 2
            wait_until(lambda: len(ids_of(receiver.arrivals, ada)) >= answered)
    assert receiver.most_at_once == 1
    first_times = ids_of(receiver.arrivals, ada)
    assert first_times == sorted(first_times)  # ids rise with the order of writes


def renamed(server: Any, person: Any, name: str) -> bool:
    """True if the change was answered; a killed worker answers nothing."""
    try:
        with Caller(server.address) as caller:
            return caller.call("PATCH", "/users/me", person, {"name": name}).status == 200
    except LOST:
        return False


def ids_of(arrivals: list[Arrival], person: Any) -> list[str]:
    """The ids of this user's renaming events, by first arrival."""
    theirs = [one for one in list(arrivals) if one.json["data"]["resourceId"] == person.id]
    return list(dict.fromkeys(one.id for one in theirs if one.json["type"] == "user.updated"))
