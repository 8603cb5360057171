"""If one statement of a request fails, the request has no effect: no row changes, and no listener is called."""

import pytest

from backend.infrastructure.ids import new_id
from backend.services.events import EventBus

REQUESTS = {
    "account": ("accounts", "outbox", "deliveries", "idempotency_keys"),
    "deposit": ("accounts", "transactions", "entries", "outbox", "deliveries", "idempotency_keys"),
    "transfer": ("accounts", "transactions", "entries", "outbox", "deliveries", "idempotency_keys"),
    "order": (
        "orders", "order_items", "products", "cache_invalidations", "accounts", "transactions", "entries", "outbox",
        "deliveries", "idempotency_keys",
    ),
    "cancel": ("orders", "products", "accounts", "transactions", "entries", "outbox", "deliveries", "idempotency_keys"),
    "fulfil": ("orders", "outbox", "deliveries", "idempotency_keys"),
    "new product": ("products", "cache_invalidations", "outbox", "deliveries"),
    "product": ("products", "cache_invalidations", "outbox", "deliveries"),
}  # fmt: skip


@pytest.fixture
def send(api, ada, grace, admin):
    """Send one of the requests, by its name."""
    purse, other = api.account(ada, balance=1000, admin=admin), api.account(grace)
    tea, cup = api.product(admin, "TEA", price=100, stock=5), api.product(admin, "CUP", price=50, stock=5)
    order = {"accountId": purse, "items": [{"productId": tea, "quantity": 2}, {"productId": cup, "quantity": 1}]}
    placed = api.post("/orders", ada, order).json["data"]["id"]
    new = {"sku": "POT", "name": "Pot", "unitPrice": 1, "currency": "EUR", "stock": 1}
    requests = {
        "account": lambda: api.post("/accounts", ada, {"currency": "EUR"}, key="k"),
        "deposit": lambda: api.post(f"/accounts/{purse}/deposits", admin, {"amount": 5}, key="k"),
        "transfer": lambda: api.post(
            "/transfers", ada, {"fromAccountId": purse, "toAccountId": other, "amount": 5}, key="k"
        ),
        "order": lambda: api.post("/orders", ada, order, key="k"),
        "cancel": lambda: api.post(f"/orders/{placed}/cancel", ada, key="k"),
        "fulfil": lambda: api.post(f"/orders/{placed}/fulfil", admin, key="k"),
        "new product": lambda: api.post("/products", admin, new),
        "product": lambda: api.patch(f"/products/{tea}", admin, {"stock": 9}),
    }
    api.app.relay.stop()  # it would write deliveries meanwhile
    return lambda name: requests[name]()


@pytest.fixture
def everything(outsider):
    """All rows of all tables."""

    def everything():
        return {table: sorted(outsider.rows(f"SELECT * FROM {table}"), key=str) for table in outsider.tables()}

    return everything


@pytest.mark.parametrize(("request_name", "table"), [(name, table) for name in REQUESTS for table in REQUESTS[name]])
def test_a_request_that_cannot_write_one_of_its_rows_writes_none(send, everything, outsider, request_name, table):
    """The answer is 500 and every table is as before; once the obstacle is gone, the same request succeeds."""
    before = everything()
    if table not in before:
        pytest.skip("this engine has no such table")
    with outsider.refusing(table):
        answer = send(request_name)
        assert (answer.status_code, answer.json["error"]["code"]) == (500, "INTERNAL_ERROR")
        assert "on purpose" not in answer.text
        assert everything() == before
    answer = send(request_name)
    assert answer.status_code in (200, 201)
    assert "Idempotency-Replayed" not in answer.headers
    assert everything() != before


def test_no_listener_is_called_for_what_was_rolled_back(app):
    """A listener is called after the commit, and never for a transaction that failed."""
    events, heard = EventBus(), []

    def listen(event):
        with app.database.snapshot() as tx:
            heard.append((event.name, tx.row("SELECT count(*) FROM outbox WHERE id = :id", id=event.id)))

    def publish(name):
        with app.database.transaction() as tx:
            events.publish(tx, name, ("thing", new_id()), None)
            assert heard == []
            if name == "failed":
                raise RuntimeError("on purpose")

    events.listen(listen)
    with pytest.raises(RuntimeError, match="on purpose"):
        publish("failed")
    publish("done")
    assert heard == [("done", (1,))]
    with app.database.snapshot() as tx:
        assert tx.rows("SELECT name FROM outbox") == [("done",)]
