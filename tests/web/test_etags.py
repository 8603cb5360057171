"""Versions: `If-None-Match` saves a body, `If-Match` prevents a lost update."""

import pytest

from tests.at_once import at_once

VALIDATED = ["/users/{user}", "/products/{product}"]
READ = [*VALIDATED, "/users/me"]
CHANGED = [("PATCH", path) for path in READ]
WRITTEN = [*CHANGED, ("DELETE", "/users/{user}")]
EXCLUDING = [(method, path) for method, path in WRITTEN if path != "/users/me"]  # where `If-None-Match` counts


@pytest.fixture
def call(api, admin, ada):
    """A request by an admin in which `{user}` is that admin and `{product}` a product; both at version 2."""
    product = api.product(admin)
    api.patch(f"/products/{product}", admin, {"stock": 3})

    def send(method, path, tag=None, header="If-Match", by=None, **rest):
        headers = {**rest.pop("headers", {}), **({} if tag is None else {header: tag})}
        path = path.format(user=(by or admin).id, product=product)
        if method == "PATCH":
            rest.setdefault("json", {"name": "Changed"})
        return api(method, path, by or admin, headers=headers, **rest)

    return send


@pytest.fixture
def another_admin(api, admin, ada):
    """Ada, with the role, so that the first admin may be deleted."""
    api.patch(f"/users/{ada.id}", admin, {"roles": ["user", "admin"]})


@pytest.mark.parametrize("path", READ)
def test_the_etag_is_the_version(call, path):
    answer = call("GET", path)
    assert answer.json["data"]["version"] == 2
    assert answer.headers.getlist("ETag") == ['"2"']


@pytest.mark.parametrize("path", VALIDATED)
def test_a_known_version_is_a_304(call, path):
    """Weak comparison (RFC 9110): a weak tag matches too. GET and HEAD alike, without a body, with the ETag."""
    for tag in ('"2"', 'W/"2"', "*", '"1", "2"', '"1","2","3"', '"1", W/"2"', ' "2" '):
        for method in ("GET", "HEAD"):
            answer = call(method, path, tag, "If-None-Match")
            assert (answer.status_code, answer.data) == (304, b""), tag
            assert answer.headers.getlist("ETag") == ['"2"']
            assert answer.headers["Cache-Control"] == call("GET", path).headers["Cache-Control"]


@pytest.mark.parametrize("path", READ)
def test_another_version_is_sent_whole(call, path):
    for tag in ('"1"', '"3"', '"22"', '"02"', '" 2"', 'W/"1"', '""', "", '"1", "3"', "'2'", '"*"', ","):
        answer = call("GET", path, tag, "If-None-Match")
        assert (answer.status_code, answer.json["data"]["version"]) == (200, 2), tag


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_users_me_is_another_resource_for_each_caller_so_no_version_validates_it(api, ada, grace, method):
    """Ada's and Grace's answers have the same tag. A cache must not keep either, nor get a 304."""
    known = api.get("/users/me", ada).headers["ETag"]
    for tag in (known, f"W/{known}", "*"):
        answer = api(method, "/users/me", grace, headers={"If-None-Match": tag})
        assert (answer.status_code, answer.headers["ETag"], answer.headers["Cache-Control"]) == (200, known, "no-store")
        assert method == "HEAD" or answer.json["data"]["id"] == grace.id


def test_no_route_whose_answer_depends_on_the_caller_is_validated(api, admin, ada):
    """A 304, or an answer that a cache may keep, needs a URL that names one resource: every GET, with every tag."""
    account = api.account(ada)
    order = "01900000-0000-7000-8000-000000000000"
    paths = ["/users/me", "/auth/sessions", "/accounts", "/orders", f"/accounts/{account}", "/audit", "/users",
             f"/accounts/{account}/transactions", f"/orders/{order}", f"/transactions/{order}"]  # fmt: skip
    for path in paths:
        for by in (ada, admin):
            answer = api.get(path, by, headers={"If-None-Match": "*"})
            assert (answer.status_code != 304, answer.headers["Cache-Control"]) == (True, "no-store"), path


