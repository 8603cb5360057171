"""`/openapi.json`: OpenAPI 3.1, written from the same route table and dataclasses that serve and validate."""

from collections.abc import Sequence
from dataclasses import fields
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from werkzeug.wrappers import Response

from backend import errors
from backend.domain import Once, Timestamp
from backend.errors import AppError
from backend.web.fields import Schema
from backend.web.handler import Empty, contract_of, signature_of
from backend.web.pagination import OffsetQuery, Page
from backend.web.rate_limits import UNLIMITED
from backend.web.router import Access, Route
from backend.web.shapes import Nested, camel_case, fields_of

ALWAYS: list[type[AppError]] = [
    errors.BadRequest, errors.RequestTimeout, errors.LengthRequired, errors.PayloadTooLarge, errors.UriTooLong,
    errors.HeadersTooLarge, errors.InternalError,
]  # fmt: skip
JSON_TYPES: dict[Any, Schema] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    Timestamp: {"type": "string", "format": "date-time"},
}


def openapi_document(routes: Sequence[Route]) -> dict[str, Any]:
    """The whole document, as plain data."""
    schemas: dict[str, Schema] = {"Error": _error_schema(), "Meta": _meta_schema()}
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Reference backend", "version": "1.0.0",
            "description": "Every answer is an envelope: `data` or `error`, and `meta`. HEAD answers as GET, without "
            "the body; OPTIONS answers 204 with `Allow`.",
        },
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }  # fmt: skip


def errors_of(route: Route) -> list[type[AppError]]:
    """Every error that a route can answer: its own, and those that its declarations bring along."""
    wants, found = signature_of(route), [*ALWAYS, *contract_of(route).errors]
    found += [errors.Unauthorized]  # a bad token is refused on public routes too
    if route.access in (Access.ADMIN, Access.SELF_OR_ADMIN):
        found.append(errors.Forbidden)
    if wants.found:
        found.append(errors.NotFound)
    if route.method != "GET":
        found += [errors.MalformedJson, errors.UnsupportedMediaType]
    if route.path not in UNLIMITED:
        found.append(errors.RateLimited)
    found += [errors.ValidationFailed, errors.Unavailable]
    return sorted(set(found), key=lambda error: (error.status, error.code))


def _operation(route: Route, schemas: dict[str, Schema]) -> dict[str, Any]:
    contract, wants = contract_of(route), signature_of(route)
    operation: dict[str, Any] = {
        "operationId": f"{route.handler.__self__.__class__.__name__}.{route.handler.__name__}",  # type: ignore[attr-defined]
        "summary": (route.handler.__doc__ or "").strip(),
        "description": f"Who may: {route.access.value}.",
        "security": [{}, {"bearer": []}] if route.access is Access.ANYONE else [{"bearer": []}],
        "parameters": _parameters(route),
        "responses": {str(contract.status): _success(route, schemas)},
    }
    if wants.body not in (None, Empty):
        content = {"application/json": {"schema": Nested(wants.body).schema()}}
        operation["requestBody"] = {"required": True, "content": content}
    if contract.etag and route.method == "GET":
        operation["responses"]["304"] = {"description": "Not modified", "headers": _headers("ETag")}
    for error in errors_of(route):
        _add_error(operation["responses"], error)
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    contract, wants = contract_of(route), signature_of(route)
    found = [_parameter("X-Request-ID", "header", {"type": "string", "pattern": "^[A-Za-z0-9._-]{8,64}$"})]
    if "{id}" in route.path:
        found.append({**_parameter("id", "path", {"type": "string", "format": "uuid"}), "required": True})
    for field in fields_of(wants.query):
        found.append({**_parameter(field.name, "query", field.rule.schema()), "required": field.required})
    if wants.attempt:
        key = {"type": "string", "minLength": 1, "maxLength": 255}
        found.append(_parameter("Idempotency-Key", "header", key))
    if contract.etag and route.method == "GET":
        found.append(_parameter("If-None-Match", "header", {"type": "string"}))
    if errors.PreconditionFailed in contract.errors:
        found.append(_parameter("If-Match", "header", {"type": "string"}))
    return found


