"""Routing: paths match exactly; 404 and 405; HEAD and OPTIONS on every path."""

import re

import pytest

from backend.errors import MethodNotAllowed, NotFound
from backend.web.handler import endpoint, responds
from backend.web.router import ANYONE, USER, Endpoint, Route, Router

ABSENT = "01900000-0000-7000-8000-000000000000"


@pytest.mark.parametrize(
    "path",
    ["//api/v1/products/", "//api/v1//products", "//api//v1/products", "//api/v1/products//", "//api/v1/products/.",
     "//api/v1/./products", "//api/v1/x/../products", "//api/v1/Products", "//API/v1/products",
     "//api/v1/products;v=1", "//api/v1/products%20", "//api/v1/products%00", "//api/v1/products%0A",
     "//api/v1/product", "//api/v1/productsx", "//api/v1", "//api/v1/", "//", "//products", "//healthz/",
     "//healthz/x", "//Healthz", "//api/v2/products", f"//api/v1/products/{ABSENT}/", f"//api/v1/products/{ABSENT}/x",
     f"//api/v1/orders/{ABSENT}/cancel/", "//api/v1/orders//cancel", "//api/v1/auth", "//api/v1/auth/",
     "//api/v1/prod%C3%BCcts", "//api/v1/%FF", "//*", "//api/v1/prоducts"],
)  # fmt: skip
def test_a_path_that_is_not_exactly_a_route_is_not_found(api, admin, path):
    """No redirect either."""
    answer = api.get(path, admin)
    assert (answer.status_code, answer.json["error"]["code"]) == (404, "NOT_FOUND")
    assert "Location" not in answer.headers


@pytest.mark.parametrize(
    "raw",
    ["/api/v1%2Fproducts", "/api%2fv1/products", "%2Fapi/v1/products", "api%2Fv1%2Fproducts", "/%2Fapi/v1/products",
     "/api/v1/products%2F", "/%2Fhealthz", "/healthz%2f",
     f"/api/v1/orders/{ABSENT}%2Fcancel", f"/api/v1/products%2F{ABSENT}"],
)  # fmt: skip
def test_an_encoded_slash_separates_no_segments(api, admin, raw):
    """`%2F` is a character of a segment, and no route has it in one. A query may contain it."""
    decoded = {"PATH_INFO": raw.replace("%2F", "/").replace("%2f", "/"), "RAW_URI": raw, "REQUEST_URI": raw}
    assert api.get("//healthz", admin, environ_overrides=decoded).status_code == 404
    assert api.get("/products?cursor=%2F").status_code == 422


@pytest.mark.parametrize("raw", ["//api/v1/products", "///healthz", "//healthz", "///api/v1/products"])
@pytest.mark.parametrize("dropped_by_the_server", [False, True])
def test_leading_slashes_are_not_dropped(api, raw, dropped_by_the_server):
    """Werkzeug's request drops all but one of them, and so do some servers from `PATH_INFO`."""
    path = f"/{raw.lstrip('/')}" if dropped_by_the_server else raw
    assert api.get("//healthz", environ_overrides={"PATH_INFO": path, "RAW_URI": raw}).status_code == 404


@pytest.mark.parametrize("path", ["healthz", "x/healthz", "api/v1/products", ""])
def test_a_path_starts_with_a_slash(api, path):
    assert api.get("//healthz", environ_overrides={"PATH_INFO": path, "RAW_URI": path}).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("PUT", "/users", "GET, HEAD, OPTIONS, POST"),
     ("DELETE", "/products", "GET, HEAD, OPTIONS, POST"),
     ("GET", "/auth/login", "OPTIONS, POST"),
     ("HEAD", "/auth/login", "OPTIONS, POST"),
     ("DELETE", "/users/me", "GET, HEAD, OPTIONS, PATCH"),
     ("POST", f"/users/{ABSENT}", "DELETE, GET, HEAD, OPTIONS, PATCH"),
     ("GET", f"/auth/sessions/{ABSENT}", "DELETE, OPTIONS"),
     ("TRACE", "//healthz", "GET, HEAD, OPTIONS"),
     ("CONNECT", "//healthz", "GET, HEAD, OPTIONS"),
     ("BREW", "//openapi.json", "GET, HEAD, OPTIONS")],
)  # fmt: skip
def test_another_method_is_not_allowed_and_the_sorted_list_says_which_are(api, method, path, allow):
    answer = api(method, path)
    assert (answer.status_code, answer.headers.getlist("Allow")) == (405, [allow])
    if method != "HEAD":
        assert answer.json["error"]["code"] == "METHOD_NOT_ALLOWED"


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_nothing_but_the_request_line_names_the_method(api, admin, ada, header):
    """A proxy that forbids DELETE reads no header; the same holds for the path."""
    elsewhere = {header: "DELETE", "X-Original-URL": "/api/v1/users", "X-Rewrite-URL": "/api/v1/users"}
    assert (
        api.post(f"/users/{ada.id}?_method=DELETE", admin, {"_method": "DELETE"}, headers=elsewhere).status_code == 405
    )
    assert api.get(f"/users/{ada.id}", admin, headers=elsewhere).json["data"]["active"]


