"""`/openapi.json` is OpenAPI 3.1, has exactly the routes of the application, and describes their responses."""

import json
import re
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any
from urllib.parse import urlencode

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from backend.web.handler import contract_of
from backend.web.router import Access
from backend.web.schemas import read_body
from tests.conftest import Api
from tests.every_route import API, VALID, allowed_caller, routes_of, send
from tests.openapi.documented import Document


@pytest.fixture
def document(api: Api) -> Document:
    return Document(api.get("//openapi.json").json)


def nodes(plain: Any) -> Iterator[dict[str, Any]]:
    """Every object within."""
    if isinstance(plain, dict):
        yield plain
    for inner in plain.values() if isinstance(plain, dict) else plain if isinstance(plain, list) else ():
        yield from nodes(inner)


def example(schema: dict[str, Any]) -> object:
    """A value that the schema of a query parameter or a field admits."""
    texts = {"uuid": "0198c0de-0000-7000-8000-000000000000"}
    return schema.get("enum", [schema.get("minimum", texts.get(schema.get("format", ""), "a"))])[0]


def filled(document: Document, schema: dict[str, Any]) -> Any:
    """The value with which viewers such as Swagger UI fill a form."""
    schema = document.resolved(schema)
    if "examples" in schema:
        return schema["examples"][0]
    if schema["type"] == "object":
        return {name: filled(document, inner) for name, inner in schema["properties"].items()}
    if schema["type"] == "array":
        return [filled(document, schema["items"])]
    return example(schema)