def _parameter(name: str, place: str, schema: Schema) -> dict[str, Any]:
    return {"name": name, "in": place, "schema": schema}


def _success(route: Route, schemas: dict[str, Schema]) -> dict[str, Any]:
    contract, wants = contract_of(route), signature_of(route)
    names = ["X-Request-ID", *(["ETag"] if contract.etag else []), *(["Location"] if contract.location else [])]
    if wants.attempt:
        names.append("Idempotency-Replayed")
    if route.path not in UNLIMITED:
        names += ["RateLimit-Policy", "RateLimit"]
    meta: Schema = {"$ref": "#/components/schemas/Meta"}
    if get_origin(wants.returns) is Page:
        names.append("Link")
        meta = {"allOf": [meta, {"type": "object", "properties": {"pagination": _pagination_schema(wants.query)}}]}
    answer: dict[str, Any] = {"description": (route.handler.__doc__ or "").strip(), "headers": _headers(*names)}
    if contract.status != 204:
        data = {"type": "object"} if wants.returns is Response else _schema_of(wants.returns, schemas)
        envelope = {"type": "object", "properties": {"data": data, "meta": meta}, "required": ["data", "meta"]}
        schema = data if wants.returns is Response else envelope
        answer["content"] = {"application/json": {"schema": schema}}
    return answer


def _add_error(responses: dict[str, Any], error: type[AppError]) -> None:
    """Errors of one status share a response, which lists their codes."""
    response = responses.setdefault(
        str(error.status),
        {
            "description": error.message,
            "headers": _headers("X-Request-ID"),
            "content": {"application/json": {"schema": _error_envelope([])}},
        },
    )
    codes = response["content"]["application/json"]["schema"]["properties"]["error"]["allOf"][1]["properties"]["code"]
    codes["enum"] = sorted({*codes["enum"], error.code})


def _error_envelope(codes: list[str]) -> Schema:
    error = {
        "allOf": [
            {"$ref": "#/components/schemas/Error"},
            {"type": "object", "properties": {"code": {"type": "string", "enum": codes}}},
        ]
    }
    meta = {"$ref": "#/components/schemas/Meta"}
    return {"type": "object", "properties": {"error": error, "meta": meta}, "required": ["error", "meta"]}


def _error_schema() -> Schema:
    text = {"type": "string"}
    properties = {"code": text, "message": text, "details": {"type": "object", "additionalProperties": text}}
    return {"type": "object", "properties": properties, "required": ["code", "message"]}


def _meta_schema() -> Schema:
    properties = {"requestId": {"type": "string"}, "timestamp": {"type": "string", "format": "date-time"}}
    return {"type": "object", "properties": properties, "required": ["requestId", "timestamp"]}


def _pagination_schema(query: type[Any]) -> Schema:
    number = {"type": "integer"}
    if issubclass(query, OffsetQuery):
        return {"type": "object", "properties": dict.fromkeys(("page", "pageSize", "total", "totalPages"), number)}
    return {"type": "object", "properties": {"limit": number, "nextCursor": {"type": ["string", "null"]}}}


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"schema": {"type": "string"}} for name in names}


def _schema_of(hint: Any, schemas: dict[str, Schema]) -> Schema:
    """The JSON Schema of a noun of the domain; dataclasses are named once, in `schemas`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in JSON_TYPES:
        return JSON_TYPES[hint]
    if origin is Literal:
        return {"type": "string", "enum": list(arguments)}
    if origin in (Union, UnionType):
        return {"anyOf": [_schema_of(option, schemas) for option in arguments]}
    if origin is Once:
        return _schema_of(arguments[0], schemas)
    if origin is not None:  # a Page, a tuple or a Sequence
        return {"type": "array", "items": _schema_of(arguments[0], schemas)}
    if hint.__name__ not in schemas:
        schemas[hint.__name__] = {}  # before its fields: a noun may name itself
        hints = get_type_hints(hint)
        properties = {camel_case(field.name): _schema_of(hints[field.name], schemas) for field in fields(hint)}
        schemas[hint.__name__] = {"type": "object", "properties": properties, "required": list(properties)}
    return {"$ref": f"#/components/schemas/{hint.__name__}"}