def test_a_page_kept_for_one_user_is_validated_for_that_user_and_admins_alone(api, admin, ada, grace):
    path, tag = f"/users/{ada.id}", {"If-None-Match": '"1"'}
    statuses = [api.get(path, by, headers=tag).status_code for by in (ada, admin, grace, None)]
    assert statuses == [304, 304, 403, 401]


def test_a_former_version_is_no_304(call):
    """Also from the cache: the very next request sees the change."""
    assert call("GET", "/products/{product}", '"2"', "If-None-Match").status_code == 304
    assert call("PATCH", "/products/{product}").status_code == 200
    assert call("GET", "/products/{product}", '"2"', "If-None-Match").headers["ETag"] == '"3"'


def test_an_unknown_resource_is_no_304(api, admin):
    absent = "01900000-0000-7000-8000-000000000000"
    for path in (f"/users/{absent}", f"/products/{absent}"):
        assert api.get(path, admin, headers={"If-None-Match": "*"}).status_code == 404


@pytest.mark.parametrize("tag", [None, '"2"', "*", '"1", "2"', 'W/"1", "2"', '"2","3"'])
@pytest.mark.parametrize(("method", "path"), WRITTEN)
def test_a_change_of_the_named_version_is_made(call, another_admin, method, path, tag):
    """So is one of any version, if none is named or `*`; a PATCH answers with the new ETag."""
    answer = call(method, path, tag)
    assert answer.status_code == (204 if method == "DELETE" else 200)
    assert answer.headers.get("ETag") == (None if method == "DELETE" else '"3"')
    if method == "PATCH":
        assert answer.json["data"]["version"] == 3
        assert call("GET", path).json["data"] == answer.json["data"]


@pytest.mark.parametrize(("method", "path"), WRITTEN)
def test_a_change_of_another_version_is_refused(call, another_admin, method, path):
    """412, and nothing has changed; weak tags never match (RFC 9110 §13.1.1)."""
    for tag in ('"1"', '"3"', '"22"', 'W/"2"', 'w/"2"', 'W/"2", "3"', '""', '"02"', '"*"', "W/*"):
        answer = call(method, path, tag)
        assert (answer.status_code, answer.json["error"]["code"]) == (412, "PRECONDITION_FAILED"), tag
        assert "ETag" not in answer.headers
    assert call("GET", path).json["data"]["version"] == 2


@pytest.mark.parametrize(("method", "path"), EXCLUDING)
def test_a_change_of_a_version_that_must_not_be_is_refused(call, another_admin, method, path):
    """`If-None-Match` compares weakly, and `*` is any version there is: 412 (RFC 9110 §13.1.2), nothing changed."""
    for tag in ('"2"', 'W/"2"', "*", '"1", "2"', '"1",W/"2"', ' "2" '):
        answer = call(method, path, tag, "If-None-Match")
        assert (answer.status_code, answer.json["error"]["code"]) == (412, "PRECONDITION_FAILED"), tag
        assert "ETag" not in answer.headers
    assert call("GET", path).json["data"]["version"] == 2


@pytest.mark.parametrize("tag", ['"2"', 'W/"2"', "*", '"1", "2"'])
def test_a_change_of_users_me_is_made_whatever_version_is_excluded(call, tag):
    """The URL is another resource for each caller: only `If-Match` counts there, and it counts beside the other."""
    both = {"If-Match": '"1"', "If-None-Match": tag}
    assert call("PATCH", "/users/me", headers=both).status_code == 412
    answer = call("PATCH", "/users/me", headers={**both, "If-Match": '"2"'})
    assert (answer.status_code, answer.headers["ETag"]) == (200, '"3"')
    assert call("PATCH", "/users/me", tag.replace("2", "3"), "If-None-Match", json={"name": "N"}).status_code == 200


@pytest.mark.parametrize("tag", ['"1"', '"3"', '"22"', 'W/"1"', '""', "", '"*"'])
@pytest.mark.parametrize(("method", "path"), WRITTEN)
def test_a_change_of_another_version_than_the_excluded_one_is_made(call, another_admin, method, path, tag):
    """Also if it leads to the excluded version; never a 304."""
    answer = call(method, path, tag, "If-None-Match")
    assert answer.status_code == (204 if method == "DELETE" else 200)


