"""The table `accounts`. A balance changes only together with the entries that add up to it (`transactions.insert`)."""

from collections.abc import Sequence

from backend.domain import Account, InternalAccountKind
from backend.infrastructure.database import Tx
from backend.infrastructure.ids import new_id

COLUMNS = "id, owner_id, currency, balance, created_at"


def insert(tx: Tx, account: Account) -> None:
    """Write an account of a user."""
    tx.write(
        f"INSERT INTO accounts (kind, {COLUMNS}) VALUES ('user', :id, :owner_id, :currency, :balance, :created_at)",
        id=account.id, owner_id=account.owner_id, currency=account.currency, balance=account.balance,
        created_at=account.created_at,
    )  # fmt: skip


def internal_account(tx: Tx, currency: str, kind: InternalAccountKind) -> Account:
    """The currency's system or shop account, created on first use."""
    # `kind <> 'user'` tells SQLite that it may use the partial index.
    sql = f"SELECT {COLUMNS} FROM accounts WHERE currency = :currency AND kind = :kind AND kind <> 'user'"
    row = tx.row(sql, currency=currency, kind=kind)
    if row is None:  # and another transaction may be creating it
        tx.write(
            """INSERT INTO accounts (kind, id, currency, balance, created_at) VALUES (:kind, :id, :currency, 0, :now)
               ON CONFLICT (currency, kind) WHERE kind <> 'user' DO NOTHING""",
            kind=kind, id=new_id(), currency=currency, now=tx.now,
        )  # fmt: skip
        (row,) = tx.rows(sql, currency=currency, kind=kind)
    return Account(*row)


def add_to_balance(tx: Tx, account_id: str, amount: int) -> None:
    tx.write("UPDATE accounts SET balance = balance + :amount WHERE id = :id", id=account_id, amount=amount)


def by_ids(tx: Tx, ids: Sequence[str]) -> dict[str, Account]:
    rows = tx.rows_for(f"SELECT {COLUMNS} FROM accounts WHERE id IN (:ids) ORDER BY id{tx.for_update}", ids)
    return {row[0]: Account(*row) for row in rows}


def by_id(tx: Tx, account_id: str) -> Account | None:
    return by_ids(tx, [account_id]).get(account_id)


def page(tx: Tx, owner_id: str | None, before: str | None, limit: int) -> Sequence[Account]:
    """Newest first. Only those older than `before`, if given. `owner_id` None: all accounts, also internal ones."""
    where = "owner_id = :owner_id" if owner_id else "1 = 1"
    older = "AND id < :before" if before else ""
    rows = tx.rows(
        f"SELECT {COLUMNS} FROM accounts WHERE {where} {older} ORDER BY id DESC LIMIT :limit",
        owner_id=owner_id, before=before, limit=limit,
    )  # fmt: skip
    return [Account(*row) for row in rows]
