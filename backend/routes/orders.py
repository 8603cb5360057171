"""Orders: `/api/v1/orders`."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from backend.domain import IdempotentRequest, IdempotentResult, Order
from backend.errors import Conflict, CurrencyMismatch, IdempotencyKeyReused, InsufficientFunds, NotFound, OutOfStock
from backend.routes.accounts import owner_filter
from backend.services.orders import Orders
from backend.web.constraints import Choice, Integer, Money, Reference
from backend.web.handler import responds
from backend.web.pagination import CursorQuery, Cursors, Page
from backend.web.request import Request
from backend.web.schemas import list_of

SOME_ID = "0198c0de-0000-7000-8000-000000000000"


@dataclass(frozen=True)
class Item:
    product_id: Reference
    quantity: Annotated[int, Integer(1, 1000)]


@dataclass(frozen=True)
class NewOrder:
    example: ClassVar = {"accountId": SOME_ID, "items": [{"productId": SOME_ID, "quantity": 2}]}

    account_id: Reference
    items: Annotated[tuple[Item, ...], list_of(Item, 1, 50, unique="productId")]
    max_total: Money | None = None


@dataclass(frozen=True)
class OrderQuery(CursorQuery):
    """`userId` is for admins."""

    status: Annotated[str, Choice(("placed", "cancelled", "fulfilled"))] | None = None
    user_id: Reference | None = None


class OrderRoutes:
    def __init__(self, orders: Orders, cursors: Cursors) -> None:
        self._orders = orders
        self._cursors = cursors

    def find(self, request: Request, order_id: str) -> Order:
        return self._orders.get(request.user, order_id)

    @responds(
        201,
        NotFound,
        Conflict,
        OutOfStock,
        IdempotencyKeyReused,
        InsufficientFunds,
        CurrencyMismatch,
        location="/api/v1/orders",
    )
    def create_order(self, request: Request, body: NewOrder, idempotent: IdempotentRequest) -> IdempotentResult[Order]:
        """Place and pay an order; refused if its total exceeds `maxTotal`."""
        wanted = {item.product_id: item.quantity for item in body.items}
        return self._orders.place(request.user, body.account_id, wanted, body.max_total, idempotent)

    @responds(200)
    def list_orders(self, request: Request, query: OrderQuery) -> Page[Order]:
        """The caller's orders, newest first; for admins all orders, or those of one user."""
        user_id = owner_filter(request, query.user_id, "userId")
        return self._cursors.page(
            request,
            query,
            lambda before, limit: self._orders.page(user_id=user_id, status=query.status, before=before, limit=limit),
        )

    @responds(200)
    def get_order(self, request: Request, resource: Order) -> Order:
        """One order."""
        return resource

    @responds(200, Conflict, IdempotencyKeyReused, InsufficientFunds)
    def cancel_order(self, request: Request, resource: Order, idempotent: IdempotentRequest) -> IdempotentResult[Order]:
        """Cancel a placed order: refund and restock."""
        return self._orders.cancel(request.user, resource.id, idempotent)

    @responds(200, Conflict, IdempotencyKeyReused)
    def fulfil_order(self, request: Request, resource: Order, idempotent: IdempotentRequest) -> IdempotentResult[Order]:
        """Mark a placed order as fulfilled."""
        return self._orders.fulfil(request.user, resource.id, idempotent)
