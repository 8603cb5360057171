"""Products: `/api/v1/products`."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from backend.domain import MAX_STOCK, Product
from backend.errors import Conflict, PreconditionFailed
from backend.routes.accounts import CurrencyCode
from backend.routes.users import given
from backend.services.products import Products
from backend.web.constraints import Integer, Money, Name
from backend.web.handler import responds
from backend.web.pagination import CursorQuery, Cursors, Page
from backend.web.request import Request

Stock = Annotated[int, Integer(0, MAX_STOCK)]


@dataclass(frozen=True)
class NewProduct:
    sku: Name
    name: Name
    unit_price: Money
    currency: CurrencyCode
    stock: Stock


@dataclass(frozen=True)
class ProductChanges:
    example: ClassVar = {"stock": 12}

    name: Name | None = None
    unit_price: Money | None = None
    stock: Stock | None = None


class ProductRoutes:
    def __init__(self, products: Products, cursors: Cursors) -> None:
        self._products = products
        self._cursors = cursors

    def find(self, request: Request, product_id: str) -> Product:
        return self._products.get(product_id)

    @responds(200, public=True)
    def list_products(self, request: Request, query: CursorQuery) -> Page[Product]:
        """The catalogue, newest first."""
        return self._cursors.page(request, query, self._products.page)

    @responds(200, etag=True, public=True)
    def get_product(self, request: Request, resource: Product) -> Product:
        """One product."""
        return resource

    @responds(201, Conflict, location="/api/v1/products")
    def create_product(self, request: Request, body: NewProduct) -> Product:
        """Add a product to the catalogue."""
        return self._products.create(request.user, body.sku, body.name, body.unit_price, body.currency, body.stock)

    @responds(200, PreconditionFailed, etag=True)
    def update_product(self, request: Request, resource: Product, body: ProductChanges) -> Product:
        """Change name, price or stock."""
        return self._products.update(request.user, resource.id, given(body), request.precondition())
