"""The tables `transactions` and `entries`: the double-entry ledger."""

from collections.abc import Sequence

from backend.domain import Transaction
from backend.infrastructure.database import Tx
from backend.repositories import accounts

COLUMNS = "id, type, from_account_id, to_account_id, amount, currency, memo, order_id, created_at"


def insert(tx: Tx, transaction: Transaction) -> None:
    """Write the transaction and its two entries, and change both balances. The service has checked the rules."""
    tx.write(
        f"""INSERT INTO transactions ({COLUMNS}) VALUES
            (:id, :type, :source, :target, :amount, :currency, :memo, :order_id, :created_at)""",
        id=transaction.id, type=transaction.type, source=transaction.from_account_id, target=transaction.to_account_id,
        amount=transaction.amount, currency=transaction.currency, memo=transaction.memo, order_id=transaction.order_id,
        created_at=transaction.created_at,
    )  # fmt: skip
    tx.write(
        """INSERT INTO entries (account_id, transaction_id, amount)
           VALUES (:source, :id, -:amount), (:target, :id, :amount)""",
        id=transaction.id, amount=transaction.amount,
        source=transaction.from_account_id, target=transaction.to_account_id,
    )  # fmt: skip
    accounts.add_to_balance(tx, transaction.from_account_id, -transaction.amount)
    accounts.add_to_balance(tx, transaction.to_account_id, transaction.amount)


def by_id(tx: Tx, transaction_id: str) -> Transaction | None:
    row = tx.row(f"SELECT {COLUMNS} FROM transactions WHERE id = :id", id=transaction_id)
    return Transaction(*row) if row else None


def page_of_account(tx: Tx, account_id: str, before: str | None, limit: int) -> Sequence[Transaction]:
    """The account's transactions, newest first. Only those older than `before`, if given. One range of an index."""
    older = "AND transaction_id < :before" if before else ""
    rows = tx.rows(
        f"""SELECT {COLUMNS} FROM transactions JOIN
            (SELECT transaction_id FROM entries WHERE account_id = :account_id {older}
             ORDER BY transaction_id DESC LIMIT :limit) AS page ON page.transaction_id = id ORDER BY id DESC""",
        account_id=account_id, before=before, limit=limit,
    )  # fmt: skip
    return [Transaction(*row) for row in rows]


def unbalanced(tx: Tx) -> list[str]:
    """The errors of the ledger, as lines: currencies that do not add up to 0, balances that differ from their entries.

    Reads the whole ledger.
    """
    sums = tx.rows("SELECT currency, sum(balance) FROM accounts GROUP BY currency HAVING sum(balance) <> 0")
    drifted = tx.rows(
        """SELECT id, balance FROM accounts WHERE balance <>
           (SELECT coalesce(sum(amount), 0) FROM entries WHERE account_id = accounts.id)"""
    )
    return [f"{currency} adds up to {total}" for currency, total in sums] + [
        f"account {account_id} shows {balance}, not the sum of its entries" for account_id, balance in drifted
    ]
