"""Accounts and money: `/api/v1/accounts`, `/transfers`, `/transactions`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from backend.domain import Account, IdempotentRequest, IdempotentResult, Transaction
from backend.errors import (
    Conflict,
    CurrencyMismatch,
    IdempotencyKeyReused,
    InsufficientFunds,
    NotFound,
    ValidationFailed,
)
from backend.routes.currencies import CURRENCIES
from backend.services.ledger import Ledger
from backend.web.constraints import Choice, Money, Reference, Text
from backend.web.handler import responds
from backend.web.pagination import CursorQuery, Cursors, Page
from backend.web.request import Request

CurrencyCode = Annotated[str, Choice(CURRENCIES, "an active ISO 4217 code in capitals", "Currency", "EUR")]
Memo = Annotated[str | None, Text(0, 500, title="Memo", example="lunch")]


@dataclass(frozen=True)
class NewAccount:
    currency: CurrencyCode


@dataclass(frozen=True)
class Movement:
    """A deposit or a withdrawal."""

    amount: Money
    memo: Memo = None


@dataclass(frozen=True)
class NewTransfer:
    example: ClassVar = {
        "fromAccountId": "0198c0de-0000-7000-8000-000000000001",
        "toAccountId": "0198c0de-0000-7000-8000-000000000002",
        "amount": 500,
        "memo": "lunch",
    }

    from_account_id: Reference
    to_account_id: Reference
    amount: Money
    memo: Memo = None

    @staticmethod
    def conflicts(values: Mapping[str, Any]) -> Mapping[str, str]:
        same = values.get("from_account_id") == values.get("to_account_id") is not None
        return {"toAccountId": "must differ from fromAccountId"} if same else {}


@dataclass(frozen=True)
class AccountQuery(CursorQuery):
    """`ownerId` is for admins."""

    owner_id: Reference | None = None


class AccountRoutes:
    def __init__(self, ledger: Ledger, cursors: Cursors) -> None:
        self._ledger = ledger
        self._cursors = cursors

    def find(self, request: Request, account_id: str) -> Account:
        return self._ledger.account(request.user, account_id)

    @responds(201, IdempotencyKeyReused, location="/api/v1/accounts")
    def create_account(
        self, request: Request, body: NewAccount, idempotent: IdempotentRequest
    ) -> IdempotentResult[Account]:
        """Open an account."""
        return self._ledger.open_account(request.user, body.currency, idempotent)

    @responds(200)
    def list_accounts(self, request: Request, query: AccountQuery) -> Page[Account]:
        """The caller's accounts; for admins all accounts, or those of one owner."""
        owner_id = owner_filter(request, query.owner_id, "ownerId")
        return self._cursors.page(request, query, lambda before, limit: self._ledger.accounts(owner_id, before, limit))

    @responds(200)
    def get_account(self, request: Request, resource: Account) -> Account:
        """One account."""
        return resource

    @responds(201, Conflict, IdempotencyKeyReused, location="/api/v1/transactions")
    def create_deposit(
        self, request: Request, resource: Account, body: Movement, idempotent: IdempotentRequest
    ) -> IdempotentResult[Transaction]:
        """Deposit money."""
        return self._ledger.deposit(request.user, resource.id, body.amount, body.memo, idempotent)

    @responds(201, IdempotencyKeyReused, InsufficientFunds, location="/api/v1/transactions")
    def create_withdrawal(
        self, request: Request, resource: Account, body: Movement, idempotent: IdempotentRequest
    ) -> IdempotentResult[Transaction]:
        """Withdraw money."""
        return self._ledger.withdraw(request.user, resource.id, body.amount, body.memo, idempotent)

    @responds(200)
    def list_account_transactions(self, request: Request, resource: Account, query: CursorQuery) -> Page[Transaction]:
        """An account's transactions, newest first."""
        return self._cursors.page(
            request, query, lambda before, limit: self._ledger.statement(resource.id, before, limit)
        )


class TransactionRoutes:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def find(self, request: Request, transaction_id: str) -> Transaction:
        return self._ledger.transaction(request.user, transaction_id)

    @responds(201, NotFound, IdempotencyKeyReused, InsufficientFunds, CurrencyMismatch, location="/api/v1/transactions")
    def create_transfer(
        self, request: Request, body: NewTransfer, idempotent: IdempotentRequest
    ) -> IdempotentResult[Transaction]:
        """Transfer money from the caller's account to another."""
        return self._ledger.transfer(
            request.user, body.from_account_id, body.to_account_id, body.amount, body.memo, idempotent
        )

    @responds(200)
    def get_transaction(self, request: Request, resource: Transaction) -> Transaction:
        """One transaction."""
        return resource


def owner_filter(request: Request, wanted: str | None, name: str) -> str | None:
    """The user id to list by: the caller's; for admins `wanted`, where None means all rows."""
    if request.user.is_admin:
        return wanted
    if wanted is not None:
        raise ValidationFailed({name: "unknown parameter"})
    return request.user.user.id
