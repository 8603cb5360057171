"""Orders: one transaction takes the stock, the payment and the order; another one undoes it on cancellation."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from backend.domain import (
    MAX_AMOUNT,
    MAX_STOCK,
    Account,
    Caller,
    IdempotentRequest,
    IdempotentResult,
    Order,
    OrderItem,
    OrderStatus,
    Product,
)
from backend.errors import Conflict, CurrencyMismatch, NotFound, OutOfStock, ValidationFailed
from backend.infrastructure.cache import Cache
from backend.infrastructure.database import Database, Tx
from backend.infrastructure.ids import new_id
from backend.repositories import accounts, orders, products
from backend.services.events import EventBus
from backend.services.idempotency import once
from backend.services.ledger import Ledger, require_owner
from backend.services.rights import authorised

Wanted = Mapping[str, int]  # product id → quantity, in the order of the request
Lines = Sequence[tuple[Product, int]]  # products with their quantities


class Orders:
    """Thread-safe."""

    def __init__(self, database: Database, cache: Cache, ledger: Ledger, events: EventBus) -> None:
        self._database = database
        self._cache = cache
        self._ledger = ledger
        self._events = events

    def place(
        self, caller: Caller, account_id: str, wanted: Wanted, max_total: int | None, idempotent: IdempotentRequest
    ) -> IdempotentResult[Order]:
        """Order at the products' present prices, and pay at most `max_total` from an account of the caller.

        Raises NotFound, ValidationFailed, CurrencyMismatch, Conflict, OutOfStock, InsufficientFunds.
        """
        with authorised(self._database, caller) as (tx, caller):
            account = require_owner(accounts.by_id(tx, account_id), caller)
            return once(tx, caller.user.id, idempotent, lambda: self._place(tx, caller, account, wanted, max_total))

    def get(self, caller: Caller, order_id: str) -> Order:
        """An order of the caller; for an admin, any order. Raises NotFound."""
        with self._database.read() as tx:
            return _visible(orders.by_id(tx, order_id), caller)

    def page(self, *, user_id: str | None, status: str | None, before: str | None, limit: int) -> Sequence[Order]:
        """Newest first. `user_id` None: of all users."""
        with self._database.read() as tx:
            return orders.page(tx, user_id=user_id, status=status, before=before, limit=limit)

    def cancel(self, caller: Caller, order_id: str, idempotent: IdempotentRequest) -> IdempotentResult[Order]:
        """Refund and restock.

        Raises NotFound; Conflict unless the order is placed and the stock stays within MAX_STOCK; InsufficientFunds if
        the shop account holds too little.
        """
        with authorised(self._database, caller) as (tx, caller):
            order = _visible(orders.by_id(tx, order_id), caller)
            return once(tx, caller.user.id, idempotent, lambda: self._cancel(tx, caller, order))

    def fulfil(self, caller: Caller, order_id: str, idempotent: IdempotentRequest) -> IdempotentResult[Order]:
        """Raises NotFound, and Conflict unless the order is placed."""
        with authorised(self._database, caller) as (tx, caller):
            order = _visible(orders.by_id(tx, order_id), caller)
            return once(tx, caller.user.id, idempotent, lambda: self._settle(tx, caller, order, "fulfilled"))

    def _place(self, tx: Tx, caller: Caller, account: Account, wanted: Wanted, max_total: int | None) -> Order:
        lines = _lines(products.by_ids(tx, list(wanted)), wanted, account.currency)
        items = tuple(
            OrderItem(product.id, product.sku, product.name, quantity, product.unit_price)
            for product, quantity in lines
        )
        total = sum(item.quantity * item.unit_price for item in items)
        _check_total(total, max_total)
        _check_stock(lines)
        order = Order(new_id(), caller.user.id, account.id, "placed", account.currency, total, items, tx.now, tx.now)
        orders.insert(tx, order)
        self._change_stock(tx, {item.product_id: -item.quantity for item in items})
        shop = accounts.internal_account(tx, account.currency, "shop")
        self._ledger.move(tx, caller, "payment", account, shop, total, order_id=order.id)
        self._events.publish(tx, "order.placed", ("order", order.id), caller.user.id, {"total": total})
        return order

    def _cancel(self, tx: Tx, caller: Caller, order: Order) -> Order:
        cancelled = self._settle(tx, caller, order, "cancelled")
        account = accounts.by_ids(tx, [order.account_id])[order.account_id]  # before the products, as in `_place`
        found = products.by_ids(tx, [item.product_id for item in order.items])
        _check_room([(found[item.product_id], item.quantity) for item in order.items])
        self._change_stock(tx, {item.product_id: item.quantity for item in order.items})
        shop = accounts.internal_account(tx, order.currency, "shop")
        self._ledger.move(tx, caller, "refund", shop, account, order.total, order_id=order.id)
        return cancelled

    def _change_stock(self, tx: Tx, changes: Mapping[str, int]) -> None:
        for product_id, quantity in changes.items():
            products.add_stock(tx, product_id, quantity)
        tags = [f"products:{product_id}" for product_id in changes]
        tx.after_commit(lambda: self._cache.invalidate(*tags, "products"))

    def _settle(self, tx: Tx, caller: Caller, order: Order, status: OrderStatus) -> Order:
        if order.status != "placed":
            raise Conflict(f"The order is {order.status}.")
        settled = replace(order, status=status, updated_at=tx.now)
        orders.set_status(tx, settled)
        self._events.publish(tx, f"order.{status}", ("order", order.id), caller.user.id)
        return settled


def _visible(order: Order | None, caller: Caller) -> Order:
    """The order, if the caller may see it. Raises NotFound."""
    if order is None or not (caller.is_admin or order.user_id == caller.user.id):
        raise NotFound
    return order


def _lines(found: Mapping[str, Product], wanted: Wanted, currency: str) -> Lines:
    """The wanted products with their quantities. Raises ValidationFailed for absent ones, CurrencyMismatch."""
    absent = [n for n, product_id in enumerate(wanted) if product_id not in found]
    if absent:
        raise ValidationFailed({f"items[{n}].productId": "is not a product" for n in absent})
    if any(product.currency != currency for product in found.values()):
        raise CurrencyMismatch
    return [(found[product_id], quantity) for product_id, quantity in wanted.items()]


def _check_total(total: int, max_total: int | None) -> None:
    if total > MAX_AMOUNT:
        raise ValidationFailed({"items": f"must not cost more than {MAX_AMOUNT} in all"})
    if max_total is not None and total > max_total:
        raise Conflict("The order costs more than maxTotal.", details={"total": f"is {total}"})


def _check_stock(lines: Lines) -> None:
    short = {
        product.sku: f"{quantity} wanted, {product.stock} in stock"
        for product, quantity in lines
        if product.stock < quantity
    }
    if short:
        raise OutOfStock(details=short)


def _check_room(lines: Lines) -> None:
    over = {
        product.sku: f"{quantity} more than {product.stock} is over {MAX_STOCK}"
        for product, quantity in lines
        if product.stock + quantity > MAX_STOCK
    }
    if over:
        raise Conflict("The stock has no room for what was ordered.", details=over)
