"""Orders: stock, payment, order and event in one transaction, and back again when cancelled."""

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
from backend.infrastructure.database import Database
from backend.infrastructure.ids import new_id
from backend.infrastructure.transaction import Tx
from backend.repositories import accounts, orders, products
from backend.services.events import EventBus
from backend.services.idempotency import once
from backend.services.ledger import Ledger, require_owner
from backend.services.rights import authorised

Wanted = Mapping[str, int]  # product id → quantity, in the order in which they were asked for


class Orders:
    """Thread-safe."""

    def __init__(self, database: Database, ledger: Ledger, events: EventBus) -> None:
        self._database = database
        self._ledger = ledger
        self._events = events

    def place(
        self, caller: Caller, account_id: str, wanted: Wanted, max_total: int | None, idempotent: IdempotentRequest
    ) -> IdempotentResult[Order]:
        """Pay from the caller's own account at the products' present prices, at most `max_total` in all.

        Raises NotFound, ValidationFailed, CurrencyMismatch, Conflict, OutOfStock, InsufficientFunds; then nothing has
        changed.
        """
        with authorised(self._database, caller) as (tx, caller):
            account = require_owner(accounts.by_id(tx, account_id), caller)
            return once(tx, caller.user.id, idempotent, lambda: self._place(tx, caller, account, wanted, max_total))

    def get(self, caller: Caller, order_id: str) -> Order:
        """One's own, or as an admin anybody's. Raises NotFound."""
        with self._database.snapshot() as tx:
            return _visible(orders.by_id(tx, order_id), caller)

    def page(self, *, user_id: str | None, status: str | None, before: str | None, limit: int) -> Sequence[Order]:
        """Newest first; `user_id` None: everybody's."""
        with self._database.snapshot() as tx:
            return orders.page(tx, user_id=user_id, status=status, before=before, limit=limit)

    def cancel(self, caller: Caller, order_id: str, idempotent: IdempotentRequest) -> IdempotentResult[Order]:
        """Refund and restock.

        Raises NotFound, Conflict unless it is placed and the stock stays within MAX_STOCK, InsufficientFunds if the
        shop is broke; then nothing has changed.
        """
        with authorised(self._database, caller) as (tx, caller):
            order = _visible(orders.by_id(tx, order_id), caller)
            return once(tx, caller.user.id, idempotent, lambda: self._cancel(tx, caller, order))

    def fulfil(self, caller: Caller, order_id: str, idempotent: IdempotentRequest) -> IdempotentResult[Order]:
        """Raises NotFound, Conflict unless it is placed."""
        with authorised(self._database, caller) as (tx, caller):
            order = _visible(orders.by_id(tx, order_id), caller)
            return once(tx, caller.user.id, idempotent, lambda: self._settle(tx, caller, order, "fulfilled"))

    def _place(self, tx: Tx, caller: Caller, account: Account, wanted: Wanted, max_total: int | None) -> Order:
        found = products.by_ids(tx, list(wanted))
        _check_wanted(found, wanted, account.currency)
        items = tuple(
            OrderItem(product.id, product.sku, product.name, quantity, product.unit_price)
            for product, quantity in ((found[product_id], quantity) for product_id, quantity in wanted.items())
        )
        total = sum(item.quantity * item.unit_price for item in items)
        if total > MAX_AMOUNT:
            raise ValidationFailed({"items": f"must not cost more than {MAX_AMOUNT} in all"})
        if max_total is not None and total > max_total:
            raise Conflict("The order costs more than maxTotal.", details={"total": f"is {total}"})
        _check_stock(found, wanted)
        order = Order(new_id(), caller.user.id, account.id, "placed", account.currency, total, items, tx.now, tx.now)
        orders.insert(tx, order)
        for item in items:
            products.add_stock(tx, item.product_id, -item.quantity)
        shop = accounts.internal_account(tx, account.currency, "shop")
        self._ledger.move(tx, caller, "payment", account, shop, total, order_id=order.id)
        self._events.publish(tx, "order.placed", ("order", order.id), caller.user.id, {"total": total})
        return order

    def _cancel(self, tx: Tx, caller: Caller, order: Order) -> Order:
        cancelled = self._settle(tx, caller, order, "cancelled")
        _check_room(products.by_ids(tx, [item.product_id for item in order.items]), order)
        for item in order.items:
            products.add_stock(tx, item.product_id, item.quantity)
        shop = accounts.internal_account(tx, order.currency, "shop")
        account = accounts.by_ids(tx, [order.account_id])[order.account_id]
        self._ledger.move(tx, caller, "refund", shop, account, order.total, order_id=order.id)
        return cancelled

    def _settle(self, tx: Tx, caller: Caller, order: Order, status: OrderStatus) -> Order:
        if order.status != "placed":
            raise Conflict(f"The order is {order.status}.")
        settled = replace(order, status=status, updated_at=tx.now)
        orders.set_status(tx, settled)
        self._events.publish(tx, f"order.{status}", ("order", order.id), caller.user.id)
        return settled


def _visible(order: Order | None, caller: Caller) -> Order:
    if order is None or not (caller.is_admin or order.user_id == caller.user.id):
        raise NotFound
    return order


def _check_wanted(found: Mapping[str, Product], wanted: Wanted, currency: str) -> None:
    absent = [n for n, product_id in enumerate(wanted) if product_id not in found]
    if absent:
        raise ValidationFailed({f"items[{n}].productId": "is not a product" for n in absent})
    if any(product.currency != currency for product in found.values()):
        raise CurrencyMismatch


def _check_stock(found: Mapping[str, Product], wanted: Wanted) -> None:
    short = {
        found[product_id].sku: f"{quantity} wanted, {found[product_id].stock} in stock"
        for product_id, quantity in wanted.items()
        if found[product_id].stock < quantity
    }
    if short:
        raise OutOfStock(details=short)


def _check_room(found: Mapping[str, Product], order: Order) -> None:
    over = {
        found[item.product_id].sku: f"{item.quantity} more than {found[item.product_id].stock} is over {MAX_STOCK}"
        for item in order.items
        if found[item.product_id].stock + item.quantity > MAX_STOCK
    }
    if over:
        raise Conflict("The stock has no room for what was ordered.", details=over)
