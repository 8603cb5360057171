"""The admin's list of users: search, filter, order, pages, and the users' orders."""

import gc

import pytest

from backend.domain import UserWithOrders
from tests.conftest import PASSWORD

PEOPLE = {  # name → e-mail
    "Ærø Straße": "north@example.com", "100% Cotton": "cotton@example.com", "Snow_White": "snow@example.com",
    "SnowXWhite": "x.white@example.com", "Back\\slash": "Zoe@example.com", "Zoë!": "we_100%@example.org",
}  # fmt: skip


@pytest.fixture
def people(api, admin):
    """Six users, signed up in this order, beside the admin."""
    for name, email in PEOPLE.items():
        assert api.post("/users", json={"email": email, "password": PASSWORD, "name": name}).status_code == 201
    return list(PEOPLE)


def names(answer):
    assert answer.status_code == 200, answer.text
    return [user["name"] for user in answer.json["data"]]


def search(api, admin, q):
    return set(names(api.get("/users", admin, query_string={"q": q})))


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("snow", {"Snow_White", "SnowXWhite"}), ("SNOW_", {"Snow_White"}), ("_", {"Snow_White", "Zoë!"}),
        ("%", {"100% Cotton", "Zoë!"}), ("0% c", {"100% Cotton"}), ("!", {"Zoë!"}), ("\\", {"Back\\slash"}),
        ("e_100%", {"Zoë!"}), ("  cotton ", {"100% Cotton"}), ("ÆRØ", {"Ærø Straße"}), ("strasse", {"Ærø Straße"}),
        ("ZOE\u0308", {"Zoë!"}), ("zoe@EXAMPLE", {"Back\\slash"}), ("x.white@", {"SnowXWhite"}),
        (".org", {"Zoë!"}), ("'", set()), ("no such user", set()), ("q" * 100, set()),
    ],
)  # fmt: skip
def test_a_search_finds_part_of_name_or_address_literally_and_in_any_case(api, admin, people, q, found):
    """`%`, `_`, `!` and backslash stand for themselves; surrounding white space is trimmed."""
    assert search(api, admin, q) == found


@pytest.mark.parametrize("q", ["", "   "])
def test_an_empty_search_finds_all_users(api, admin, people, q):
    assert search(api, admin, q) == {"Root", *people}


def test_the_newest_users_come_first_by_default(api, admin, people):
    oldest_first = ["Root", *people]
    by_email = ["100% Cotton", "Ærø Straße", "Root", "Snow_White", "Zoë!", "SnowXWhite", "Back\\slash"]
    assert names(api.get("/users", admin)) == oldest_first[::-1]
    for sort, order in {"createdAt": oldest_first, "email": by_email}.items():
        assert names(api.get(f"/users?sort={sort}", admin)) == order
        assert names(api.get(f"/users?sort=-{sort}", admin)) == order[::-1]


def test_users_are_filtered_by_role(api, admin, people):
    """An admin may be a user as well; filters combine."""
    assert names(api.get("/users?role=admin", admin)) == ["Root"]
    assert names(api.get("/users?role=user&sort=createdAt", admin)) == ["Root", *people]
    assert names(api.get("/users?role=admin&q=snow", admin)) == []


def test_a_user_with_only_the_admin_role_is_not_found_by_the_role_user(api, admin, ada):
    api.patch(f"/users/{ada.id}", admin, {"roles": ["admin"]})
    assert names(api.get("/users?role=user", admin)) == ["Root"]
    assert names(api.get("/users?role=admin", admin)) == ["Ada", "Root"]


def test_every_user_is_on_one_page(api, admin, people):
    """Seven users in pages of three. Beyond the end there is an empty page with the same total."""
    pages = [api.get(f"/users?sort=createdAt&pageSize=3&page={page}", admin) for page in (1, 2, 3, 4)]
    assert [names(page) for page in pages] == [["Root", *people][at : at + 3] for at in (0, 3, 6, 9)]
    for number, page in enumerate(pages, 1):
        expected = {"page": number, "pageSize": 3, "total": 7, "totalPages": 3}
        assert page.json["meta"]["pagination"] == expected


def test_a_page_links_to_its_neighbours_with_the_same_search(api, admin, people):
    """`Link` (RFC 8288) has first, prev, next and last; `next` goes on in the same list."""
    link = api.get("/users?q=example&pageSize=2&page=2&sort=email", admin).headers["Link"]
    targets = {part.split('rel="')[1].rstrip('"'): part.split(">")[0].lstrip(" <") for part in link.split(", ")}
    assert targets.keys() == {"first", "prev", "next", "last"}
    following = api.get(targets["next"].removeprefix("/api/v1"), admin)
    assert names(following) == names(api.get("/users?q=example&pageSize=2&page=3&sort=email", admin))
    assert following.json["meta"]["pagination"]["page"] == 3


