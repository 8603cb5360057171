"""Fixtures of the tests of delivery."""

import pytest

from tests.delivery.relaying import Process


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
