"""The tables `transactions` and `entries`: the double-sided ledger."""

from collections.abc import Sequence

from backend.domain import Transaction
from backend.infrastructure.transaction import Tx
from backend.repositories import accounts

COLUMNS = "id, type, from_account_id, to_account_id, amount, currency, memo, order_id, created_at"


def insert(tx: Tx, movement: Transaction) -> None:
    """Write the movement, its two entries, and both balances. Rules are the service's; CHECKs are the last defence."""
    tx.run(
        f"""INSERT INTO transactions ({COLUMNS}) VALUES
            (:id, :type, :source, :target, :amount, :currency, :memo, :order_id, :created_at)""",
        id=movement.id, type=movement.type, source=movement.from_account_id, target=movement.to_account_id,
        amount=movement.amount, currency=movement.currency, memo=movement.memo, order_id=movement.order_id,
        created_at=movement.created_at,
    )  # fmt: skip
    tx.run(
        """INSERT INTO entries (account_id, transaction_id, amount)
           VALUES (:source, :id, -:amount), (:target, :id, :amount)""",
        id=movement.id, source=movement.from_account_id, target=movement.to_account_id, amount=movement.amount,
    )  # fmt: skip
    accounts.add_to_balance(tx, movement.from_account_id, -movement.amount)
    accounts.add_to_balance(tx, movement.to_account_id, movement.amount)


def by_id(tx: Tx, transaction_id: str) -> Transaction | None:
    row = tx.row(f"SELECT {COLUMNS} FROM transactions WHERE id = :id", id=transaction_id)
    return Transaction(*row) if row else None


def page_of_account(tx: Tx, account_id: str, before: str | None, limit: int) -> Sequence[Transaction]:
    """The account's movements, newest first, from `before` on: one range of a key, however long the ledger."""
    older = "AND transaction_id < :before" if before else ""
    rows = tx.rows(
        f"""SELECT {COLUMNS} FROM transactions JOIN
            (SELECT transaction_id FROM entries WHERE account_id = :account_id {older}
             ORDER BY transaction_id DESC LIMIT :limit) AS page ON page.transaction_id = id ORDER BY id DESC""",
        account_id=account_id, before=before, limit=limit,
    )  # fmt: skip
    return [Transaction(*row) for row in rows]


def unbalanced(tx: Tx) -> list[str]:
    """What is wrong with the ledger, as lines; none if every currency adds up to 0 and every balance to its entries."""
    sums = tx.rows("SELECT currency, sum(balance) FROM accounts GROUP BY currency HAVING sum(balance) <> 0")
    drifted = tx.rows(
        """SELECT id, balance FROM accounts WHERE balance <>
           (SELECT coalesce(sum(amount), 0) FROM entries WHERE account_id = accounts.id)"""
    )
    return [f"{currency} adds up to {total}" for currency, total in sums] + [
        f"account {account_id} shows {balance}, not the sum of its entries" for account_id, balance in drifted
    ]
