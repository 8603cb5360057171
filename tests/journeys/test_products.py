"""Products over HTTP: the catalogue, its changes by admins, and its versions."""

import re

import pytest

from tests.answers import details

NEW = {"sku": "TEA-1", "name": "Green tea", "unitPrice": 1250, "currency": "EUR", "stock": 7}
ABSENT = "01890000-0000-7000-8000-00000000000a"


def shown(api, product):
    return api.get(f"/products/{product}").json["data"]


def test_an_admin_adds_a_product_and_anyone_sees_it(api, admin):
    """201 with Location.

    Every client gets the same product, with its version as an ETag and to be revalidated each time.
    """
    made = api.post("/products", admin, NEW)
    product = made.json["data"]
    assert made.status_code == 201, made.text
    assert made.headers["Location"] == f"/api/v1/products/{product['id']}"
    assert {**product, **NEW, "version": 1} == product
    assert set(product) == {*NEW, "id", "version", "createdAt", "updatedAt"}
    assert product["createdAt"] == product["updatedAt"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", product["createdAt"])
    seen = api.get(f"/products/{product['id']}")
    assert (seen.status_code, seen.json["data"]) == (200, product)
    assert (seen.headers["ETag"], seen.headers["Cache-Control"]) == ('"1"', "no-cache")


def test_the_present_version_is_not_sent_again(api, admin):
    """304 without a body, also for a weak tag; the full answer once the product has changed."""
    product = api.product(admin)
    for tag in ('"1"', 'W/"1"', '"7", "1"', "*"):
        same = api.get(f"/products/{product}", headers={"If-None-Match": tag})
        assert (same.status_code, same.data, same.headers["ETag"]) == (304, b"", '"1"')
    api.patch(f"/products/{product}", admin, {"name": "New"})
    assert api.get(f"/products/{product}", headers={"If-None-Match": '"1"'}).status_code == 200


def test_the_catalogue_is_newest_first_and_its_pages_neither_repeat_nor_skip(api, admin):
    """Also if a product is added and one is changed between two pages."""
    products = [api.product(admin, f"SKU-{n}") for n in range(5)]
    first = api.get("/products?limit=2")
    api.product(admin, "SKU-9")
    api.patch(f"/products/{products[1]}", admin, {"stock": 0})
    cursor = first.json["meta"]["pagination"]["nextCursor"]
    second = api.get(f"/products?limit=2&cursor={cursor}")
    third = api.get(re.match(r"</api/v1(.*)>; rel=\"next\"", second.headers["Link"])[1])
    assert third.json["meta"]["pagination"] == {"limit": 2, "nextCursor": None}
    assert "Link" not in third.headers
    listed = [product["id"] for page in (first, second, third) for product in page.json["data"]]
    assert listed == products[::-1]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"), ("limit=101", "limit"), ("limit=1.0", "limit"), ("limit=1&limit=1", "limit"),
        ("cursor=", "cursor"), ("cursor=nonsense", "cursor"), ("page=1", "page"), ("sku=TEA", "sku"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_of_the_catalogue_is_named(api, query, field):
    assert details(api.get(f"/products?{query}")).keys() == {field}


def test_a_cursor_of_another_list_is_refused(api, admin, ada):
    for _ in range(2):
        api.account(ada)
    cursor = api.get("/accounts?limit=1", ada).json["meta"]["pagination"]["nextCursor"]
    assert details(api.get(f"/products?cursor={cursor}")).keys() == {"cursor"}


def test_a_parameter_that_one_product_does_not_know_is_named(api, admin):
    assert details(api.get(f"/products/{api.product(admin)}?include=orders")).keys() == {"include"}


@pytest.mark.parametrize("field", NEW)
def test_every_field_of_a_new_product_is_required(api, admin, field):
    body = {name: value for name, value in NEW.items() if name != field}
    assert details(api.post("/products", admin, body)) == {field: "is required"}


WRONG = [
    ("sku", ""), ("sku", "x" * 101), ("sku", 7), ("sku", "A\nB"), ("name", "  "), ("name", "n" * 101), ("name", None),
    ("unitPrice", 0), ("unitPrice", -1), ("unitPrice", 10**12 + 1), ("unitPrice", 1.5), ("unitPrice", True),
    ("unitPrice", "1"), ("unitPrice", None), ("currency", "eur"), ("currency", "XXX"), ("currency", "DEM"),
    ("currency", ""), ("currency", 978), ("stock", -1), ("stock", 10**9 + 1), ("stock", 1.0), ("stock", False),
    ("id", ABSENT), ("version", 1),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_a_wrong_field_of_a_new_product_is_named(api, admin, field, value):
    assert details(api.post("/products", admin, {**NEW, field: value})).keys() == {field}
    assert api.get("/products").json["data"] == []


@pytest.mark.parametrize(("field", "value"), [w for w in WRONG if w[0] not in ("sku", "currency")])
def test_a_wrong_field_of_a_change_is_named_and_nothing_changes(api, admin, field, value):
    product = api.product(admin)
    before = shown(api, product)
    answer = api.patch(f"/products/{product}", admin, {"name": "Right", field: value})
    assert details(answer).keys() == {field}
    assert shown(api, product) == before


@pytest.mark.parametrize("field", ["sku", "currency"])
def test_sku_and_currency_cannot_change(api, admin, field):
    assert details(api.patch(f"/products/{api.product(admin)}", admin, {field: NEW[field]})).keys() == {field}


def test_all_wrong_fields_are_named_at_once(api, admin):
    body = {"sku": "", "unitPrice": 0, "currency": "?", "stock": -1, "colour": "green"}
    assert details(api.post("/products", admin, body)).keys() == {*NEW, "colour"}


@pytest.mark.parametrize(("price", "stock"), [(1, 0), (10**12, 10**9)])
def test_the_bounds_themselves_are_accepted(api, admin, price, stock):
    product = api.product(admin, sku="x" * 96, price=price, stock=stock)  # and the name has 100 characters
    assert len(shown(api, product)["name"]) == 100
    assert (shown(api, product)["unitPrice"], shown(api, product)["stock"]) == (price, stock)


def test_a_taken_sku_is_a_conflict_and_another_case_another_sku(api, admin):
    """409 with details.sku; the existing product does not change."""
    product = api.product(admin, "TEA-1")
    assert details(api.post("/products", admin, {**NEW, "sku": " TEA-1 "}), 409, "CONFLICT").keys() == {"sku"}
    assert api.post("/products", admin, {**NEW, "sku": "tea-1"}).status_code == 201
    assert shown(api, product)["version"] == 1


@pytest.mark.parametrize("change", [{"name": "Black tea"}, {"unitPrice": 1}, {"stock": 0}, {"name": "B", "stock": 3}])
def test_each_change_raises_the_version_by_one(api, admin, clock, change):
    """200 with the changed product and its new ETag; the next read shows it, in the list too."""
    product = api.product(admin)
    before = shown(api, product)
    assert api.get("/products").json["data"] == [before]
    clock.advance(5)
    answer = api.patch(f"/products/{product}", admin, change)
    after = answer.json["data"]
    assert (answer.status_code, answer.headers["ETag"]) == (200, '"2"')
    assert after == {**before, **change, "version": 2, "updatedAt": after["updatedAt"]}
    assert after["updatedAt"] > before["updatedAt"]
    assert shown(api, product) == after
    assert api.get("/products").json["data"] == [after]


def test_orders_and_cancels_raise_the_version_as_they_change_the_stock(api, admin, ada):
    product = api.product(admin, price=1, stock=5)
    account = api.account(ada, balance=100, admin=admin)
    order = api.post("/orders", ada, {"accountId": account, "items": [{"productId": product, "quantity": 2}]})
    assert (shown(api, product)["version"], shown(api, product)["stock"]) == (2, 3)
    api.post(f"/orders/{order.json['data']['id']}/cancel", ada)
    assert (shown(api, product)["version"], shown(api, product)["stock"]) == (3, 5)
    short = api.post("/orders", ada, {"accountId": account, "items": [{"productId": product, "quantity": 6}]})
    assert short.status_code == 409
    assert shown(api, product)["version"] == 3


def test_a_change_to_the_same_values_is_no_change(api, admin):
    product = api.product(admin, stock=7)
    for body in ({}, {"stock": 7}):
        answer = api.patch(f"/products/{product}", admin, body)
        assert (answer.status_code, answer.json["data"]["version"]) == (200, 1)


@pytest.mark.parametrize(("tag", "status"), [('"1"', 200), ('"3", "1"', 200), ("*", 200), ('"2"', 412), ('W/"1"', 412)])
def test_a_change_can_name_the_version_it_was_made_for(api, admin, tag, status):
    """412 for another one and for a weak tag, and no effect."""
    product = api.product(admin)
    answer = api.patch(f"/products/{product}", admin, {"stock": 1}, headers={"If-Match": tag})
    assert answer.status_code == status
    if status == 412:
        assert answer.json["error"]["code"] == "PRECONDITION_FAILED"
    assert shown(api, product)["version"] == (2 if status == 200 else 1)


@pytest.mark.parametrize(("method", "path"), [("POST", "/products"), ("PATCH", "/products/{id}")])
def test_only_admins_change_the_catalogue(api, admin, ada, method, path):
    """401 without a token, 403 for a user, before the id is looked at."""
    for product in (api.product(admin), ABSENT, "nonsense"):
        where = path.replace("{id}", product)
        assert api(method, where, json=NEW).status_code == 401
        assert details(api(method, where, ada, json={}), 403, "FORBIDDEN") == {}


@pytest.mark.parametrize("product", [ABSENT, ABSENT.upper(), "7", "nonsense"])
def test_an_absent_product_is_not_found(api, admin, product):
    """404, whether or not the id is a UUID, twice: the second time from the cache."""
    for _ in range(2):
        assert details(api.get(f"/products/{product}"), 404, "NOT_FOUND") == {}
    assert details(api.patch(f"/products/{product}", admin, {"stock": "wrong"}), 404, "NOT_FOUND") == {}


def test_what_is_not_a_list_of_changes_is_refused(api, admin):
    path = f"/products/{api.product(admin)}"
    assert details(api.patch(path, admin, [1])).keys() == {"body"}
    assert details(api.patch(path, admin, data="{", content_type="application/json"), 400, "MALFORMED_JSON") == {}
    assert api.patch(path, admin, data="{}", content_type="text/plain").status_code == 415


def test_a_bad_token_is_refused_on_the_public_catalogue_too(api):
    assert api.get("/products", headers={"Authorization": "Bearer nonsense"}).status_code == 401
