"""The nouns of the application as frozen dataclasses. Imports no other module of the backend.

Clients see these nouns as JSON, with field names in camelCase. The OpenAPI schemas are made from them.
"""

import ipaddress
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, NewType, TypeVar

T = TypeVar("T")

Timestamp = NewType("Timestamp", int)  # milliseconds since 1970-01-01 UTC

Role = Literal["admin", "user"]
OrderStatus = Literal["placed", "cancelled", "fulfilled"]
TransactionType = Literal["deposit", "withdrawal", "transfer", "payment", "refund"]
InternalAccountKind = Literal["system", "shop"]

Precondition = Callable[[int], bool]  # whether a resource of this version may be changed

MAX_AMOUNT = 10**12  # of one transaction, in minor units
MAX_BALANCE = 2**63 - 1
MAX_STOCK = 10**9


def fold(text: str) -> str:
    """The case-folded text, NFC-normalised: equal for texts that differ only in case."""
    return unicodedata.normalize("NFC", text.casefold())


def network_of(address: str) -> str:
    """The unit that counts as one client: an IPv4 address, or the /64 of an IPv6 address (clients choose the rest)."""
    if ":" not in address:
        return address
    return str(ipaddress.ip_network((address, 64), strict=False))


@dataclass(frozen=True, slots=True)
class User:
    id: str
    email: str
    name: str
    roles: tuple[Role, ...]
    active: bool
    version: int
    created_at: Timestamp
    updated_at: Timestamp


@dataclass(frozen=True, slots=True)
class Caller:
    """The authenticated user of a request, and the session.

    `as_admin`: only the admin role admitted the request, so the caller must still have it when the request writes.
    """

    user: User
    session_id: str
    as_admin: bool = False

    @property
    def is_admin(self) -> bool:
        return "admin" in self.user.roles


@dataclass(frozen=True, slots=True)
class Session:
    """One login. `current` marks the session of the request.

    `last_used_at` is truncated to the hour, so it may precede `created_at`. The current session's is the current hour.
    """

    id: str
    created_at: Timestamp
    last_used_at: Timestamp
    user_agent: str
    ip: str
    current: bool


@dataclass(frozen=True, slots=True)
class TokenPair:
    access_token: str
    refresh_token: str
    token_type: Literal["Bearer"]
    expires_in: int


@dataclass(frozen=True, slots=True)
class Product:
    id: str
    sku: str
    name: str
    unit_price: int
    currency: str
    stock: int
    version: int
    created_at: Timestamp
    updated_at: Timestamp


@dataclass(frozen=True, slots=True)
class Account:
    """`owner_id` is None for the system account and the shop account of a currency."""

    id: str
    owner_id: str | None
    currency: str
    balance: int
    created_at: Timestamp


@dataclass(frozen=True, slots=True)
class Transaction:
    """Money moved between two accounts. A deposit comes from the system account, a withdrawal goes to it."""

    id: str
    type: TransactionType
    from_account_id: str
    to_account_id: str
    amount: int
    currency: str
    memo: str | None
    order_id: str | None
    created_at: Timestamp


@dataclass(frozen=True, slots=True)
class OrderItem:
    product_id: str
    sku: str
    name: str
    quantity: int
    unit_price: int


@dataclass(frozen=True, slots=True)
class Order:
    id: str
    user_id: str
    account_id: str
    status: OrderStatus
    currency: str
    total: int
    items: tuple[OrderItem, ...]
    created_at: Timestamp
    updated_at: Timestamp


@dataclass(frozen=True, slots=True)
class UserWithOrders(User):
    """A user with the newest orders, for `include=orders`."""

    orders: tuple[Order, ...]


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """A request that a client may repeat. `key` is None if it sent no Idempotency-Key."""

    key: str | None
    fingerprint: bytes  # of method, path and body


@dataclass(frozen=True, slots=True)
class IdempotentResult(Generic[T]):
    """The result of the first attempt: a T, or if `replayed`, the parsed JSON that was stored with the key."""

    resource: T | dict[str, Any]
    replayed: bool


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, for subscribers. `payload` is plain data without secrets."""

    id: str
    name: str  # such as "order.placed"
    resource_type: str
    resource_id: str
    user_id: str | None  # the actor
    request_id: str
    payload: Mapping[str, object]
    created_at: Timestamp


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One event in the audit log."""

    id: str
    user_id: str | None
    action: str
    resource_type: str
    resource_id: str
    request_id: str
    created_at: Timestamp
