"""The nouns: what the application talks about, as frozen dataclasses. Imports nothing of ours.

The public ones are what clients get to see: the web room presents their fields in camelCase, and the OpenAPI schemas
are made from them.
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
AccountKind = Literal["user", "system", "shop"]

Precondition = Callable[[int], bool]  # whether a change may be made to a resource of this version

MAX_AMOUNT = 10**12  # of one movement of money, in minor units
MAX_BALANCE = 2**63 - 1
MAX_STOCK = 10**9


def fold(text: str) -> str:
    """Texts that differ only in case fold to the same."""
    return unicodedata.normalize("NFC", text.casefold())


def network_of(address: str) -> str:
    """What counts as one client: an IPv4 address, or the /64 of an IPv6 one, in which a client can choose any."""
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
    """The user of a live session who makes a request. The only noun that the web room knows.

    `as_admin`: only the admin role admitted the request, so the role must still be there when it writes.
    """

    user: User
    session_id: str
    as_admin: bool = False

    @property
    def is_admin(self) -> bool:
        return "admin" in self.user.roles


@dataclass(frozen=True, slots=True)
class Session:
    """One login. `current` marks the one that asks.

    `last_used_at` is cut to the hour, so it may lie before `created_at`. For the current one it is the present hour.
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
    """`owner_id` is None for a currency's system and shop account."""

    id: str
    owner_id: str | None
    currency: str
    balance: int
    created_at: Timestamp


@dataclass(frozen=True, slots=True)
class Transaction:
    """One movement of money between two accounts; a deposit comes from the system account, a withdrawal goes there."""

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
    """A user as `include=orders` shows him."""

    orders: tuple[Order, ...]


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """A request that may be sent twice. `key` is None if the client sent no Idempotency-Key."""

    key: str | None
    fingerprint: bytes  # of method, path and body


@dataclass(frozen=True, slots=True)
class IdempotentResult(Generic[T]):
    """The resource (a T) that the first attempt made; if `replayed`, parsed from the JSON stored with the key."""

    resource: T | dict[str, Any]
    replayed: bool


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, for those who want to know. `payload` is plain data without secrets."""

    id: str
    name: str  # such as "order.placed"
    resource_type: str
    resource_id: str
    user_id: str | None  # who did it
    request_id: str
    payload: Mapping[str, object]
    created_at: Timestamp


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One event as the audit log keeps it."""

    id: str
    user_id: str | None
    action: str
    resource_type: str
    resource_id: str
    request_id: str
    created_at: Timestamp
