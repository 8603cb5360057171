"""The router: finds the endpoint of a method and path by walking a tree of path segments.

A route's path has static segments and at most one `{id}`. A request's path must match it exactly: no redirects, no
trailing or doubled slashes. A static segment precedes `{id}`, so `/users/me` is not the user whose id is "me".
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from backend.errors import MethodNotAllowed, NotFound
from backend.web.response import Response

PARAMETER = "{id}"
SERVER = "*"  # the target of `OPTIONS *`, which asks about the server as a whole (RFC 9110 §9.3.7)


class Access(Enum):
    """Which callers a route admits. There is no default."""

    ANYONE = "anyone"
    USER = "user"
    SELF_OR_ADMIN = "self or admin"
    ADMIN = "admin"


ANYONE, USER, SELF_OR_ADMIN, ADMIN = Access


@dataclass(frozen=True)
class Route:
    """One row of the URL table.

    `find(request, id)` returns the resource that the path's `{id}` names, or raises NotFound. With `auth_limited` the
    `auth` rate limit counts the route, too.
    """

    method: str
    path: str
    handler: Callable[..., Any]
    access: Access
    find: Callable[[Any, str], Any] | None = None
    auth_limited: bool = False


@dataclass(frozen=True)
class Endpoint:
    """A route and the function that answers its requests."""

    route: Route
    call: Callable[[Any], Response]


@dataclass
class _Node:
    children: dict[str, "_Node"] = field(default_factory=dict)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)  # by method

    def allow(self) -> str:
        methods = {"OPTIONS", *self.endpoints} | ({"HEAD"} if "GET" in self.endpoints else set())
        return ", ".join(sorted(methods))


class Router:
    """Built once and then only read, so thread-safe. Raises ValueError for two routes of one method and path."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._root = _Node()
        self._any = _Node()  # collects the methods of all paths
        for endpoint in endpoints:
            self._add(endpoint)

    def find(self, method: str, path: str) -> tuple[Endpoint, str]:
        """The endpoint and the value of `{id}` ("" if the path has none). Raises NotFound, MethodNotAllowed."""
        node, value = self._walk(path)
        endpoint = node.endpoints.get("GET" if method == "HEAD" else method)
        if endpoint is None:
            raise MethodNotAllowed(node.allow())
        return endpoint, value

    def allowed(self, path: str) -> str:
        """The value of `Allow`: the sorted methods of a path, or of all paths for `*`. Raises NotFound."""
        return self._any.allow() if path == SERVER else self._walk(path)[0].allow()

    def _walk(self, path: str) -> tuple[_Node, str]:
        node, value = self._root, ""
        before, *segments = path.split("/")
        if before:
            raise NotFound("No such route.")
        for segment in segments:
            child = node.children.get(segment)
            if child is None:
                child, value = node.children.get(PARAMETER), segment
            if child is None or not segment:
                raise NotFound("No such route.")
            node = child
        if not node.endpoints:
            raise NotFound("No such route.")
        return node, value

    def _add(self, endpoint: Endpoint) -> None:
        node = self._root
        for segment in endpoint.route.path.split("/")[1:]:
            node = node.children.setdefault(segment, _Node())
        if endpoint.route.method in node.endpoints:
            raise ValueError(f"two routes for {endpoint.route.method} {endpoint.route.path}")
        node.endpoints[endpoint.route.method] = self._any.endpoints[endpoint.route.method] = endpoint
