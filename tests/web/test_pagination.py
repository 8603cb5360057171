"""Lists in pages: by offset with totals, by cursor without gaps; `Link` leads from one to the next."""

import re
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.at_once import at_once
from tests.conftest import PASSWORD
from tests.waiting import wait_until

LINK = re.compile(r'<([^>]*)>; rel="([a-z]+)"')


def links(answer):
    """The targets of the `Link` header by their relation."""
    header = answer.headers.get("Link", "")
    assert ", ".join(match[0] for match in LINK.finditer(header)) == header
    return {relation: target for target, relation in LINK.findall(header)}


def follow(api, answer, relation, by):
    """The page that a link leads to; None if there is no such link."""
    target = links(answer).get(relation)
    return api.get(f"/{target}", by) if target else None


def ids(answer):
    assert answer.status_code == 200, answer.text
    return [row["id"] for row in answer.json["data"]]


def walk(api, path, by, relation="next"):
    """All pages from a path on."""
    pages = [api.get(path, by)]
    while following := follow(api, pages[-1], relation, by):
        pages.append(following)
        assert len(pages) < 100, "the links lead round in a circle"
    return pages


@pytest.fixture
def crowd(api, admin):
    """An admin and eleven users; the ids of all twelve, newest first."""
    made = [admin.id]
    for n in range(11):
        sent = {"email": f"user{n:02}@example.com", "password": PASSWORD, "name": f"Ü & {n % 2}=b"}
        made.append(api.post("/users", json=sent).json["data"]["id"])
    return made[::-1]


@pytest.mark.parametrize(("size", "pages"), [(1, 12), (5, 3), (6, 2), (7, 2), (11, 2), (12, 1), (13, 1), (100, 1)])
def test_offset_pages_together_are_the_list(api, admin, crowd, size, pages):
    """Each page has the totals; `next` leads from the first to the last, `prev` back."""
    forth = walk(api, f"/users?pageSize={size}", admin)
    assert [entry for page in forth for entry in ids(page)] == crowd
    assert [page.json["meta"]["pagination"] for page in forth] == [
        {"page": n, "pageSize": size, "total": 12, "totalPages": pages} for n in range(1, pages + 1)
    ]
    last = links(forth[0])["last"]
    back = walk(api, f"/{last}", admin, "prev")
    assert [ids(page) for page in back] == [ids(page) for page in reversed(forth)]


@pytest.mark.parametrize(
    ("page", "relations"),
    [(1, {"first", "next", "last"}), (2, {"first", "prev", "next", "last"}), (3, {"first", "prev", "last"})],
)
def test_there_is_a_link_only_to_a_page_that_exists(api, admin, crowd, page, relations):
    answer = api.get(f"/users?page={page}&pageSize=5", admin)
    assert links(answer).keys() == relations
    assert links(answer)["first"] == "/api/v1/users?page=1&pageSize=5"


def test_links_keep_the_filters_and_the_order(api, admin, crowd):
    """Whatever encoding they need."""
    pages = walk(api, "/users?sort=email&q=%C3%BC%20%26%200%3D&pageSize=2&role=user", admin)
    assert [len(ids(page)) for page in pages] == [2, 2, 2]
    assert [row["email"] for page in pages for row in page.json["data"]] == [
        f"user{n:02}@example.com" for n in (0, 2, 4, 6, 8, 10)
    ]


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("/users?q={}user0&pageSize=2&role={}user", "q=user0&pageSize=2&role=user"),
        ("/users?sort={}email&pageSize=02", "sort=email&pageSize=2"),
        ("/accounts?ownerId={}{id}&limit=1", "ownerId={id}&limit=1"),
    ],
)
def test_links_hold_parsed_values_not_what_was_sent(api, admin, crowd, path, kept):
    """White space around values would otherwise make a head of 30 KiB, which proxies refuse."""
    for _ in range(2):
        api.account(admin)
    answer = api.get(path.format(*["%20" * 1000] * 2, id=admin.id), admin)
    assert f"?{kept.format(id=admin.id)}&" in links(answer)["next"]
    assert len(answer.headers["Link"]) < 500


