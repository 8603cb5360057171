"""Products: the catalogue, read through the cache."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from backend.domain import Caller, Precondition, Product
from backend.errors import Conflict, NotFound, PreconditionFailed
from backend.infrastructure.cache import Cache
from backend.infrastructure.database import Database, Duplicate
from backend.infrastructure.ids import new_id
from backend.repositories import products
from backend.services.events import EventBus
from backend.services.rights import authorised


class Products:
    """Thread-safe."""

    def __init__(self, database: Database, cache: Cache, events: EventBus) -> None:
        self._database = database
        self._cache = cache
        self._events = events

    def get(self, product_id: str) -> Product:
        """Raises NotFound."""
        product = self._cache.get_or_load(
            ("product", product_id), lambda tx: products.by_id(tx, product_id), tags=(f"products:{product_id}",)
        )
        if product is None:
            raise NotFound
        return product

    def page(self, before: str | None, limit: int) -> Sequence[Product]:
        """Newest first. A change of any product invalidates all cached pages."""
        return (
            self._cache.get_or_load(
                ("products", before, limit), lambda tx: products.page(tx, before, limit), tags=("products",)
            )
            or ()
        )

    def create(self, caller: Caller, sku: str, name: str, unit_price: int, currency: str, stock: int) -> Product:
        """Raises Conflict if the SKU is taken."""
        with authorised(self._database, caller) as (tx, caller):
            product = Product(new_id(), sku, name, unit_price, currency, stock, 1, tx.now, tx.now)
            try:
                products.insert(tx, product)
            except Duplicate:
                raise Conflict("The SKU is taken.", details={"sku": "is taken"}) from None
            tx.after_commit(lambda: self._cache.invalidate("products"))
            self._events.publish(tx, "product.created", ("product", product.id), caller.user.id)
            return product

    def update(
        self, caller: Caller, product_id: str, changes: Mapping[str, Any], precondition: Precondition
    ) -> Product:
        """Change a product. Values that stay the same are no change. Raises NotFound, PreconditionFailed."""
        with authorised(self._database, caller) as (tx, caller):
            product = products.by_id(tx, product_id)
            if product is None:
                raise NotFound
            if not precondition(product.version):
                raise PreconditionFailed
            changed = replace(product, **changes)
            if changed == product:
                return product
            products.update(tx, changed)
            tx.after_commit(lambda: self._cache.invalidate(f"products:{product_id}", "products"))
            differing = sorted(name for name in changes if getattr(product, name) != getattr(changed, name))
            self._events.publish(tx, "product.updated", ("product", product_id), caller.user.id, {"changed": differing})
            return replace(changed, version=product.version + 1, updated_at=tx.now)
