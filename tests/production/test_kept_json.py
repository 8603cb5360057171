"""Kept JSON texts equal the core's, and none of them holds a token."""

import gc
import weakref
from dataclasses import replace

import pytest

from backend.domain import Order, OrderItem, Product, Timestamp, TokenPair, User, UserWithOrders
from backend.infrastructure.json_encoder import to_json
from backend.production.kept_json import kept_json
from backend.web.response import envelope

NOW = Timestamp(1_700_000_000_123)
TEA = Product("p1", "TEA", 'Tea "\u2028 \\ \x7f é 🍵', 250, "EUR", 7, 1, NOW, NOW)
ADA = User("u1", "ada@example.com", "Ada", ("user", "admin"), True, 3, NOW, NOW)
ORDER = Order("o1", "u1", "a1", "placed", "EUR", 500, (OrderItem("p1", "TEA", "Tea", 2, 250),), NOW, NOW)
ADA_WITH_ORDERS = UserWithOrders("u1", "ada@example.com", "Ada", ("user",), True, 3, NOW, NOW, (ORDER,))


@pytest.mark.parametrize(
    "data",
    [TEA, ADA, ORDER, ADA_WITH_ORDERS, [TEA, replace(TEA, id="p2")], (TEA,), (ADA, ADA), [ADA_WITH_ORDERS], [ORDER],
     [], (), {"id": "replayed"}, TokenPair("a", "r", "Bearer", 900)],
)  # fmt: skip
def test_the_text_is_the_cores_the_first_time_and_again(data):
    page = envelope("data", data, "an-id-of-a-request", pagination={"limit": 20, "nextCursor": None})
    assert [kept_json(page), kept_json(page)] == [to_json(page)] * 2


def test_a_changed_resource_has_another_text():
    """A resource that differs in any field has its own text, even with the same `version`."""
    before, after = (kept_json(envelope("data", product, "id")) for product in (TEA, replace(TEA, stock=6)))
    assert ('"stock":7' in before, '"stock":6' in after) == (True, True)


class Secret(str):
    """A string to which a weak reference is possible."""


@pytest.mark.parametrize("wrap", [lambda pair: pair, lambda pair: [pair]], ids=["one", "list"])
def test_no_token_is_held_after_it_was_encoded(wrap):
    token = Secret("a.secret.token")
    held = weakref.ref(token)
    assert "a.secret.token" in kept_json(envelope("data", wrap(TokenPair(token, "another", "Bearer", 900)), "id"))
    del token
    gc.collect()
    assert held() is None
