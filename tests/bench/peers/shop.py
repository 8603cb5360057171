"""What both peers share: models, engine and transfer, in SQLAlchemy 2 as its documentation teaches.

As careful as ours where that costs time (WAL, `synchronous=FULL`, foreign keys, a busy time-out of 5 s; the write lock,
or on PostgreSQL the rows' locks, taken before anything is read that the write depends on), and without what ours does
besides: no rate limits, no idempotency keys, no events, no log.
"""

from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import uuid4

from sqlalchemy import BigInteger, Engine, ForeignKey, Index, create_engine, event, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload


class Base(DeclarativeBase):
    type_annotation_map: ClassVar = {int: BigInteger}  # amounts are 64 bits


def new_id() -> str:
    return str(uuid4())


def now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


class User(Base):
    __tablename__ = "users"
    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    email: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    roles: Mapped[str] = mapped_column(default="user")
    active: Mapped[bool] = mapped_column(default=True)
    version: Mapped[int] = mapped_column(default=1)
    token_version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)


class Product(Base):
    __tablename__ = "products"
    __table_args__ = (Index("products_newest", "created_at", "id"),)
    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    sku: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    unit_price: Mapped[int]
    currency: Mapped[str]
    stock: Mapped[int]
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)


class Account(Base):
    __tablename__ = "accounts"
    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    owner_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    currency: Mapped[str]
    balance: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(default=now)


class Transaction(Base):
    __tablename__ = "transactions"
    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    type: Mapped[str]
    from_account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    to_account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    amount: Mapped[int]
    currency: Mapped[str]
    memo: Mapped[str | None]
    order_id: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=now)


class Entry(Base):
    __tablename__ = "entries"
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    transaction_id: Mapped[str] = mapped_column(ForeignKey("transactions.id"), primary_key=True)
    amount: Mapped[int]


class Order(Base):
    __tablename__ = "orders"
    __table_args__ = (Index("orders_of_user", "user_id", "created_at", "id"),)
    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    status: Mapped[str]
    currency: Mapped[str]
    total: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)
    items: Mapped[list["OrderItem"]] = relationship(order_by="OrderItem.position")


class OrderItem(Base):
    __tablename__ = "order_items"
    order_id: Mapped[str] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    product_id: Mapped[str] = mapped_column(ForeignKey("products.id"))
    sku: Mapped[str]
    name: Mapped[str]
    quantity: Mapped[int]
    unit_price: Mapped[int]


class Refused(Exception):
    """A rule forbids the transfer; the message says which."""


def engine_of(database: str, threads: int) -> Engine:
    """One a process, with a connection for each thread that may want one: none has to wait for another's.

    `database` is its URL.
    """
    if not database.startswith("sqlite"):
        return create_engine(database, pool_size=threads)
    engine = create_engine(database, pool_size=threads, connect_args={"timeout": 5})

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: object) -> None:
        connection.isolation_level = None  # sqlite3 begins no transaction by itself; `begin` below does
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))

    return engine


def product_page(session: Session, limit: int) -> list[Product]:
    return list(session.scalars(select(Product).order_by(Product.created_at.desc(), Product.id.desc()).limit(limit)))


def orders_of(session: Session, user_id: str, limit: int) -> list[Order]:
    newest = (
        select(Order).where(Order.user_id == user_id).order_by(Order.created_at.desc(), Order.id.desc()).limit(limit)
    )
    return list(session.scalars(newest.options(selectinload(Order.items))))


def transfer(
    session: Session, user_id: str, source_id: str, target_id: str, amount: int, memo: str | None
) -> Transaction:
    """Move money and commit. Raises Refused."""
    session.commit()  # ends what the user was read in: a read that becomes a write cannot wait for the lock
    session.connection(execution_options={"begin": "BEGIN IMMEDIATE"})
    found = {
        account.id: account
        for account in session.scalars(
            select(Account).where(Account.id.in_([source_id, target_id])).order_by(Account.id).with_for_update()
        )
    }
    source, target = found.get(source_id), found.get(target_id)
    if source is None or target is None or source.owner_id != user_id:
        raise Refused("no such account")
    if source.currency != target.currency or source.balance < amount:
        raise Refused("another currency, or not enough money")
    source.balance -= amount
    target.balance += amount
    moved = Transaction(
        id=new_id(), type="transfer", from_account_id=source.id, to_account_id=target.id, amount=amount,
        currency=source.currency, memo=memo,
    )  # fmt: skip
    session.add(moved)
    session.flush()  # the entries refer to it
    session.add_all([
        Entry(account_id=source.id, transaction_id=moved.id, amount=-amount),
        Entry(account_id=target.id, transaction_id=moved.id, amount=amount),
    ])  # fmt: skip
    session.commit()
    return moved
