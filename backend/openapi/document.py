"""`/openapi.json`: OpenAPI 3.1, generated from the route table and the dataclasses that validate.

What operations share is under `components`: headers, parameters, a response for each set of errors of one status, and
every schema with a `title` (nouns, bodies, long enumerations).
"""

from collections.abc import Sequence
from http import HTTPStatus
from itertools import groupby
from typing import Any, get_origin

from backend import __version__, errors
from backend.errors import AppError
from backend.infrastructure.json_encoder import camel_case
from backend.openapi.response_schemas import ERROR, META, NUMBER, STRING, named, object_of, reference, schema_of
from backend.openapi.texts import HEADERS, INFO, PARAMETERS, TAGS
from backend.web.constraints import Schema
from backend.web.handler import Contract, Empty, contract_of, is_revalidated
from backend.web.pagination import OffsetQuery, Page
from backend.web.rate_limits import UNLIMITED
from backend.web.response import JSON, Response
from backend.web.router import Access, Route
from backend.web.schemas import Nested, field_schema, fields_of

Errors = tuple[type[AppError], ...]  # of one route, or of one status, sorted by status and code

# Errors of every route. The server also refuses a truncated body that the route would not read.
ALWAYS: Errors = (
    errors.BadRequest, errors.MalformedJson, errors.Unauthorized, errors.RequestTimeout, errors.LengthRequired,
    errors.PayloadTooLarge, errors.UriTooLong, errors.ValidationFailed, errors.HeadersTooLarge, errors.InternalError,
    errors.Unavailable,
)  # fmt: skip
ERROR_HEADERS = {401: ["WWW-Authenticate"], 415: ["Accept"], 429: ["Retry-After"], 503: ["Retry-After"]}
BEFORE_LIMITS = {408, 411, 413, 414, 431}
LIMITS = ["RateLimit-Policy", "RateLimit"]


def openapi_document(routes: Sequence[Route]) -> dict[str, Any]:
    """The whole document, as plain data."""
    paths: dict[str, Any] = {}
    groups: dict[str, Errors] = {}
    schemas: dict[str, Schema] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
        groups |= {_name(group): group for group in _errors_by_status(route)}
    answers = {name: _error_answer(group) for name, group in sorted(groups.items(), key=lambda item: item[1][0].status)}
    return {
        "openapi": "3.1.0",
        "info": {**INFO, "version": __version__},
        "servers": [{"url": "/", "description": "The server that sent this document."}],
        "tags": [{"name": tag, "description": TAGS.get(tag, "")} for tag in dict.fromkeys(map(_tag, routes))],
        "paths": named(paths, schemas),
        "components": {
            "responses": named(answers, schemas),
            "schemas": schemas,
            "parameters": PARAMETERS,
            "headers": HEADERS,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def errors_of(route: Route) -> Errors:
    """Every error of a route: its own, and those that follow from its declarations."""
    found = {*ALWAYS, *contract_of(route).errors}
    if route.access in (Access.ADMIN, Access.SELF_OR_ADMIN):
        found.add(errors.Forbidden)
    if route.find is not None:
        found.add(errors.NotFound)
    if route.method != "GET":
        found.add(errors.UnsupportedMediaType)
    if route.path not in UNLIMITED:
        found.add(errors.RateLimited)
    return tuple(sorted(found, key=lambda error: (error.status, error.code)))


def _errors_by_status(route: Route) -> list[Errors]:
    return [tuple(group) for _, group in groupby(errors_of(route), key=lambda error: error.status)]


def _name(group: Errors) -> str:
    return "Or".join(error.__name__ for error in group)


def _tag(route: Route) -> str:
    """The collection in the path, such as `users`; `docs` and `service` for what is not below `/api/v1`."""
    if route.path.startswith("/api/"):
        return route.path.split("/")[3]
    return "docs" if route.path.startswith("/docs") else "service"


def _operation(route: Route) -> dict[str, Any]:
    contract = contract_of(route)
    operation: dict[str, Any] = {
        "operationId": camel_case(route.handler.__name__),
        "tags": [_tag(route)],
        "summary": route.handler.__doc__,
        "description": f"Access: {route.access.value}.",
        "security": [{}, {"bearer": []}] if route.access is Access.ANYONE else [{"bearer": []}],
        "parameters": _parameters(route, contract),
        "responses": {str(contract.status): _success(route, contract)},
    }
    if (body := contract.takes.body) is not Empty:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": Nested(body).schema()}}}
    if is_revalidated(route) and route.method == "GET":
        operation["responses"]["304"] = {"description": "Not modified.", "headers": _headers("ETag", *_limits(route))}
    for group in _errors_by_status(route):
        operation["responses"][str(group[0].status)] = reference("responses", _name(group))
    return operation


def _parameters(route: Route, contract: Contract) -> list[dict[str, Any]]:
    conditional = errors.PreconditionFailed in contract.errors
    shared = {
        "id": "{id}" in route.path,
        "X-Request-ID": True,
        "Idempotency-Key": "idempotent" in contract.takes.parameters,
        "If-None-Match": is_revalidated(route) or ("{id}" in route.path and conditional),
        "If-Match": conditional,
    }
    own = [
        {"name": field.name, "in": "query", "required": field.required, "schema": field_schema(field)}
        for field in fields_of(contract.takes.query)
    ]
    return [reference("parameters", name) for name, wanted in shared.items() if wanted] + own


def _success(route: Route, contract: Contract) -> dict[str, Any]:
    returns, paged = contract.takes.returns, get_origin(contract.takes.returns) is Page
    special = {
        "ETag": contract.etag,
        "Location": contract.location,
        "Link": paged,
        "Idempotency-Replayed": "idempotent" in contract.takes.parameters,
    }
    headers = _headers(*(name for name, wanted in special.items() if wanted), *_limits(route))
    answer: dict[str, Any] = {"description": HTTPStatus(contract.status).phrase, "headers": headers}
    if contract.status == 204:
        return answer
    if returns is Response:
        schema: Schema = {"type": "object"} if contract.media == JSON else STRING
    else:
        schema = object_of({"data": schema_of(returns), "meta": _page_meta(contract.takes.query) if paged else META})
    return {**answer, "content": {contract.media: {"schema": schema}}}


def _page_meta(query: type[Any]) -> Schema:
    if issubclass(query, OffsetQuery):
        kind, pagination = "OffsetMeta", dict.fromkeys(("page", "pageSize", "total", "totalPages"), NUMBER)
    else:
        kind, pagination = "CursorMeta", {"limit": NUMBER, "nextCursor": {"type": ["string", "null"]}}
    return object_of(META["properties"] | {"pagination": object_of(pagination)}, title=kind)


def _error_answer(group: Errors) -> dict[str, Any]:
    """One response for a group of errors that have the same status."""
    status = group[0].status
    texts = [f"`{error.code}`: {error.message} {vars(error).get('__doc__') or ''}".strip() for error in group]
    error = {"allOf": [ERROR], "properties": {"code": {"enum": [error.code for error in group]}}}
    schema = object_of({"error": error, "meta": META})
    headers = _headers(*ERROR_HEADERS.get(status, []), *([] if status in BEFORE_LIMITS else LIMITS))
    return {"description": "\n\n".join(texts), "headers": headers, "content": {JSON: {"schema": schema}}}


def _headers(*names: str) -> dict[str, Any]:
    return {name: reference("headers", name) for name in ("X-Request-ID", *names)}


def _limits(route: Route) -> list[str]:
    return [] if route.path in UNLIMITED else LIMITS