@pytest.mark.parametrize(("method", "path"), EXCLUDING)
def test_both_preconditions_must_hold(call, another_admin, method, path):
    def status(match, none_match):
        return call(method, path, headers={"If-Match": match, "If-None-Match": none_match}).status_code

    assert [status('"2"', '"2"'), status("*", "*"), status('"1"', '"1"')] == [412] * 3
    assert status('"2"', '"1"') in (200, 204)


@pytest.mark.parametrize(("method", "path"), CHANGED)
def test_a_change_to_what_it_is_already_still_needs_the_version(call, method, path):
    """It does not raise the version: the ETag stays."""
    name = call("GET", path).json["data"]["name"]
    assert call(method, path, '"1"', json={"name": name}).status_code == 412
    assert call(method, path, '"2"', json={"name": name}).headers["ETag"] == '"2"'
    assert call(method, path, '"2"', json={}).headers["ETag"] == '"2"'


def test_a_deleted_user_is_deleted_again_only_at_the_current_version(api, admin, ada):
    """204 each time without a precondition."""
    path = f"/users/{ada.id}"
    assert api.delete(path, admin, headers={"If-Match": '"1"'}).status_code == 204
    assert api.delete(path, admin, headers={"If-Match": '"1"'}).status_code == 412
    assert api.delete(path, admin, headers={"If-Match": '"2"'}).status_code == 204
    assert api.delete(path, admin).status_code == 204
    assert api.get(path, admin).headers["ETag"] == '"2"'


def test_stock_that_was_sold_is_another_version(api, admin, ada):
    """Every change of a product raises its version."""
    account, product = api.account(ada, balance=1000, admin=admin), api.product(admin)
    order = {"accountId": account, "items": [{"productId": product, "quantity": 1}]}
    placed = api.post("/orders", ada, order).json["data"]["id"]
    assert api.get(f"/products/{product}").headers["ETag"] == '"2"'
    assert api.patch(f"/products/{product}", admin, {"stock": 99}, headers={"If-Match": '"1"'}).status_code == 412
    api.post(f"/orders/{placed}/cancel", ada)
    assert api.get(f"/products/{product}").headers["ETag"] == '"3"'


def test_a_users_own_change_needs_the_current_version(api, ada):
    """`/users/me` and `/users/{id}` are one resource with one version."""
    assert api.patch("/users/me", ada, {"name": "A"}, headers={"If-Match": '"1"'}).headers["ETag"] == '"2"'
    assert api.patch(f"/users/{ada.id}", ada, {"name": "B"}, headers={"If-Match": '"1"'}).status_code == 412
    assert api.patch(f"/users/{ada.id}", ada, {"name": "B"}, headers={"If-Match": '"2"'}).headers["ETag"] == '"3"'
    assert api.get(f"/users/{ada.id}", ada, headers={"If-None-Match": '"3"'}).status_code == 304


@pytest.mark.parametrize(("method", "path"), CHANGED)
def test_of_many_changes_of_one_version_at_once_exactly_one_is_made(call, method, path):
    """The others get 412: no update is lost."""
    answers = at_once([lambda n=n: call(method, path, '"2"', json={"name": f"N{n}"}) for n in range(6)])
    assert sorted(answer.status_code for answer in answers) == [200, *[412] * 5]
    [made] = [answer.json["data"] for answer in answers if answer.status_code == 200]
    assert call("GET", path).json["data"] == made


def test_of_a_change_and_a_deletion_at_once_one_is_made(api, admin, ada):
    path, headers = f"/users/{ada.id}", {"If-Match": '"1"'}
    answers = at_once(
        [
            lambda: api.patch(path, admin, {"name": "N"}, headers=headers),
            lambda: api.delete(path, admin, headers=headers),
        ]
    )
    assert sorted(answer.status_code for answer in answers) in ([200, 412], [204, 412])
    assert api.get(path, admin).json["data"]["version"] == 2