def test_deactivated_and_deleted_users_stay_in_the_list(api, admin, ada, grace):
    api.patch(f"/users/{ada.id}", admin, {"active": False})
    api.delete(f"/users/{grace.id}", admin)
    shown = {user["id"]: user["active"] for user in api.get("/users", admin).json["data"]}
    assert shown == {admin.id: True, ada.id: False, grace.id: False}


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("role=root", "role"), ("role=", "role"), ("role=admin,user", "role"), ("sort=name", "sort"),
        ("sort=Email", "sort"), ("include=items", "include"), ("q=" + "q" * 101, "q"), ("q=%00", "q"),
        ("page=0", "page"), ("page=-1", "page"), ("page=1.0", "page"), ("page=", "page"), ("page=%D9%A1", "page"),
        ("page=99999999999999999999", "page"), ("pageSize=0", "pageSize"), ("pageSize=101", "pageSize"),
        ("page_size=5", "page_size"), ("limit=5", "limit"), ("cursor=x", "cursor"), ("q=a&q=a", "q"),
        ("email=a", "email"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_named(api, admin, query, wrong):
    answer = api.get(f"/users?{query}", admin)
    assert (answer.status_code, answer.json["error"]["code"]) == (422, "VALIDATION_ERROR")
    assert answer.json["error"]["details"].keys() == {wrong}


def test_only_admins_see_the_list(api, ada):
    """403 before the query is looked at."""
    for query in ("", "?role=root", "?q=ada"):
        answer = api.get(f"/users{query}", ada)
        assert (answer.status_code, answer.json["error"]["code"]) == (403, "FORBIDDEN")


@pytest.fixture
def buyers(api, admin):
    """Ada with two orders, Grace with one; two items in each."""
    products = [{"productId": api.product(admin, sku), "quantity": 2} for sku in ("PEN", "INK")]
    for name, orders in (("Ada", 2), ("Grace", 1)):
        buyer = api.sign_up(name)
        account = api.account(buyer, balance=10_000, admin=admin)
        for _ in range(orders):
            assert api.post("/orders", buyer, {"accountId": account, "items": products}).status_code == 201


def test_each_user_can_be_shown_with_the_orders(api, admin, buyers):
    """The same orders as `/orders` shows, items included, newest first; an empty list if there are none."""
    users = {user["name"]: user["orders"] for user in api.get("/users?include=orders", admin).json["data"]}
    orders = api.get("/orders", admin).json["data"]
    owners = {user["name"]: user["id"] for user in api.get("/users", admin).json["data"]}
    assert users == {name: [order for order in orders if order["userId"] == owners[name]] for name in owners}
    assert {name: len(theirs) for name, theirs in users.items()} == {"Ada": 2, "Grace": 1, "Root": 0}
    assert [item["sku"] for item in users["Grace"][0]["items"]] == ["PEN", "INK"]


def test_each_user_is_shown_with_the_ten_newest_orders(api, admin):
    """Whatever other users have ordered."""
    products = [{"productId": api.product(admin, "PEN", price=1, stock=1000), "quantity": 1}]
    for name, orders in (("Ada", 12), ("Grace", 11), ("Alan", 3)):
        buyer = api.sign_up(name)
        account = api.account(buyer, balance=100, admin=admin)
        for _ in range(orders):
            assert api.post("/orders", buyer, {"accountId": account, "items": products}).status_code == 201
    shown = {user["id"]: user["orders"] for user in api.get("/users?include=orders", admin).json["data"]}
    orders = api.get("/orders?limit=100", admin).json["data"]
    assert shown == {owner: [order for order in orders if order["userId"] == owner][:10] for owner in shown}
    assert sorted(map(len, shown.values())) == [0, 3, 10, 10]


def test_the_orders_that_were_shown_are_not_kept_in_memory(api, admin, buyers):
    """The text of 4,096 users with ten orders of 50 items each would take gigabytes."""
    before = users_with_orders_in_memory()
    assert api.get("/users?include=orders", admin).status_code == 200
    assert users_with_orders_in_memory() == before


def users_with_orders_in_memory():
    """Other tests' constants as well."""
    gc.collect()
    return [kept.id for kept in gc.get_objects() if isinstance(kept, UserWithOrders)]


def test_users_are_shown_without_orders_by_default(api, admin, buyers):
    assert all("orders" not in user for user in api.get("/users", admin).json["data"])


def statements(work, api, admin, query):
    """The number of SQL statements that one answer takes."""
    api.get("/users", admin)  # production's cache reads its log of earlier writes here
    answer, seen = work.statements_of(lambda: api.get(f"/users?{query}", admin))
    assert answer.status_code == 200
    return len(seen)


def test_orders_come_in_a_fixed_number_of_statements(work, api, admin, buyers):
    """As many for one user as for all, and two more than without the orders."""
    api.app.relay.stop()  # so that no commit of its own makes production's cache read its log
    counts = {statements(work, api, admin, f"include=orders&pageSize={size}") for size in (1, 2, 3, 100)}
    assert counts == {statements(work, api, admin, "pageSize=1") + 2}