def test_it_is_a_valid_openapi_3_1_document(document):
    assert document.plain["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(document.plain).validate()


def test_shared_parts_stand_once_and_none_is_unused(document):
    references = {node["$ref"] for node in nodes(document.plain) if "$ref" in node}
    components = document.plain["components"]
    named = {
        f"#/components/{kind}/{name}" for kind, things in components.items() for name in things
        if kind != "securitySchemes"
    }  # fmt: skip
    assert references == named


def test_its_operations_are_the_routes(api, document):
    assert document.keys() == set(routes_of(api.app))


def test_it_states_the_access_of_each_operation(api, document):
    """Every route but the open ones requires a token; there it is optional."""
    for key, route in routes_of(api.app).items():
        operation = document.operation(key)
        assert operation["security"] == ([{}] if route.access is Access.ANYONE else []) + [{"bearer": []}]
        assert operation["description"] == f"Access: {route.access.value}."
        assert operation["summary"]


def test_operation_ids_are_unique(document):
    ids = [document.operation(key)["operationId"] for key in VALID]
    assert len(set(ids)) == len(ids)


def test_an_operation_id_is_a_name_for_a_function(document):
    """A verb and its object: generated clients use it."""
    ids = {document.operation(key)["operationId"] for key in VALID}
    assert {name for name in ids if not re.fullmatch(r"[a-z]+([A-Z][a-z]*)+", name)} == set()
    assert {"createUser", "listOrders", "getAccount", "createTransfer", "logIn"} <= ids


@pytest.mark.parametrize("key", VALID)
def test_a_success_is_as_documented(api, world, document, key):
    """Status, headers and body; the body has every field that the schema lists, and no other."""
    route = routes_of(api.app)[key]
    answer = send(api, world, key, allowed_caller(world, key))
    assert answer.status_code == contract_of(route).status
    document.check(key, answer)


def test_a_success_of_another_kind_is_as_documented(api, world, document):
    """304, a page with more behind it, users with their orders, a replay."""
    owner, admin = world.people["owner"], world.people["admin"]
    for key in VALID:
        if "304" in document.operation(key)["responses"]:
            etag = send(api, world, key, owner).headers["ETag"]
            answer = send(api, world, key, owner, headers={"If-None-Match": etag})
            assert answer.status_code == 304
            document.check(key, answer)
    for key, query in ((f"GET {API}/users", "?pageSize=1&page=2&include=orders"), (f"GET {API}/products", "?limit=1")):
        answer = send(api, world, key, admin, query=query)
        assert "Link" in answer.headers
        document.check(key, answer)
    answers = [send(api, world, f"POST {API}/orders", owner, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert answers[1].headers["Idempotency-Replayed"] == "true"
    document.check(f"POST {API}/orders", answers[1])


def test_a_viewer_can_fill_each_form_with_a_body_that_is_accepted(api, document):
    """From the examples and bounds of the document; the code that validates accepts it."""
    for key, route in routes_of(api.app).items():
        if documented := document.operation(key).get("requestBody"):
            body = filled(document, documented["content"]["application/json"]["schema"])
            assert read_body(contract_of(route).takes.body, body), key


def test_every_example_is_valid_by_its_schema(document):
    examples = [(node, value) for node in nodes(document.plain) for value in node.get("examples", ())]
    assert len(examples) > 8
    for schema, value in examples:
        document.validate(schema, value)


@pytest.mark.parametrize("key", VALID)
def test_a_valid_body_is_one_by_its_schema(api, world, document, key):
    """And a field too many is invalid: what is documented is what is checked."""
    body = world.filled(VALID[key].body)
    documented = document.operation(key).get("requestBody")
    assert bool(documented) == bool(body)
    if documented:
        schema = documented["content"]["application/json"]["schema"]
        document.validate(schema, json.loads(body))
        assert document.resolved(schema)["additionalProperties"] is False


def test_every_documented_query_parameter_is_taken(api, world, document):
    """With a value that its schema admits; a cursor has to come from a list."""
    for key in VALID:
        for name, schema in document.parameters(key, "query").items():
            if name != "cursor":
                answer = send(api, world, key, world.people["admin"], query=f"?{name}={example(schema)}")
                assert answer.status_code == 200, (key, name, answer.text)


def test_an_idempotency_key_is_documented_where_one_is_taken(api, world, document):
    """A malformed one is refused there, and ignored elsewhere."""
    for key in VALID:
        bad = {"headers": {"Idempotency-Key": "a b"}, "body": "[]"}  # no route with a body accepts this one
        answer = send(api, world, key, allowed_caller(world, key), **bad)
        refused = answer.status_code == 400 and answer.json["error"]["code"] == "BAD_REQUEST"
        assert refused == ("Idempotency-Key" in document.parameters(key, "header")), key


def test_it_says_what_client_authors_look_for_first(document):
    """The version, the server, and the purpose of each group of operations."""
    plain = document.plain
    assert plain["info"]["version"] == version("reference-backend")
    assert plain["servers"][0]["url"] == "/"
    assert {"name", "identifier"} <= plain["info"]["license"].keys()
    assert plain["info"]["contact"]
    used = {tag for key in VALID for tag in document.operation(key)["tags"]}
    described = {tag["name"] for tag in plain["tags"] if tag["description"]}
    assert described == used, "describe each group in TAGS of backend/openapi/texts.py"


def test_a_parameter_left_out_is_as_documented(api, world, document):
    """A request with the documented defaults (`limit` is 20) has the same answer as one without parameters."""
    admin = world.people["admin"]
    for key in VALID:
        given = {name: s["default"] for name, s in document.parameters(key, "query").items() if "default" in s}
        lists = "limit" in document.parameters(key, "query") or "page" in document.parameters(key, "query")
        assert bool(given) == lists, key
        if lists:
            plain, explicit = send(api, world, key, admin), send(api, world, key, admin, query=f"?{urlencode(given)}")
            assert plain.json["meta"]["pagination"] == explicit.json["meta"]["pagination"], key
            assert plain.json["data"] == explicit.json["data"], key


def test_the_headers_that_scripts_may_read_are_the_documented_ones(make_api, document):
    api = make_api(cors_origins=frozenset({"https://shop.example"}))
    exposed = api.get("//healthz", headers={"Origin": "https://shop.example"}).headers["Access-Control-Expose-Headers"]
    assert f": {exposed}." in document.plain["info"]["description"]


def test_the_introduction_names_the_answers_that_belong_to_no_operation(document):
    said = document.plain["info"]["description"]
    for word in ("HEAD", "OPTIONS", "Allow", "METHOD_NOT_ALLOWED", "NOT_FOUND", "Cache-Control", "X-Request-ID"):
        assert re.search(rf"\b{word}\b", said), word
