"""Shapes: dataclasses whose annotations say what a client may send. Read into checks here, into JSON Schema as well.

A field with a default may be left out; only one whose type admits None may be null. Every wrong field is found at
once; what is wrong between fields a shape tells by a static method `conflicts(values) -> {name: problem}`. A shape is
compiled on first use and kept; `read_*` are thread-safe and raise ValidationFailed.
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
    default: Any  # None: there is none, or none to tell clients of


def read_body(shape: type[S], value: object) -> S:
    """The parsed JSON `value` as a `shape`."""
    wrong: FieldErrors = {}
    body = Nested(shape).check(value, "", wrong)
    if wrong:
        raise ValidationFailed(wrong)
    return body  # type: ignore[no-any-return]  # Nested returns its shape


def read_query(shape: type[S], parameters: list[tuple[str, str]]) -> S:
    """A query string's `parameters` as a `shape`: each at most once, integers as plain decimal digits."""
    wrong: FieldErrors = {}
    known = {field.name: field for field in fields_of(shape)}
    values: dict[str, Any] = {}
    for name, text in parameters:
        field = known.get(name)
        if field is None:
            wrong[name] = "is not known here"
        elif field.attribute in values:
            wrong[name] = "must not be repeated"
        else:
            values[field.attribute] = field.rule.check(_from_text(field.rule, text), name, wrong)
    if wrong:
        raise ValidationFailed(wrong)
    return shape(**values)


def _from_text(rule: Rule, text: str) -> object:
    """An integer where one is meant and written plainly; else the text, which the rule will refuse or take."""
    return int(text) if isinstance(rule, Integer) and DIGITS.fullmatch(text) else text


@dataclass(frozen=True)
class Nested:
    """The rule of a field that is itself a shape."""

    shape: Any  # a dataclass

    def check(self, value: object, path: str, wrong: FieldErrors) -> Any:
        if not isinstance(value, Mapping):
            wrong[path or "body"] = "must be an object"
            return None
        prefix = f"{path}." if path else ""
        before, values = len(wrong), {}
        known = fields_of(self.shape)
        for field in known:
            if field.name in value:
                given = value[field.name]
                if given is not None or not field.nullable:
                    values[field.attribute] = field.rule.check(given, prefix + field.name, wrong)
            elif field.required:
                wrong[prefix + field.name] = "is required"
        for name in value.keys() - {field.name for field in known}:
            wrong[prefix + name] = "is not known here"
        if hasattr(self.shape, "conflicts"):
            for name, problem in self.shape.conflicts(values).items():
                wrong.setdefault(prefix + name, problem)
        return self.shape(**values) if len(wrong) == before else None

    def schema(self) -> Schema:
        known = fields_of(self.shape)
        return {
            "title": self.shape.__name__,
            "type": "object",
            "properties": {field.name: field_schema(field) for field in known},
            "required": [field.name for field in known if field.required],
            "additionalProperties": False,
        }


def field_schema(field: Field) -> Schema:
    """What the field may be, and what it is when it is left out."""
    schema = field.rule.schema()
    if field.nullable:
        schema = {**schema, "type": [schema["type"], "null"]}
    return schema if field.default is None else {**schema, "default": field.default}


@cache
def fields_of(shape: Any) -> tuple[Field, ...]:
    """The compiled fields of a dataclass. Raises TypeError for a field that no rule is known of."""
    hints = get_type_hints(shape, include_extras=True)
    return tuple(_compiled(field.name, hints[field.name], field.default) for field in fields(shape))


def _compiled(attribute: str, hint: Any, default: Any) -> Field:
    """`X | None` only says that the field may be left out; `Annotated[X | None, …]` that it may be null."""
    if get_origin(hint) in (Union, UnionType):
        hint = next(option for option in get_args(hint) if option is not NoneType)
    kind, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    rules = [note for note in notes if hasattr(note, "check")]
    if not rules:
        raise TypeError(f"{attribute}: no rule in {hint!r}")
    required, nullable = default is MISSING, NoneType in get_args(kind)
    return Field(attribute, camel_case(attribute), rules[0], required, nullable, None if required else default)


def list_of(shape: type[Any], low: int, high: int, unique: str = "") -> ListOf:
    """The rule of a list of objects of `shape`."""
    return ListOf(Nested(shape), low, high, unique)
