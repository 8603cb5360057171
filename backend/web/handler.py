"""The handler wrapper: everything between a matched route and its handler, in the promised order.

    token → role → `{id}` → headers and body → query → handler → envelope

A handler is a method marked with `@responds`. The names of its parameters say what it needs: `resource` (what its
class's `find` returns for the path's `{id}`), `query` and `body` (schemas), `idempotent` (for routes that take an
Idempotency-Key). It returns a noun, a Page, an IdempotentResult, None for 204, or a ready Response.

`openapi/document.py` writes the documentation from the same facts. The operation's id is the method's name in
camelCase, so no two handlers share a name.
"""

import hashlib
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar, get_type_hints

from backend.domain import IdempotentRequest, IdempotentResult
from backend.errors import AppError, Forbidden, NotFound
from backend.infrastructure.ids import is_id
from backend.web.envelope import data_response, to_json
from backend.web.pagination import Page
from backend.web.request import Request
from backend.web.response import JSON, Response
from backend.web.router import PARAMETER, Access, Endpoint, Route
from backend.web.schemas import read_body, read_query

Handler = TypeVar("Handler", bound=Callable[..., Any])


@dataclass(frozen=True)
class Contract:
    """What a handler answers when all is well, and which errors of its own it may raise."""

    status: int
    errors: tuple[type[AppError], ...]
    location: str  # the collection under whose path the made thing stands
    etag: bool
    public: bool  # may be kept by caches that ask again
    media: str  # the content type


@dataclass(frozen=True)
class Empty:
    """The shape of no body and of no query."""


@dataclass(frozen=True)
class Signature:
    """What a handler wants, read off its annotations once."""

    resource: bool
    idempotent: bool
    query: Any  # a shape
    body: Any  # a shape, or None
    returns: Any
    wants_query: bool


def responds(
    status: int, *errors: type[AppError], location: str = "", etag: bool = False, public: bool = False,
    media: str = JSON,
) -> Callable[[Handler], Handler]:  # fmt: skip
    """Mark a handler with its contract."""

    def mark(handler: Handler) -> Handler:
        handler.contract = Contract(status, errors, location, etag, public, media)  # type: ignore[attr-defined]  # for contract_of
        return handler

    return mark


def contract_of(route: Route) -> Contract:
    return route.handler.contract  # type: ignore[attr-defined, no-any-return]  # set by @responds


def is_validated(route: Route) -> bool:
    """Whether a client may keep the route's answer and ask again with `If-None-Match`.

    An ETag is a version: it identifies a state of one resource. Without `{id}` the URL may mean another resource for
    each caller, with the same version.
    """
    return contract_of(route).etag and PARAMETER in route.path


def signature_of(route: Route) -> Signature:
    names = inspect.signature(route.handler).parameters
    hints = get_type_hints(route.handler)
    return Signature(
        "resource" in names, "idempotent" in names, hints.get("query", Empty), hints.get("body"), hints.get("return"),
        "query" in names,
    )  # fmt: skip


def endpoint(route: Route) -> Endpoint:
    """Wrap the route's handler. Raises at start-up for a handler without contract or a route without access."""
    contract, wants, handler = contract_of(route), signature_of(route), route.handler
    validated = is_validated(route)
    if not isinstance(route.access, Access):
        raise TypeError(f"{route.method} {route.path} does not say who may call it")
    find = getattr(handler, "__self__", None)
    changes = route.method != "GET"
    no_query = wants.query()  # the defaults; frozen, so one is enough

    def call(request: Request) -> Response:
        _authorise(request, route.access)
        arguments: dict[str, Any] = {}
        if wants.resource:
            arguments["resource"] = find.find(request, _id(request))  # type: ignore[union-attr]  # by convention
        sent = None
        if changes:
            sent = request.json_body() if wants.body else request.no_body()
            _check_admin_fields(request, wants.body, sent)
        if wants.idempotent:
            arguments["idempotent"] = _idempotent(request)
        given = request.query_parameters()
        query = read_query(wants.query, given) if given else no_query
        if changes:
            body = read_body(wants.body or Empty, sent)
            if wants.body:
                arguments["body"] = body
        if wants.wants_query:
            arguments["query"] = query
        return _answer(request, contract, validated, handler(request, **arguments))

    return Endpoint(route, call)


def _authorise(request: Request, access: Access) -> None:
    """Refuse a bad token, on public routes too, then a caller without the access that the route asks for.

    A caller admitted by the admin role is marked, so that the service can look for the role again when it writes.
    """
    if request.auth_error is not None:
        raise request.auth_error
    if access is Access.ANYONE:
        return
    caller = request.user
    if access is Access.ADMIN or (access is Access.SELF_OR_ADMIN and request.path_id != caller.user.id):
        if not caller.is_admin:
            raise Forbidden
        request.caller = replace(caller, as_admin=True)


def _check_admin_fields(request: Request, shape: Any, sent: Any) -> None:
    """Raise Forbidden if others than admins send a field of the shape's `admin_only`, whatever its value."""
    fields = getattr(shape, "admin_only", ())
    if fields and not request.user.is_admin and isinstance(sent, dict) and not sent.keys().isdisjoint(fields):
        raise Forbidden


def _id(request: Request) -> str:
    if not is_id(request.path_id):
        raise NotFound
    return request.path_id


def _idempotent(request: Request) -> IdempotentRequest:
    what = hashlib.sha256(f"{request.method} {request.path}\n".encode() + request.raw_body())
    return IdempotentRequest(request.idempotency_key(), what.digest(), to_json)


def _answer(request: Request, contract: Contract, validated: bool, result: Any) -> Response:
    if isinstance(result, Response):
        return result
    if contract.status == 204:
        return Response(204)
    unchanged = validated and request.method in ("GET", "HEAD") and request.is_known_version(result.version)
    response = Response(304) if unchanged else _enveloped(request, contract, result)
    if contract.etag:
        response.headers.append(("ETag", f'"{result.version}"'))
    if validated:
        response.cache_control = "private, no-cache"
    if contract.public:
        response.cache_control = "no-cache"
    return response


def _enveloped(request: Request, contract: Contract, result: Any) -> Response:
    if isinstance(result, Page):
        response = data_response(200, to_json(result.items), request.id, {"pagination": result.pagination})
        if result.link:
            response.headers.append(("Link", result.link))
        return response
    attempted = isinstance(result, IdempotentResult)
    data = result.encoded if attempted else to_json(result)
    response = data_response(contract.status, data, request.id)
    if contract.location:
        made = json.loads(data)["id"] if attempted else result.id
        response.headers.append(("Location", f"{contract.location}/{made}"))
    if attempted and result.replayed:
        response.headers.append(("Idempotency-Replayed", "true"))
    return response