def test_options_answers_204_with_the_methods_on_every_path(api):
    """Without a token, whatever the id; the same list as a 405 gives."""
    for path in {route.path for route in api.app.routes}:
        options, refused = api("OPTIONS", f"/{path}"), api("BREW", f"/{path}")
        assert (options.status_code, options.data) == (204, b"")
        assert "Content-Type" not in options.headers
        methods = {route.method for route in api.app.routes if route.path == path} | {"OPTIONS"}
        expected = ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
        assert options.headers.getlist("Allow") == refused.headers.getlist("Allow") == [expected]


def test_options_of_the_server_as_a_whole_names_every_method(api):
    """`OPTIONS *` (RFC 9110 §9.3.7). `*` is not a path, and `/*` is not a route."""
    star = {"environ_overrides": {"PATH_INFO": "*"}}
    options = api("OPTIONS", "/", headers={"Authorization": "Bearer bad"}, **star)
    assert (options.status_code, options.data) == (204, b"")
    assert options.headers.getlist("Allow") == ["DELETE, GET, HEAD, OPTIONS, PATCH, POST"]
    assert [api("OPTIONS", "//*").status_code, api("GET", "/", **star).status_code] == [404, 404]


@pytest.mark.parametrize("path", ["/nowhere", "/users", "/users/garbage", f"/products/{ABSENT}", "/products?limit=0"])
def test_head_of_a_refused_request_has_no_body_either(api, path):
    get, head = api.get(path, headers={"X-Request-ID": "the-same-id"}), None
    head = api("HEAD", path, headers={"X-Request-ID": "the-same-id"})
    assert (head.status_code, head.data, head.headers) == (get.status_code, b"", get.headers)


def test_a_static_segment_goes_before_an_id(api, ada):
    """`/users/me` is the caller, not a user whose id is "me"."""
    assert api.get("/users/me", ada).json["data"]["id"] == ada.id


def router_of(*routes):
    """A router of `(method, path)` pairs."""
    return Router(Endpoint(Route(method, path, print, ANYONE), print) for method, path in routes)


def test_the_order_of_the_table_does_not_matter():
    """Static before `{id}`, whichever was added first; and an id is whatever stands in its segment."""
    routes = [("GET", path) for path in ("/things/{id}", "/things/new", "/things/{id}/parts", "/things")]
    for table in (routes, routes[::-1]):
        router = router_of(*table)
        found = {path: router.find("GET", path) for path in ("/things/new", "/things/7", "/things/x y/parts")}
        assert [(at.route.path, value) for at, value in found.values()] == [
            ("/things/new", ""), ("/things/{id}", "7"), ("/things/{id}/parts", "x y"),
        ]  # fmt: skip


@pytest.mark.parametrize("path", ["", "/", "things", "/things/", "/things//parts", "/things/7/parts/", "/things/7/8"])
def test_the_router_finds_only_its_routes(path):
    router = router_of(("GET", "/things/{id}"), ("GET", "/things/{id}/parts"), ("GET", "/things"))
    with pytest.raises(NotFound):
        router.find("GET", path)
    with pytest.raises(NotFound):
        router.allowed(path)


def test_a_405_names_the_methods_of_the_path():
    router = router_of(("PATCH", "/things/{id}"), ("DELETE", "/things/{id}"))
    with pytest.raises(MethodNotAllowed) as refused:
        router.find("GET", "/things/7")
    assert refused.value.headers == {"Allow": "DELETE, OPTIONS, PATCH"}


class ThingRoutes:
    """Handlers of a made-up resource."""

    def find(self, request, thing_id):
        return thing_id

    @responds(204)
    def delete_thing(self, request, resource):
        """Delete it."""

    @responds(204)
    def delete_things(self, request):
        """Delete all."""

    @responds(204)
    def mistaken(self, request, thing):
        """Ask for what no route has."""

    def unmarked(self, request):
        """Promise nothing."""


THINGS = ThingRoutes()


@pytest.mark.parametrize(
    ("path", "handler", "access", "find", "advice"),
    [("/things", THINGS.delete_things, None, None, "declare its access"),
     ("/things", THINGS.delete_things, "anyone", None, "declare its access"),
     ("/things", THINGS.unmarked, USER, None, "mark its handler with @responds"),
     ("/things", THINGS.mistaken, USER, None, "its handler may take body, idempotent, query, request, resource"),
     ("/things", THINGS.delete_thing, USER, None, "belong together"),
     ("/things", THINGS.delete_thing, USER, THINGS.find, "belong together"),
     ("/things", THINGS.delete_things, USER, THINGS.find, "belong together"),
     ("/things/{id}", THINGS.delete_thing, USER, None, "belong together"),
     ("/things/{id}", THINGS.delete_things, USER, THINGS.find, "belong together"),
     ("/things/{id}", THINGS.delete_things, USER, None, "belong together")],
)  # fmt: skip
def test_an_incomplete_route_does_not_start(path, handler, access, find, advice):
    """The error names the route, and what to do."""
    with pytest.raises(TypeError, match=f"DELETE {re.escape(path)}: .*{advice}"):
        endpoint(Route("DELETE", path, handler, access, find))


def test_a_complete_route_starts():
    endpoint(Route("DELETE", "/things", THINGS.delete_things, USER))
    endpoint(Route("DELETE", "/things/{id}", THINGS.delete_thing, USER, THINGS.find))


def test_a_route_cannot_be_made_without_access():
    with pytest.raises(TypeError, match="access"):
        Route("GET", "/things", print)


def test_two_routes_for_one_path_do_not_start():
    with pytest.raises(ValueError, match="two routes"):
        router_of(("GET", "/things/{id}"), ("GET", "/things/{id}"))
