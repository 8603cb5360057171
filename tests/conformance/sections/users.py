"""Users: profiles, versions, and administration."""

from typing import Any

from tests.conformance.checks import (
    check,
    check_each,
    expect,
    expect_data,
    expect_error,
    expect_header,
    expect_reason,
    expect_wrong,
)
from tests.conformance.client import PASSWORD, Client, Person, times

STALE = {"If-Match": '"999999"'}


def me(api: Client, person: Person) -> dict[str, Any]:
    return dict(expect_data(api.get("/users/me", person)))


@check
def a_change_raises_the_version(api: Client) -> None:
    """PATCH answers 200 with the resource; the version goes up and is the ETag."""
    before = me(api, api.ada)["version"]
    answer = api.patch("/users/me", api.ada, {"name": f"Ada {before}"})
    after = expect_data(answer)
    expect("name and version", (f"Ada {before}", before + 1), (after["name"], after["version"]))
    expect_header(answer, "ETag", f'"{after["version"]}"')


@check
def a_user_is_revalidated(api: Client) -> None:
    """GET `/users/{id}` has an ETag and is `private, no-cache`; `If-None-Match` with it is 304 without a body."""
    path = f"/users/{api.ada.id}"
    answer = api.get(path, api.ada)
    expect_header(answer, "Cache-Control", "private, no-cache")
    again = api.get(path, api.ada, headers={"If-None-Match": f'"x", W/{answer.etag}'})
    expect("status and body", (304, b""), (again.status, again.body))
    expect_header(again, "ETag", answer.etag)


@check
def one_url_for_every_caller_is_not_revalidated(api: Client) -> None:
    """`/users/me` means another resource for each caller: it ignores `If-None-Match`."""
    answer = api.get("/users/me", api.ada, headers={"If-None-Match": "*"})
    expect("the user", api.ada.id, expect_data(answer)["id"])


@check_each({"an older version": STALE, "a weak tag": {"If-Match": 'W/"{version}"'},
             "a version to avoid": {"If-None-Match": '"{version}"'}})  # fmt: skip
def a_precondition_that_fails(api: Client, headers: dict[str, str]) -> None:
    """`If-Match` with another version or a weak tag is 412, as is an `If-None-Match` that matches."""
    before = me(api, api.ada)
    sent = {name: value.format(version=before["version"]) for name, value in headers.items()}
    answer = api.patch(f"/users/{api.ada.id}", api.ada, {"name": "Not to be"}, headers=sent)
    expect_error(answer, 412, "PRECONDITION_FAILED")
    expect("the user", before, me(api, api.ada))


@check
def changes_of_one_version_at_once(api: Client) -> None:
    """Of ten changes of one version at the same moment, one is made."""
    version = {"If-Match": f'"{me(api, api.ada)["version"]}"'}
    names = iter(range(10))

    def change() -> int:
        return api.patch("/users/me", api.ada, {"name": f"Ada of {next(names)}"}, headers=version).status

    expect("PATCH with one If-Match, ten at once", [200] + [412] * 9, sorted(times(10, change)))


@check
def a_new_address_needs_the_password(api: Client) -> None:
    """One's own e-mail changes only with `currentPassword`: absent 422, wrong 401 `credentials`."""
    person = api.sign_up("Mover")
    moved = {"email": api.address("Moved")}
    expect_wrong(api.patch("/users/me", person, moved), "currentPassword")
    expect_reason(api.patch("/users/me", person, moved | {"currentPassword": "wrong one"}), "credentials")
    expect("the e-mail", person.email, me(api, person)["email"])
    expect_data(api.patch("/users/me", person, moved | {"currentPassword": PASSWORD}))
    expect("the e-mail", moved["email"], me(api, person)["email"])


@check_each({"roles": {"roles": ["admin", "user"]}, "active": {"active": True},
             "beside a name": {"name": "x", "roles": ["user"]}})  # fmt: skip
def mass_assignment(api: Client, change: dict[str, Any]) -> None:
    """A user's PATCH of the own profile with `roles` or `active` is 403, and nothing changes."""
    before = me(api, api.grace)
    expect_error(api.patch("/users/me", api.grace, change), 403, "FORBIDDEN")
    expect("the user", before, me(api, api.grace))


@check
def a_new_role_applies_at_once(api: Client) -> None:
    """A role change takes effect on the very next request, with the token that the user has."""
    path = f"/users/{api.grace.id}"
    expect_error(api.get("/users", api.grace), 403, "FORBIDDEN")
    expect_data(api.patch(path, api.admin, {"roles": ["admin", "user"]}))
    expect_data(api.get("/users", api.grace))
    expect_data(api.patch(path, api.admin, {"roles": ["user"]}))
    expect_error(api.get("/users", api.grace), 403, "FORBIDDEN")


@check
def a_deactivated_user(api: Client) -> None:
    """Deactivation takes effect on the very next request; the right password is then 401 `credentials`."""
    admin, person = api.admin, api.sign_up("Idle")
    expect_data(api.patch(f"/users/{person.id}", admin, {"active": False}))
    expect_reason(api.get("/users/me", person), "revoked")
    expect_reason(api.post("/auth/refresh", json_={"refreshToken": person.refresh}), "revoked")
    expect_reason(api.post("/auth/login", json_={"email": person.email, "password": PASSWORD}), "credentials")


@check
def a_deleted_user(api: Client) -> None:
    """DELETE deactivates and anonymises: an admin's GET is 200 with `active: false`, the address may be registered
    again, DELETE again is 204."""
    admin, person = api.admin, api.sign_up("Gone")
    path = f"/users/{person.id}"
    expect_error(api.delete(path, admin, headers=STALE), 412, "PRECONDITION_FAILED")
    for _ in range(2):
        expect_data(api.delete(path, admin), 204)
    gone = expect_data(api.get(path, admin))
    expect("active, and the old e-mail", (False, False), (gone["active"], gone["email"] == person.email))
    expect_data(api.post("/users", json_={"email": person.email, "password": PASSWORD, "name": "Gone"}), 201)


@check
def the_list_of_users(api: Client) -> None:
    """GET `/users` takes `q` (part of e-mail or name, any case, literal), `role` and `sort`."""
    found = expect_data(api.get(f"/users?q={api.ada.email.upper()}", api.admin))
    expect("the users found", [api.ada.id], [user["id"] for user in found])
    expect("users named %", [], expect_data(api.get(f"/users?q=%25{api.run}", api.admin)))
    admins = expect_data(api.get("/users?role=admin&pageSize=100", api.admin))
    expect("all are admins", True, all("admin" in user["roles"] for user in admins))
    expect_wrong(api.get("/users?role=king", api.admin), "role")
    expect_wrong(api.get("/users?sort=name", api.admin), "sort")


@check
def users_with_their_orders(api: Client) -> None:
    """`include=orders` gives each user's newest orders with their items."""
    product = api.product()
    body = {"accountId": api.account(api.ada, 1000), "items": [{"productId": product["id"], "quantity": 2}]}
    order = expect_data(api.post("/orders", api.ada, body), 201)
    [user] = expect_data(api.get(f"/users?q={api.ada.email}&include=orders", api.admin))
    expect("the newest order", order, user["orders"][0])
