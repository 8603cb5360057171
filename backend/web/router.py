"""The router: from method and path to an endpoint, by walking a tree of segments.

A path is static segments and at most one `{id}`. It must match exactly: no redirects, no trailing or doubled slashes.
A static segment goes before `{id}`, so `/users/me` is not a user whose id is "me". No regular expression finds a route.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from backend.errors import MethodNotAllowed, NotFound
from backend.web.response import Response

PARAMETER = "{id}"
SERVER = "*"  # the target of an OPTIONS request that asks about the server as a whole (RFC 9110, section 9.3.7)


class Access(Enum):
    """Who may call a route. There is no default: one that declares nothing does not start."""

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
    """A route ready to be called."""

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
    """Built once, then only read: thread-safe."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._root = _Node()
        self._any = _Node()  # has every method, of no path
        for endpoint in endpoints:
            self._add(endpoint)

    def find(self, method: str, path: str) -> tuple[Endpoint, str]:
        """The endpoint and the value of `{id}` ("" if it has none). Raises NotFound, MethodNotAllowed."""
        node, value = self._walk(path)
        endpoint = node.endpoints.get("GET" if method == "HEAD" else method)
        if endpoint is None:
            raise MethodNotAllowed(node.allow())
        return endpoint, value

    def allowed(self, path: str) -> str:
        """The sorted methods of a path, of all paths for `*`, for `Allow`. Raises NotFound."""
        return self._any.allow() if path == SERVER else self._walk(path)[0].allow()

    def _walk(self, path: str) -> tuple[_Node, str]:
        node, value = self._root, ""
        for segment in path.split("/")[1:]:
            child = node.children.get(segment)
            if child is None:
                child, value = node.children.get(PARAMETER), segment
            if child is None or not segment:
                raise NotFound("There is no such route.")
            node = child
        if not node.endpoints:
            raise NotFound("There is no such route.")
        return node, value

    def _add(self, endpoint: Endpoint) -> None:
        node = self._root
        for segment in endpoint.route.path.split("/")[1:]:
            node = node.children.setdefault(segment, _Node())
        if endpoint.route.method in node.endpoints:
            raise ValueError(f"two routes for {endpoint.route.method} {endpoint.route.path}")
        node.endpoints[endpoint.route.method] = self._any.endpoints[endpoint.route.method] = endpoint
