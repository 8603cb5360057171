"""Fixtures of the tests of delivery."""

import pytest

from backend.delivery import mailer, relay, webhooks
from tests.delivery.relaying import Process


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """A thread that is slow to end, and a server that is slow to answer, are waited for."""
    monkeypatch.setattr(relay, "STOP_SECONDS", 60)
    monkeypatch.setattr(mailer, "TIMEOUT_SECONDS", 60)
    monkeypatch.setattr(webhooks, "TIMEOUT_SECONDS", 60)


@pytest.fixture
def process(database_path, clock, no_wait_for_the_disk):
    """`process(inbox, …)`: another process on the test's database, as far as a relay can tell."""
    made = []

    def make(*inboxes, **more):
        made.append(Process(database_path, clock, *inboxes, **more))
        return made[-1]

    yield make
    for each in made:
        each.relay.stop()
        each.database.close()
