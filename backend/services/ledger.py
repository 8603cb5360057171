"""The ledger: accounts, and money moving between them.

Money enters and leaves through the currency's system account. Only that account may go below zero, and the balances of
a currency always add up to 0. Rules are checked on balances that are read under the write lock, so no other write can
come between check and effect.
"""

from collections.abc import Sequence

from backend.domain import (
    MAX_BALANCE,
    Account,
    Caller,
    IdempotentRequest,
    IdempotentResult,
    Transaction,
    TransactionType,
)
from backend.errors import Conflict, CurrencyMismatch, InsufficientFunds, NotFound, ValidationFailed
from backend.infrastructure.database import Database, Tx
from backend.infrastructure.ids import new_id
from backend.repositories import accounts, transactions, users
from backend.services.events import EventBus
from backend.services.idempotency import once
from backend.services.rights import authorised


class Ledger:
    """Thread-safe."""

    def __init__(self, database: Database, events: EventBus) -> None:
        self._database = database
        self._events = events

    def open_account(self, caller: Caller, currency: str, idempotent: IdempotentRequest) -> IdempotentResult[Account]:
        with authorised(self._database, caller) as (tx, caller):

            def opened() -> Account:
                account = Account(new_id(), caller.user.id, currency, 0, tx.now)
                accounts.insert(tx, account)
                self._events.publish(tx, "account.created", ("account", account.id), caller.user.id)
                return account

            return once(tx, caller.user.id, idempotent, opened)

    def account(self, caller: Caller, account_id: str) -> Account:
        """An account of the caller; for an admin, any account. Raises NotFound."""
        with self._database.read() as tx:
            account = accounts.by_id(tx, account_id)
        if account is None or not (caller.is_admin or account.owner_id == caller.user.id):
            raise NotFound
        return account

    def accounts(self, owner_id: str | None, before: str | None, limit: int) -> Sequence[Account]:
        """The owner's accounts, newest first. None: those of all users, and the internal ones."""
        with self._database.read() as tx:
            return accounts.page(tx, owner_id, before, limit)

    def deposit(
        self, caller: Caller, account_id: str, amount: int, memo: str | None, idempotent: IdempotentRequest
    ) -> IdempotentResult[Transaction]:
        """Raises NotFound, ValidationFailed for the system account, and Conflict if the owner is deactivated."""
        with authorised(self._database, caller) as (tx, caller):
            account, system = _with_system_account(tx, account_id)

            def deposited() -> Transaction:
                if account.owner_id is not None and not _has_active_owner(tx, account):
                    raise Conflict("The owner of the account is deactivated.")
                return self.move(tx, caller, "deposit", system, account, amount, memo)

            return once(tx, caller.user.id, idempotent, deposited)

    def withdraw(
        self, caller: Caller, account_id: str, amount: int, memo: str | None, idempotent: IdempotentRequest
    ) -> IdempotentResult[Transaction]:
        """Raises NotFound, ValidationFailed for the system account, InsufficientFunds."""
        with authorised(self._database, caller) as (tx, caller):
            account, system = _with_system_account(tx, account_id)

            def withdrawn() -> Transaction:
                return self.move(tx, caller, "withdrawal", account, system, amount, memo)

            return once(tx, caller.user.id, idempotent, withdrawn)

    def transfer(
        self, caller: Caller, from_id: str, to_id: str, amount: int, memo: str | None, idempotent: IdempotentRequest
    ) -> IdempotentResult[Transaction]:
        """Move money from an account of the caller to an account of an active user.

        Raises NotFound, CurrencyMismatch, InsufficientFunds.
        """
        with authorised(self._database, caller) as (tx, caller):
            found = accounts.by_ids(tx, [from_id, to_id])
            source = require_owner(found.get(from_id), caller)

            def transferred() -> Transaction:
                target = found.get(to_id)
                if target is None or not _has_active_owner(tx, target):
                    raise NotFound("There is no such account to transfer to.")
                return self.move(tx, caller, "transfer", source, target, amount, memo)

            return once(tx, caller.user.id, idempotent, transferred)

    def transaction(self, caller: Caller, transaction_id: str) -> Transaction:
        """A transaction of an account of the caller; for an admin, any transaction. Raises NotFound."""
        with self._database.snapshot() as tx:
            found = transactions.by_id(tx, transaction_id)
            sides = accounts.by_ids(tx, [found.from_account_id, found.to_account_id]) if found else {}
        owners = {account.owner_id for account in sides.values()}
        if found is None or not (caller.is_admin or caller.user.id in owners):
            raise NotFound
        return found

    def statement(self, account_id: str, before: str | None, limit: int) -> Sequence[Transaction]:
        """The account's transactions, newest first."""
        with self._database.read() as tx:
            return transactions.page_of_account(tx, account_id, before, limit)

    def move(
        self, tx: Tx, caller: Caller, type: TransactionType, source: Account, target: Account, amount: int,
        memo: str | None = None, order_id: str | None = None,
    ) -> Transaction:  # fmt: skip
        """Move money in `tx`, in which `source` and `target` were read. Only a deposit's source may go below zero.

        Raises CurrencyMismatch, InsufficientFunds, and ValidationFailed if a balance would leave 64 bits.
        """
        if source.currency != target.currency:
            raise CurrencyMismatch
        if type != "deposit" and source.balance < amount:
            raise InsufficientFunds
        if target.balance + amount > MAX_BALANCE or source.balance - amount < -MAX_BALANCE:
            raise ValidationFailed({"amount": "would take a balance beyond 64 bits"})
        moved = Transaction(new_id(), type, source.id, target.id, amount, source.currency, memo, order_id, tx.now)
        transactions.insert(tx, moved)
        self._events.publish(tx, f"{type}.completed", ("transaction", moved.id), caller.user.id, {"amount": amount})
        return moved


def require_owner(account: Account | None, caller: Caller) -> Account:
    """The account, if the caller owns it; the admin role does not help. Raises NotFound."""
    if account is None or account.owner_id != caller.user.id:
        raise NotFound("You have no such account.")
    return account


def _has_active_owner(tx: Tx, account: Account) -> bool:
    """Whether an active user owns the account. False for internal accounts."""
    return account.owner_id is not None and users.is_active(tx, account.owner_id)


def _with_system_account(tx: Tx, account_id: str) -> tuple[Account, Account]:
    """The account and its currency's system account. Raises NotFound, and ValidationFailed if they are the same."""
    account = accounts.by_id(tx, account_id)
    if account is None:
        raise NotFound
    system = accounts.internal_account(tx, account.currency, "system")
    if system.id == account.id:
        raise ValidationFailed({"id": "the system account is the other side of every deposit and withdrawal"})
    return account, system
