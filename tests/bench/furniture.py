"""What every contender's database holds before the load begins: the same users, products, accounts and orders."""

import itertools
from collections.abc import Callable
from typing import Any, TypeAlias

USERS, PRODUCTS = 200, 50
CALLERS = 16  # users that send requests; each has orders and an account that never runs empty
ORDERS, ITEMS = 40, 3  # of each caller, of each order
PLENTY = 10**12

Row: TypeAlias = dict[str, Any]
Tables: TypeAlias = dict[str, list[Row]]


def furniture(new_id: Callable[[], str]) -> Tables:
    """The rows of all tables; referenced tables come first."""
    users = [{"id": new_id(), "email": f"user{n}@example.com", "name": f"User {n}"} for n in range(USERS)]
    products = [
        {"id": new_id(), "sku": f"SKU-{n}", "name": f"Product {n}", "unit_price": 100 + n, "currency": "EUR",
         "stock": 1000, "version": 1} for n in range(PRODUCTS)
    ]  # fmt: skip
    accounts = [
        {"id": new_id(), "owner_id": user["id"], "currency": "EUR", "balance": PLENTY} for user in users[:CALLERS]
    ]
    orders = [
        {"id": new_id(), "user_id": account["owner_id"], "account_id": account["id"], "status": "placed",
         "currency": "EUR", "total": 600} for _ in range(ORDERS) for account in accounts
    ]  # fmt: skip
    wanted = itertools.cycle(products)
    items = [
        {"order_id": order["id"], "position": position, "product_id": product["id"], "sku": product["sku"],
         "name": product["name"], "quantity": 2, "unit_price": 100}
        for order in orders for position, product in enumerate(itertools.islice(wanted, ITEMS))
    ]  # fmt: skip
    return {"users": users, "products": products, "accounts": accounts, "orders": orders, "order_items": items}
