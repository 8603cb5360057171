"""The handler wrapper: everything between a matched route and its handler, in the promised order.

    token → role → `{id}` → headers and body → query → handler → envelope

A handler is a method marked with `@responds`. The names of its parameters say what it needs: `resource` (what the
route's `find` returns for the path's `{id}`), `query` and `body` (schemas), `idempotent` (for routes that take an
Idempotency-Key). It returns a noun, a Page, an IdempotentResult, None for 204, or a ready Response.

`openapi/document.py` writes the documentation from the same facts. The operation's id is the method's name in
camelCase, so each handler's name is unique.
"""

import hashlib
import inspect
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any, TypeVar, get_type_hints

from backend.domain import IdempotentRequest, IdempotentResult
from backend.errors import AppError, Forbidden, NotFound
from backend.infrastructure.ids import is_id
from backend.infrastructure.json_encoder import to_json
from backend.web.pagination import Page
from backend.web.request import Request
from backend.web.response import JSON, Response, envelope
from backend.web.router import PARAMETER, Access, Endpoint, Route
from backend.web.schemas import read_body, read_query

Handler = TypeVar("Handler", bound=Callable[..., Any])
Encode = Callable[[dict[str, Any]], str]
PARAMETERS = {"request", "resource", "idempotent", "query", "body"}  # that a handler may have


@dataclass(frozen=True)
class Empty:
    """The schema of an empty body and of an empty query."""


@dataclass(frozen=True)
class Signature:
    """What a handler takes and returns, read off its annotations once."""

    parameters: AbstractSet[str]
    query: Any  # a schema
    body: Any  # a schema
    returns: Any


@dataclass(frozen=True)
class Contract:
    """What a handler takes, what it answers on success, and which errors of its own it may raise."""

    takes: Signature
    status: int
    errors: tuple[type[AppError], ...]
    location: str  # the collection that a created resource belongs to
    etag: bool
    public: bool  # shared caches may keep the answer, and must revalidate it
    media: str  # the content type


def responds(
    status: int,
    *errors: type[AppError],
    location: str = "",
    etag: bool = False,
    public: bool = False,
    media: str = JSON,
) -> Callable[[Handler], Handler]:
    """Mark a handler with its contract."""

    def mark(handler: Handler) -> Handler:
        contract = Contract(_signature(handler), status, errors, location, etag, public, media)
        handler.contract = contract  # type: ignore[attr-defined]  # for contract_of
        return handler

    return mark


def contract_of(route: Route) -> Contract:
    return route.handler.contract  # type: ignore[attr-defined, no-any-return]  # set by @responds


def _signature(handler: Handler) -> Signature:
    hints = get_type_hints(handler)
    parameters = inspect.signature(handler).parameters.keys() - {"self"}
    return Signature(parameters, hints.get("query", Empty), hints.get("body", Empty), hints.get("return"))


def is_revalidated(route: Route) -> bool:
    """Whether a client may keep the route's answer and revalidate it with `If-None-Match`.

    An ETag is a version: it identifies a state of one resource. Without `{id}`, and unless it is public, the URL may
    mean another resource for each caller, with the same version.
    """
    contract = contract_of(route)
    return contract.etag and (PARAMETER in route.path or contract.public)


def endpoint(route: Route, encode: Encode = to_json) -> Endpoint:
    """Wrap the route's handler; `encode` makes JSON text of the envelope around what it returns.

    Raises TypeError, at start-up, if the route's declarations are incomplete or contradict each other.
    """
    _check_declarations(route)
    contract, revalidated = contract_of(route), is_revalidated(route)
    takes = contract.takes
    writes, no_query = route.method != "GET", takes.query()

    def call(request: Request) -> Response:
        _authorise(request, route.access)
        given: dict[str, Any] = {"request": request}
        if route.find is not None:
            given["resource"] = route.find(request, _id(request))
        sent = _sent(request, takes.body) if writes else None
        if "idempotent" in takes.parameters:
            given["idempotent"] = _idempotent(request)
        sent_query = request.query_parameters()
        given["query"] = read_query(takes.query, sent_query) if sent_query else no_query
        if writes:
            given["body"] = read_body(takes.body, sent)
        result = route.handler(**{name: given[name] for name in takes.parameters})
        return _answer(request, contract, revalidated, encode, result)

    return Endpoint(route, call)


def _check_declarations(route: Route) -> None:
    where = f"{route.method} {route.path}"
    if not isinstance(route.access, Access):
        raise TypeError(f"{where}: declare its access, such as ANYONE or USER")
    if not hasattr(route.handler, "contract"):
        raise TypeError(f"{where}: mark its handler with @responds")
    parameters = contract_of(route).takes.parameters
    if others := parameters - PARAMETERS:
        raise TypeError(f"{where}: its handler may take {', '.join(sorted(PARAMETERS))}, not {', '.join(others)}")
    if not (PARAMETER in route.path) == ("resource" in parameters) == (route.find is not None):
        raise TypeError(f"{where}: {PARAMETER} in the path, `find` and the handler's `resource` belong together")


def _authorise(request: Request, access: Access) -> None:
    """Refuse a bad token, on public routes too, then a caller without the access that the route requires.

    A caller admitted by the admin role is marked, so that the service reads the role again when it writes.
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


def _id(request: Request) -> str:
    if not is_id(request.path_id):
        raise NotFound
    return request.path_id


def _sent(request: Request, schema: Any) -> Any:
    """The parsed JSON of the body.

    Raises Forbidden for a field of the schema's `admin_only`, whatever its value, if the caller is no admin.
    """
    sent = request.no_body() if schema is Empty else request.json_body()
    restricted = getattr(schema, "admin_only", ())
    if restricted and not request.user.is_admin and isinstance(sent, dict) and not sent.keys().isdisjoint(restricted):
        raise Forbidden
    return sent


def _idempotent(request: Request) -> IdempotentRequest:
    what = hashlib.sha256(f"{request.method} {request.path}\n".encode() + request.raw_body())
    return IdempotentRequest(request.idempotency_key(), what.digest())


def _answer(request: Request, contract: Contract, revalidated: bool, encode: Encode, result: Any) -> Response:
    """The response for the handler's result, with the headers that its contract promises."""
    if isinstance(result, Response):
        return result
    if contract.status == 204:
        return Response(204)
    unchanged = revalidated and request.method in ("GET", "HEAD") and request.is_known_version(result.version)
    response = Response(304) if unchanged else _enveloped(request, contract, encode, result)
    if contract.etag:
        response.headers.append(("ETag", f'"{result.version}"'))
    if revalidated:
        response.cache_control = "private, no-cache"
    if contract.public:
        response.cache_control = "no-cache"
    return response


def _enveloped(request: Request, contract: Contract, encode: Encode, result: Any) -> Response:
    resource, meta, headers = result, {}, []
    if isinstance(result, Page):
        resource, meta = result.items, {"pagination": result.pagination}
        headers += [("Link", result.link)] if result.link else []
    if isinstance(result, IdempotentResult):
        resource = result.resource
        headers += [("Idempotency-Replayed", "true")] if result.replayed else []
    if contract.location:
        created = resource["id"] if isinstance(resource, dict) else resource.id
        headers.append(("Location", f"{contract.location}/{created}"))
    response = Response(contract.status, encode(envelope("data", resource, request.id, **meta)).encode())
    response.headers += headers
    return response