@pytest.mark.parametrize("page", [4, 100, 2**31, 2**53 + 1, 2**63 - 1])
@pytest.mark.parametrize("size", [5, 100])
def test_a_page_past_the_end_is_empty(api, admin, crowd, page, size):
    """200, however far; `prev` leads to the last page with rows."""
    answer = api.get(f"/users?page={page}&pageSize={size}", admin)
    pages = -(-12 // size)
    assert (ids(answer), answer.json["meta"]["pagination"]) == (
        [],
        {"page": page, "pageSize": size, "total": 12, "totalPages": pages},
    )
    assert links(answer).keys() == {"first", "prev", "last"}
    assert links(answer)["prev"] == links(answer)["last"] == f"/api/v1/users?page={pages}&pageSize={size}"


def test_an_empty_list_has_no_pages(api, admin):
    answer = api.get("/users?q=no-such-user", admin)
    assert (ids(answer), answer.json["meta"]["pagination"]) == (
        [],
        {"page": 1, "pageSize": 20, "total": 0, "totalPages": 0},
    )
    assert not links(answer).keys() & {"next", "prev"}


@pytest.fixture
def accounts(api, ada):
    """Seven accounts of Ada, newest first."""
    return [api.account(ada) for _ in range(7)][::-1]


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8, 100])
def test_cursor_pages_together_are_the_list_newest_first(api, ada, accounts, limit):
    """`nextCursor` is null on the last page, also when that is full; and `Link` says the same."""
    pages = walk(api, f"/accounts?limit={limit}", ada)
    assert [entry for page in pages for entry in ids(page)] == accounts
    assert [len(ids(page)) for page in pages] == [limit] * (7 // limit) + ([7 % limit] if 7 % limit else [])
    for page in pages:
        pagination = page.json["meta"]["pagination"]
        assert pagination.keys() == {"limit", "nextCursor"}
        assert pagination["limit"] == limit
        assert links(page).keys() == ({"next"} if pagination["nextCursor"] else set())
    assert pages[-1].json["meta"]["pagination"]["nextCursor"] is None


@pytest.fixture
def lists(api, admin, ada):
    """The path of every list that goes by cursor; each has eight rows or more."""
    product = api.product(admin, "SOLD", price=1, stock=100)
    for n in range(8):
        api.product(admin, f"SKU-{n}")
        account = api.account(ada, balance=1000, admin=admin)
    for _ in range(8):
        order = {"accountId": account, "items": [{"productId": product, "quantity": 1}]}
        assert api.post("/orders", ada, order).status_code == 201
    wait_until(lambda: len(api.get("/audit?action=order.placed", admin).json["data"]) == 8)
    orders = ["/orders", "/orders?status=placed", f"/orders?userId={ada.id}", f"/orders?userId={ada.id}&status=placed"]
    audit = ["/audit", "/audit?action=order.placed", f"/audit?userId={ada.id}"]
    return [
        "/products",
        "/accounts",
        f"/accounts?ownerId={ada.id}",
        f"/accounts/{account}/transactions",
        *orders,
        *audit,
    ]


def test_the_pages_of_every_list_are_that_list(api, admin, lists):
    """No row is missing or shown twice, however small the pages."""
    for path in lists:
        path = f"{path}{'&' if '?' in path else '?'}limit="
        whole = ids(api.get(f"{path}100", admin))
        assert len(whole) >= 8, path
        assert whole == sorted(whole, reverse=True)
        assert [entry for page in walk(api, f"{path}3", admin) for entry in ids(page)] == whole, path


def test_without_a_limit_there_are_twenty(api, ada, accounts):
    for _ in range(14):
        api.account(ada)
    assert [len(ids(page)) for page in walk(api, "/accounts", ada)] == [20, 1]


def test_an_empty_list_is_its_own_last_page(api, ada):
    answer = api.get("/orders", ada)
    assert (ids(answer), answer.json["meta"]["pagination"]) == ([], {"limit": 20, "nextCursor": None})
    assert "Link" not in answer.headers


def test_the_limit_may_change_from_page_to_page(api, ada, accounts):
    cursor = api.get("/accounts?limit=3", ada).json["meta"]["pagination"]["nextCursor"]
    assert ids(api.get(f"/accounts?cursor={cursor}&limit=2", ada)) == accounts[3:5]
    assert ids(api.get(f"/accounts?cursor={cursor}", ada)) == accounts[3:]


def test_one_cursor_leads_to_the_same_place_whenever_it_is_used(api, ada, accounts):
    first = api.get("/accounts?limit=3", ada)
    before = ids(follow(api, first, "next", ada))
    newer = [api.account(ada) for _ in range(2)]
    assert ids(follow(api, first, "next", ada)) == before
    assert not set(before) & set(newer)


numbers = count()  # a new owner for each example: all share one database


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    at_the_start=st.integers(0, 9),
    steps=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3)), min_size=10, max_size=10),
)
def test_rows_written_while_paging_make_nothing_appear_twice_or_be_skipped(api, at_the_start, steps):
    """With any page sizes and any new rows between pages, each row of the start appears once, in order."""
    owner = api.sign_up(f"owner-{next(numbers)}")
    expected = [api.account(owner) for _ in range(at_the_start)][::-1]
    seen, cursor = [], ""
    for limit, written in steps:
        page = api.get(f"/accounts?limit={limit}{cursor}", owner)
        seen += ids(page)
        for _ in range(written):
            api.account(owner)
        if page.json["meta"]["pagination"]["nextCursor"] is None:
            break
        cursor = f"&cursor={page.json['meta']['pagination']['nextCursor']}"
    assert seen == expected[: len(seen)]
    assert len(seen) == at_the_start or page.json["meta"]["pagination"]["nextCursor"]


def test_rows_written_by_others_at_the_same_time_change_no_walk(api, admin, accounts, ada):
    """Threads write while others page: every walk has each earlier row once, and no row twice."""

    def write():
        return [api.account(ada) for _ in range(10)]

    def read():
        return [entry for page in walk(api, "/accounts?limit=2", ada) for entry in ids(page)]

    results = at_once([write, write, read, read, read])
    for walked in results[2:]:
        assert len(walked) == len(set(walked))
        assert walked[-len(accounts) :] == accounts
        assert walked == sorted(walked, reverse=True)
