"""Lists: pages by offset and by cursor."""

import re

from tests.conformance.checks import check, check_each, expect, expect_data, expect_wrong
from tests.conformance.client import Answer, Client

MOST_PAGES = 50  # of a list that has fewer
LINK = re.compile(r'<([^>]+)>;\s*rel="?(\w+)"?')
BAD_NUMBERS = {"0": "0", "101": "101", "negative": "-1", "a fraction": "1.0", "a plus": "%2B1", "a word": "x"}


def links(answer: Answer) -> dict[str, str]:
    """The targets of the `Link` header, by their relation, below /api/v1."""
    found = LINK.findall(answer.headers.get("Link", ""))
    return {relation: target.partition("/api/v1")[2] for target, relation in found}


@check
def offset_pages_are_the_list(api: Client) -> None:
    """An offset list has `meta.pagination = {page, pageSize, total, totalPages}` and links to other pages."""
    emails = {api.ada.email, api.grace.email}
    first = api.get(f"/users?q={api.run}&pageSize=1&sort=email", api.admin)
    pagination = first.json["meta"]["pagination"]
    expect("the keys of the pagination", {"page", "pageSize", "total", "totalPages"}, set(pagination))
    expect("pages of one user", pagination["total"], pagination["totalPages"])
    seen, answer = [], first
    for _ in range(MOST_PAGES):
        seen += [user["email"] for user in expect_data(answer)]
        if "next" not in links(answer):
            break
        answer = api.get(links(answer)["next"], api.admin)
    expect("users by e-mail, each once", sorted(seen), seen)
    expect("as many as in total", pagination["total"], len(set(seen)))
    expect("these are among them", set(), emails - set(seen))
    expect("links of the last page", {"first", "prev", "last"}, set(links(answer)))


@check
def a_page_past_the_end(api: Client) -> None:
    """A page past the end is 200 with an empty list."""
    expect("the page", [], expect_data(api.get("/users?page=1000000", api.admin)))


@check_each(BAD_NUMBERS)
def a_bad_page_size(api: Client, number: str) -> None:
    """`pageSize` is a plain decimal integer from 1 to 100."""
    expect_wrong(api.get(f"/users?pageSize={number}", api.admin), "pageSize")


@check_each(BAD_NUMBERS)
def a_bad_limit(api: Client, number: str) -> None:
    """`limit` is a plain decimal integer from 1 to 100."""
    expect_wrong(api.get(f"/products?limit={number}"), "limit")


@check
def an_unknown_parameter(api: Client) -> None:
    """A parameter that is unknown is 422, on single resources too."""
    expect_wrong(api.get("/products?colour=green"), "colour")
    expect_wrong(api.get("/users/me?colour=green", api.ada), "colour")


@check
def a_repeated_parameter(api: Client) -> None:
    """A parameter that is repeated is 422."""
    expect_wrong(api.get("/products?limit=1&limit=2"), "limit")


@check
def rows_written_while_paging(api: Client) -> None:
    """Newest first; rows written while paging never make a row appear twice or be skipped."""
    mine = [api.account(api.grace) for _ in range(5)][::-1]
    seen, path = [], "/accounts?limit=2"
    for _ in range(MOST_PAGES):
        answer = api.get(path, api.grace)
        seen += [account["id"] for account in expect_data(answer)]
        path = links(answer).get("next", "")
        api.account(api.grace)
        if not path:
            break
    expect("the page after the last", "", path)
    expect("the accounts that existed before", mine, [account for account in seen if account in mine])
    expect("accounts seen twice", len(set(seen)), len(seen))


@check
def the_last_page(api: Client) -> None:
    """`nextCursor` is null on the last page, and the same as in the `Link` header on the others."""
    for _ in range(2):
        api.account(api.grace)
    first = api.get("/accounts?limit=1", api.grace)
    cursor = first.json["meta"]["pagination"]["nextCursor"]
    expect("the cursor in the link", True, bool(cursor) and cursor in links(first).get("next", ""))
    whole = api.get("/accounts?limit=100", api.grace)
    expect("pagination of the last page", {"limit": 100, "nextCursor": None}, whole.json["meta"]["pagination"])
    expect("links of the last page", {}, links(whole))


@check
def a_cursor_of_another_list(api: Client) -> None:
    """A cursor is valid only for the list that it came from; any other is 422 `details.cursor`."""
    cursor = api.get("/accounts?limit=1", api.grace).json["meta"]["pagination"]["nextCursor"]
    expect_data(api.get(f"/accounts?limit=3&cursor={cursor}", api.grace))
    expect_wrong(api.get(f"/orders?cursor={cursor}", api.grace), "cursor")
    expect_wrong(api.get(f"/products?cursor={cursor}"), "cursor")


@check
def a_cursor_of_another_filter(api: Client) -> None:
    """A cursor is valid only with the filter that it came with; with another it is 422 `details.cursor`."""
    for _ in range(2):
        api.account(api.grace)
    path = f"/accounts?limit=1&ownerId={api.grace.id}"
    cursor = api.get(path, api.admin).json["meta"]["pagination"]["nextCursor"]
    expect_data(api.get(f"{path}&cursor={cursor}", api.admin))
    expect_wrong(api.get(f"/accounts?limit=1&cursor={cursor}", api.admin), "cursor")
    expect_wrong(api.get(f"/accounts?limit=1&ownerId={api.ada.id}&cursor={cursor}", api.admin), "cursor")


@check_each({"a word": "x", "empty": "", "an id": "0198c0de-0000-7000-8000-000000000000", "base64": "A" * 43})
def a_cursor_that_is_none(api: Client, cursor: str) -> None:
    """A cursor that this service has not made is 422 `details.cursor`."""
    expect_wrong(api.get(f"/products?cursor={cursor}"), "cursor")
