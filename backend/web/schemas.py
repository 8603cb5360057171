"""Schemas: dataclasses whose annotations say what a client may send, as checks and as JSON Schema.

A field with a default may be left out; `Annotated[X | None, …]` may be null. All wrong fields are reported at once. A
schema with rules between fields has a static method `conflicts(values) -> {name: error}`. If its fields' examples
together are no valid request, it has an `example`, with which `/docs` fills its form. `read_body` and `read_query` are
thread-safe and raise ValidationFailed.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

from backend.errors import ValidationFailed
from backend.infrastructure.json_encoder import camel_case
from backend.web.constraints import DIGITS, FieldErrors, Integer, ListOf, Rule, Schema


class Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


S = TypeVar("S", bound=Dataclass)


@dataclass(frozen=True, slots=True)
class Field:
    attribute: str
    name: str  # in camelCase, as clients write it
    rule: Rule
    required: bool
    nullable: bool
    default: Any  # None if there is none, or if it is None


def read_body(schema: type[S], value: object) -> S:
    """The parsed JSON `value` as an instance of `schema`."""
    wrong: FieldErrors = {}
    body = Nested(schema).check(value, "", wrong)
    if wrong:
        raise ValidationFailed(wrong)
    return body  # type: ignore[no-any-return]  # Nested returns an instance of its schema


def read_query(schema: type[S], parameters: list[tuple[str, str]]) -> S:
    """The query `parameters` as an instance of `schema`: each at most once, integers as plain decimal digits."""
    wrong: FieldErrors = {}
    known = {field.name: field for field in fields_of(schema)}
    values: dict[str, Any] = {}
    for name, text in parameters:
        field = known.get(name)
        if field is None:
            wrong[name] = "unknown parameter"
        elif field.attribute in values:
            wrong[name] = "must not be repeated"
        else:
            values[field.attribute] = field.rule.check(_from_text(field.rule, text), name, wrong)
    if wrong:
        raise ValidationFailed(wrong)
    return schema(**values)


def _from_text(rule: Rule, text: str) -> object:
    """`text` as an int if the rule asks for one and it is plain digits; else `text`, which the rule checks."""
    return int(text) if isinstance(rule, Integer) and DIGITS.fullmatch(text) else text


@dataclass(frozen=True)
class Nested:
    """The rule of a field that is itself a schema."""

    of: Any  # a dataclass

    def check(self, value: object, path: str, wrong: FieldErrors) -> Any:
        if not isinstance(value, Mapping):
            wrong[path or "body"] = "must be an object"
            return None
        prefix = f"{path}." if path else ""
        before, values = len(wrong), {}
        known = fields_of(self.of)
        for field in known:
            if field.name in value:
                given = value[field.name]
                if given is not None or not field.nullable:
                    values[field.attribute] = field.rule.check(given, prefix + field.name, wrong)
            elif field.required:
                wrong[prefix + field.name] = "is required"
        for name in value.keys() - {field.name for field in known}:
            wrong[prefix + name] = "unknown field"
        if hasattr(self.of, "conflicts"):
            for name, error in self.of.conflicts(values).items():
                wrong.setdefault(prefix + name, error)
        return self.of(**values) if len(wrong) == before else None

    def schema(self) -> Schema:
        known = fields_of(self.of)
        example = {"examples": [self.of.example]} if hasattr(self.of, "example") else {}
        return {
            **example,
            "title": self.of.__name__,
            "type": "object",
            "properties": {field.name: field_schema(field) for field in known},
            "required": [field.name for field in known if field.required],
            "additionalProperties": False,
        }


def field_schema(field: Field) -> Schema:
    """The JSON Schema of a field, with its default."""
    schema = field.rule.schema()
    if field.nullable:
        schema = {**schema, "type": [schema["type"], "null"]}
    return schema if field.default is None else {**schema, "default": field.default}


@cache
def fields_of(schema: Any) -> tuple[Field, ...]:
    """The fields of a schema, read once. Raises TypeError for a field without a rule."""
    hints = get_type_hints(schema, include_extras=True)
    return tuple(_field(field.name, hints[field.name], field.default) for field in fields(schema))


def _field(attribute: str, hint: Any, default: Any) -> Field:
    """`X | None` says that the field may be left out; `Annotated[X | None, …]` says that it may be null."""
    if get_origin(hint) in (Union, UnionType):
        hint = next(option for option in get_args(hint) if option is not NoneType)
    kind, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    rules = [note for note in notes if hasattr(note, "check")]
    if not rules:
        raise TypeError(f"{attribute}: {hint!r} has no rule; write Annotated[type, rule]")
    required, nullable = default is MISSING, NoneType in get_args(kind)
    return Field(attribute, camel_case(attribute), rules[0], required, nullable, None if required else default)


def list_of(schema: type[Any], low: int, high: int, unique: str) -> ListOf:
    """The rule of a list of objects of `schema`."""
    return ListOf(Nested(schema), low, high, unique)
