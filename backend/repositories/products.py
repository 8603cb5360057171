"""The table `products`."""

from collections.abc import Sequence

from backend.domain import Product
from backend.infrastructure.database import Tx

COLUMNS = "id, sku, name, unit_price, currency, stock, version, created_at, updated_at"


def insert(tx: Tx, product: Product) -> None:
    """Raises Duplicate if the SKU is taken."""
    tx.run(
        f"""INSERT INTO products ({COLUMNS}) VALUES
            (:id, :sku, :name, :unit_price, :currency, :stock, :version, :created_at, :updated_at)""",
        id=product.id, sku=product.sku, name=product.name, unit_price=product.unit_price, currency=product.currency,
        stock=product.stock, version=product.version, created_at=product.created_at, updated_at=product.updated_at,
    )  # fmt: skip


def update(tx: Tx, product: Product) -> None:
    tx.write(
        """UPDATE products SET name = :name, unit_price = :unit_price, stock = :stock, version = version + 1,
           updated_at = :now WHERE id = :id""",
        id=product.id, name=product.name, unit_price=product.unit_price, stock=product.stock, now=tx.now,
    )  # fmt: skip


def add_stock(tx: Tx, product_id: str, quantity: int) -> None:
    """`quantity` may be negative. The caller has checked that the stock stays within its bounds."""
    tx.write(
        "UPDATE products SET stock = stock + :quantity, version = version + 1, updated_at = :now WHERE id = :id",
        id=product_id, quantity=quantity, now=tx.now,
    )  # fmt: skip


def by_ids(tx: Tx, ids: Sequence[str]) -> dict[str, Product]:
    rows = tx.rows_for(f"SELECT {COLUMNS} FROM products WHERE id IN (:ids) ORDER BY id{tx.for_update}", ids)
    return {row[0]: Product(*row) for row in rows}


def by_id(tx: Tx, product_id: str) -> Product | None:
    return by_ids(tx, [product_id]).get(product_id)


def page(tx: Tx, before: str | None, limit: int) -> tuple[Product, ...]:
    """Newest first. Only those older than `before`, if given."""
    older = "WHERE id < :before" if before else ""
    rows = tx.rows(f"SELECT {COLUMNS} FROM products {older} ORDER BY id DESC LIMIT :limit", before=before, limit=limit)
    return tuple(Product(*row) for row in rows)
