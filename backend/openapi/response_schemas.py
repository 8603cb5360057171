"""JSON Schema of response bodies, made from the types of the nouns. A schema with a `title` becomes a named one."""

from collections.abc import Mapping
from dataclasses import fields
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from backend.domain import IdempotentResult, Timestamp
from backend.infrastructure.json_encoder import camel_case
from backend.web.constraints import Schema

STRING: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer"}
TIME: Schema = {"type": "string", "format": "date-time"}
JSON_TYPES: dict[Any, Schema] = {
    str: STRING,
    int: NUMBER,
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    Timestamp: TIME,
}


def object_of(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, title: str = "") -> Schema:
    """The schema of an object."""
    schema = {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required)}
    return {"title": title, **schema} if title else schema


def schema_of(hint: Any) -> Schema:
    """The schema of a noun, an IdempotentResult of one, or a Page, tuple or sequence of several."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in JSON_TYPES:
        return JSON_TYPES[hint]
    if origin is Literal:
        return {**STRING, "enum": list(arguments)}
    if origin in (Union, UnionType):
        return {"anyOf": [schema_of(option) for option in arguments]}
    if origin is IdempotentResult:
        return schema_of(arguments[0])
    if origin is not None:
        return {"type": "array", "items": schema_of(arguments[0])}
    hints = get_type_hints(hint)
    properties = {camel_case(field.name): schema_of(hints[field.name]) for field in fields(hint)}
    return object_of(properties, title=hint.__name__)


def named(node: Any, schemas: dict[str, Schema]) -> Any:
    """`node` with its titled schemas moved to `schemas` and replaced by references."""
    if isinstance(node, list):
        return [named(entry, schemas) for entry in node]
    if not isinstance(node, dict):
        return node
    node = {key: named(value, schemas) for key, value in node.items()}
    if not isinstance(title := node.get("title"), str):
        return node
    del node["title"]
    if schemas.setdefault(title, node) != node:
        raise ValueError(f"two schemas are named {title}")
    return reference("schemas", title)


def reference(kind: str, name: str) -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}


META = object_of({"requestId": STRING, "timestamp": TIME}, title="Meta")
ERROR = object_of(
    {"code": STRING, "message": STRING},
    optional={"details": {"type": "object", "additionalProperties": STRING}},
    title="Error",
)
