"""The relays of two hosts on one database: at least once, and in the order of commits for each aggregate."""

from collections import defaultdict

from backend.settings import Networks
from tests.at_once import at_once
from tests.waiting import wait_until
from tests.webhook_receiver import receiving

SECRET = f"whsec_{'test' * 8}"
WRITERS, CHANGES = 6, 15


def test_events_of_one_user_arrive_in_the_order_of_their_commits_whichever_hosts_wrote_and_deliver_them(make_api):
    with receiving() as (receiver, port):
        url, networks = f"http://127.0.0.1:{port}/", Networks("127.0.0.0/8")
        settings = {"webhook_urls": (url,), "webhook_secret": SECRET, "webhook_allow_networks": networks}
        hosts = [make_api(**settings) for _ in range(2)]
        people = [hosts[0].sign_up(f"User{n}") for n in range(3)]

        def change(writer):
            for n in range(CHANGES):
                answer = hosts[(writer + n) % 2].patch("/users/me", people[writer % 3], {"name": f"{writer} {n}"})
                assert answer.status_code == 200, answer.text

        at_once([lambda writer=writer: change(writer) for writer in range(WRITERS)])
        wait_until(lambda: sum(map(len, arrived(receiver).values())) == WRITERS * CHANGES, seconds=300)
        for host in hosts:
            host.app.close()
    with hosts[0].app.database.read() as tx:
        rows = tx.rows("SELECT resource_id, id FROM outbox WHERE name = 'user.updated' ORDER BY seq")
    committed = defaultdict(list)
    for user_id, event_id in rows:
        committed[user_id].append(event_id)
    assert arrived(receiver) == committed


def arrived(receiver):
    """The ids of the changes of each user, by first arrival."""
    ids = defaultdict(dict)
    for one in list(receiver.arrivals):
        if one.json["type"] == "user.updated":
            ids[one.json["data"]["resourceId"]][one.id] = None
    return {user_id: list(of) for user_id, of in ids.items()}
