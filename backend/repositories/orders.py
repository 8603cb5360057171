"""The tables `orders` and `order_items`. Items are read for all orders of a list at once: there is no N+1.

The items of an order never change, so orders and their items may be read in two statements without a snapshot.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from backend.domain import Order, OrderItem
from backend.infrastructure.database import Row, Tx

COLUMNS = "id, user_id, account_id, status, currency, total, created_at, updated_at"
NEWEST = 10  # orders of each user in a list of users


def insert(tx: Tx, order: Order) -> None:
    tx.write(
        f"""INSERT INTO orders ({COLUMNS}) VALUES
            (:id, :user_id, :account_id, :status, :currency, :total, :created_at, :updated_at)""",
        id=order.id, user_id=order.user_id, account_id=order.account_id, status=order.status,
        currency=order.currency, total=order.total, created_at=order.created_at, updated_at=order.updated_at,
    )  # fmt: skip
    for position, item in enumerate(order.items):
        tx.write(
            """INSERT INTO order_items (order_id, position, product_id, sku, name, quantity, unit_price)
               VALUES (:order_id, :position, :product_id, :sku, :name, :quantity, :unit_price)""",
            order_id=order.id, position=position, product_id=item.product_id, sku=item.sku, name=item.name,
            quantity=item.quantity, unit_price=item.unit_price,
        )  # fmt: skip


def set_status(tx: Tx, order: Order) -> None:
    tx.write(
        "UPDATE orders SET status = :status, updated_at = :now WHERE id = :id",
        id=order.id, status=order.status, now=tx.now,
    )  # fmt: skip


def by_id(tx: Tx, order_id: str) -> Order | None:
    rows = tx.rows(f"SELECT {COLUMNS} FROM orders WHERE id = :id{tx.for_update}", id=order_id)
    return next(iter(_with_items(tx, rows)), None)


def page(tx: Tx, *, user_id: str | None, status: str | None, before: str | None, limit: int) -> Sequence[Order]:
    """Newest first. Only those older than `before`, if given. Two statements for any number of orders."""
    wanted = {"user_id = :user_id": user_id, "status = :status": status, "id < :before": before}
    where = " AND ".join(["1 = 1", *(clause for clause, value in wanted.items() if value is not None)])
    rows = tx.rows(
        f"SELECT {COLUMNS} FROM orders WHERE {where} ORDER BY id DESC LIMIT :limit",
        user_id=user_id, status=status, before=before, limit=limit,
    )  # fmt: skip
    return _with_items(tx, rows)


def of_users(tx: Tx, user_ids: Sequence[str]) -> dict[str, tuple[Order, ...]]:
    """Each user's NEWEST orders with their items, newest first. Two statements for any number of users and orders."""
    rows = tx.rows_for(
        f"""SELECT {COLUMNS} FROM (SELECT id AS buyer FROM users WHERE id IN (:ids)) AS buyers JOIN orders ON id IN
            (SELECT id FROM orders WHERE user_id = buyer ORDER BY id DESC LIMIT {NEWEST})""",
        user_ids,
    )
    orders: dict[str, list[Order]] = defaultdict(list)
    for order in _with_items(tx, sorted(rows, reverse=True)):  # by id, so by time
        orders[order.user_id].append(order)
    return {user_id: tuple(orders[user_id]) for user_id in user_ids}


def items_of(tx: Tx, order_ids: Sequence[str]) -> Mapping[str, Sequence[OrderItem]]:
    """The items of each order, in the order of the request."""
    items: dict[str, list[OrderItem]] = defaultdict(list)
    for order_id, *item in tx.rows_for(
        """SELECT order_id, product_id, sku, name, quantity, unit_price FROM order_items
           WHERE order_id IN (:ids) ORDER BY order_id, position""",
        order_ids,
    ):
        items[order_id].append(OrderItem(*item))
    return items


def _with_items(tx: Tx, rows: Sequence[Row]) -> list[Order]:
    items = items_of(tx, [row[0] for row in rows])
    return [
        Order(order_id, user_id, account_id, status, currency, total, tuple(items[order_id]), created_at, updated_at)
        for order_id, user_id, account_id, status, currency, total, created_at, updated_at in rows
    ]
