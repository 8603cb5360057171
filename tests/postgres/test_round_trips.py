"""What a request costs where each statement may be a journey to another host: round trips to the server."""

import pytest

from tests.conftest import PASSWORD
from tests.postgres.round_trips import counted

# Transfer and order have an Idempotency-Key; the order has three items.
MOST = {"user": 1, "product page": 1, "order list": 3, "transfer": 6, "order": 7, "refresh": 4, "login": 4}


@pytest.fixture
def trips_of(settings, make_api, never_idle):
    """An application, and how many round trips a call takes, once it has run three times."""
    with counted(settings.postgres_url) as (url, trips):
        api = make_api(postgres_url=url)
        api.app.relay.stop()

        def count(call):
            for _ in range(3):
                call()
            before = trips.count
            call()
            return trips.count - before

        yield api, count


def test_a_request_takes_few_round_trips(trips_of):
    api, trips = trips_of
    admin, ada, bob = api.admin(), api.sign_up("Ada"), api.sign_up("Bob")
    source, target = api.account(ada, balance=1000, admin=admin), api.account(bob)
    items = [{"productId": api.product(admin, f"SKU-{n}", price=1), "quantity": 1} for n in range(3)]
    tokens = [ada.refresh]

    def refresh():
        answer = api.post("/auth/refresh", json={"refreshToken": tokens[-1]})
        tokens.append(answer.json["data"]["refreshToken"])

    keys = iter("abcdefgh")
    made = {
        "user": lambda: api.get(f"/users/{ada.id}", ada),
        "product page": lambda: api.get("/products"),
        "order": lambda: api.post("/orders", ada, {"accountId": source, "items": items}, key=next(keys)),
        "order list": lambda: api.get("/orders", ada),
        "transfer": lambda: api.post(
            "/transfers", ada, {"fromAccountId": source, "toAccountId": target, "amount": 1}, key=next(keys) + "t"
        ),
        "refresh": refresh,
        "login": lambda: api.post("/auth/login", json={"email": ada.email, "password": PASSWORD}),
    }
    found = {name: trips(call) for name, call in made.items()}
    assert found == MOST
