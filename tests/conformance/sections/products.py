"""Products: the catalogue, its cache headers, and reads after writes."""

from typing import Any

from tests.conformance.checks import check, check_each, expect, expect_data, expect_error, expect_header
from tests.conformance.client import Client, times

FIELDS = {"id", "sku", "name", "unitPrice", "currency", "stock", "version", "createdAt", "updatedAt"}


@check
def a_product_is_made(api: Client) -> None:
    """POST `/products` answers 201 with a Product, which every caller can read."""
    product = api.product(price=125, stock=3)
    expect("its fields", FIELDS, set(product))
    expect("price, stock, version", (125, 3, 1), (product["unitPrice"], product["stock"], product["version"]))
    expect("the product", product, expect_data(api.get(f"/products/{product['id']}")))


@check
def a_sku_is_taken_once(api: Client) -> None:
    """A SKU that is taken is 409 `details.sku`."""
    product = api.product()
    body = {name: product[name] for name in ("sku", "name", "unitPrice", "currency", "stock")}
    expect_error(api.post("/products", api.admin, body), 409, "CONFLICT", "sku")


@check
def a_product_is_revalidated(api: Client) -> None:
    """A product has an ETag and is `no-cache`; `If-None-Match` with it is 304."""
    path = f"/products/{api.product()['id']}"
    answer = api.get(path)
    expect_header(answer, "Cache-Control", "no-cache")
    again = api.get(path, headers={"If-None-Match": answer.etag})
    expect("status and body", (304, b""), (again.status, again.body))
    expect("with another tag", 200, api.get(path, headers={"If-None-Match": '"999999"'}).status)


@check
def a_change_shows_at_once(api: Client) -> None:
    """A read that begins after a write was answered never shows older data, one product or the list."""
    path = f"/products/{api.product()['id']}"
    for price in range(1, 11):
        expect_data(api.patch(path, api.admin, {"unitPrice": price}))
        expect("the price", price, expect_data(api.get(path))["unitPrice"])


@check
def a_list_shows_a_change_at_once(api: Client) -> None:
    """A new product is the first of the next list, and a changed one is changed in it."""
    product = api.product()
    for stock in range(1, 6):
        expect_data(api.patch(f"/products/{product['id']}", api.admin, {"stock": stock}))
        newest = expect_data(api.get("/products?limit=1"))[0]
        expect("the newest product and its stock", (product["id"], stock), (newest["id"], newest["stock"]))


@check
def every_change_raises_the_version(api: Client) -> None:
    """Every change of a product raises its `version`, stock included."""
    product = api.product(stock=5)
    path = f"/products/{product['id']}"
    changes: list[dict[str, Any]] = [{"stock": 6}, {"name": "Green tea"}, {"unitPrice": 300}]
    versions = [expect_data(api.patch(path, api.admin, change))["version"] for change in changes]
    expect("the versions", [2, 3, 4], versions)


@check_each({"another version": '"999999"', "a weak tag": 'W/"1"'})
def a_precondition_that_fails(api: Client, tag: str) -> None:
    """PATCH with an `If-Match` of another version is 412."""
    answer = api.patch(f"/products/{api.product()['id']}", api.admin, {"stock": 1}, headers={"If-Match": tag})
    expect_error(answer, 412, "PRECONDITION_FAILED")


@check
def changes_of_one_version_at_once(api: Client) -> None:
    """Of ten changes of one version at the same moment, one is made."""
    path, stocks = f"/products/{api.product()['id']}", iter(range(100, 110))

    def change() -> int:
        return api.patch(path, api.admin, {"stock": next(stocks)}, headers={"If-Match": '"1"'}).status

    expect("PATCH with one If-Match, ten at once", [200] + [412] * 9, sorted(times(10, change)))
