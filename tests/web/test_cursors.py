"""Cursors: opaque, valid on every worker and after a restart, and only for their list and filter."""

import base64
import re
import uuid

import pytest

from tests.conftest import SECRET

NEW_SECRET = "another-secret-that-has-32-bytes-too"


def cursor_of(api, path, by=None):
    """The cursor of a list's first page with one row."""
    answer = api.get(f"{path}{'&' if '?' in path else '?'}limit=1", by)
    cursor = answer.json["meta"]["pagination"]["nextCursor"]
    assert cursor, answer.text
    return cursor


def refused(answer):
    assert (answer.status_code, answer.json["error"]["code"]) == (422, "VALIDATION_ERROR"), answer.text
    return answer.json["error"]["details"].keys() == {"cursor"}


@pytest.fixture
def products(api, admin):
    """Three products, newest first."""
    return [api.product(admin, f"SKU-{n}") for n in range(3)][::-1]


@pytest.fixture
def cursor(api, products):
    return cursor_of(api, "/products")


def test_a_cursor_is_opaque(cursor, products):
    """It needs no encoding in a URL, and does not show an id."""
    assert re.fullmatch(r"[A-Za-z0-9_-]+", cursor)
    assert products[0] not in cursor


def test_no_character_of_a_cursor_may_be_another(api, cursor):
    """Not even the last one, of which base64 drops two bits."""
    for n, character in enumerate(cursor):
        for other in "AQgw-_Zz09":
            if other != character:
                assert refused(api.get(f"/products?cursor={cursor[:n]}{other}{cursor[n + 1 :]}"))


def test_another_spelling_of_a_cursor_is_refused(api, cursor):
    """A value has one spelling: no padding, no other alphabet, nothing before or after it."""
    data = base64.urlsafe_b64decode(f"{cursor}=")
    spellings = [
        f"{cursor}=", f"{cursor}==", f"{cursor}A", f"{cursor}.", f"A{cursor}", cursor[:-1], cursor[1:], cursor[:21],
        cursor.swapcase(), f"+{cursor}", f"{cursor}%09",
        f"{cursor[:20]}%0A{cursor[20:]}", f"{cursor[:20]}.{cursor[20:]}", cursor * 2, data.hex(),
    ]  # fmt: skip
    alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
    spellings += [cursor[:-1] + last for last in alphabet if last != cursor[-1]]
    assert all(refused(api.get(f"/products?cursor={spelling}")) for spelling in spellings)
    assert api.get(f"/products?cursor={cursor}").status_code == 200


@pytest.mark.parametrize(
    "made_up",
    ["", "A", "A" * 43, "A" * 44, "_" * 43, "x" * 200, "x" * 201, "x" * 5_000, "1", "null", "%00", "é",
     "%F0%9F%94%91", "01900000-0000-7000-8000-000000000000", "WzFd", "eyJpZCI6MX0"],
)  # fmt: skip
def test_a_forged_cursor_is_refused(api, products, made_up):
    assert refused(api.get(f"/products?cursor={made_up}"))


def test_a_cursor_moved_to_another_row_is_refused(api, cursor, products):
    """The signature covers the row."""
    signature = base64.urlsafe_b64decode(f"{cursor}=")[16:]
    for product in (products[1], "ffffffff-ffff-ffff-ffff-ffffffffffff"):
        forged = base64.urlsafe_b64encode(uuid.UUID(product).bytes + signature).decode().rstrip("=")
        assert refused(api.get(f"/products?cursor={forged}"))


@pytest.fixture
def things(api, admin, ada, grace):
    """Two accounts with two deposits each and two orders of Ada; as many accounts of Grace; the ids of the four."""
    accounts = [api.account(person, balance=1000, admin=admin) for person in (ada, ada, grace, grace)]
    for account in accounts:
        api.post(f"/accounts/{account}/deposits", admin, {"amount": 1})
    product = api.product(admin, "SOLD")
    for _ in range(3):
        api.post("/orders", ada, {"accountId": accounts[0], "items": [{"productId": product, "quantity": 1}]})
    return accounts


def test_a_cursor_is_valid_for_its_list_alone(api, ada, things, products):
    lists = ["/products", "/accounts", "/orders", *(f"/accounts/{account}/transactions" for account in things[:2])]
    cursors = {path: cursor_of(api, path, ada) for path in lists}
    for path in lists:
        for other, cursor in cursors.items():
            answer = api.get(f"{path}?cursor={cursor}", ada)
            assert answer.status_code == 200 if path == other else refused(answer), (path, other)


def test_a_cursor_is_valid_for_its_filter_alone(api, admin, ada, grace, things):
    """It is refused if a filter is added, left out or changed, an admin's filters included."""
    for paths in (
        ["/orders", "/orders?status=placed", f"/orders?userId={ada.id}", f"/orders?userId={ada.id}&status=placed"],
        ["/accounts", f"/accounts?ownerId={ada.id}", f"/accounts?ownerId={grace.id}"],
    ):
        cursors = {path: cursor_of(api, path, admin) for path in paths}
        for path in paths:
            for other, cursor in cursors.items():
                answer = api.get(f"{path}{'&' if '?' in path else '?'}cursor={cursor}", admin)
                assert answer.status_code == 200 if path == other else refused(answer), (path, other)


@pytest.mark.parametrize("path", ["/accounts", "/orders"])
def test_a_cursor_of_one_users_list_is_refused_for_another_user(api, admin, ada, grace, things, path):
    """The path is the same, the list is not; an admin's list, of all users, is a third."""
    mine, everybodys = cursor_of(api, path, ada), cursor_of(api, path, admin)
    assert refused(api.get(f"{path}?cursor={mine}", grace))
    assert refused(api.get(f"{path}?cursor={mine}", admin))
    assert refused(api.get(f"{path}?cursor={everybodys}", ada))
    assert api.get(f"{path}?cursor={mine}", ada).status_code == 200


def test_a_cursor_of_a_public_list_is_valid_for_all_callers(api, admin, ada, cursor, products):
    """The list is the same before and after logging in."""
    for by in (None, ada, admin):
        assert [row["id"] for row in api.get(f"/products?cursor={cursor}", by).json["data"]] == products[1:]
        assert api.get(f"/products?cursor={cursor_of(api, '/products', by)}").status_code == 200


def test_a_cursor_is_valid_on_every_worker_and_after_a_restart(make_api, cursor, products):
    answer = make_api().get(f"/products?cursor={cursor}")
    assert [row["id"] for row in answer.json["data"]] == products[1:]


def test_a_cursor_outlives_its_secret_for_as_long_as_that_verifies(make_api, cursor, products):
    """The first secret of `JWT_SECRETS` signs, all verify."""
    rotated = make_api(jwt_secrets=(NEW_SECRET, SECRET))
    assert [row["id"] for row in rotated.get(f"/products?cursor={cursor}").json["data"]] == products[1:]
    newer = cursor_of(rotated, "/products")
    assert newer != cursor
    finished = make_api(jwt_secrets=(NEW_SECRET,))
    assert finished.get(f"/products?cursor={newer}").status_code == 200
    assert refused(finished.get(f"/products?cursor={cursor}"))


def test_a_wrong_filter_is_reported_together_with_a_wrong_cursor(api, admin, products):
    answer = api.get("/orders?status=lost&userId=x&limit=0&colour=red", admin)
    assert answer.json["error"]["details"].keys() == {"status", "userId", "limit", "colour"}
