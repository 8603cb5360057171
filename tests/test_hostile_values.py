"""Values that a database may refuse are refused before they reach it: every route × every place × every value."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.conftest import Api
from tests.every_route import VALID, World, allowed_caller, send
from tests.openapi.documented import Document

TEXTS = ("\0", "a\0b", "\U0010ffff", "9" * 30, str(2**63))
OTHERS = (2**63 - 1, -(2**63), None)
HEADERS = ("User-Agent", "Idempotency-Key", "If-Match")


def hostile(world: World, key: str, document: Document) -> Iterator[dict[str, Any]]:
    """The valid request with one value replaced."""
    body = json.loads(world.filled(VALID[key].body) or "{}")
    for text in TEXTS:
        if "{id}" in key:
            yield {"id": quote(text, safe="")}
        for name in document.parameters(key, "query"):
            yield {"query": f"?{name}={quote(text, safe='')}"}
        for name in HEADERS:
            yield {"headers": {name: text.encode().decode("latin-1")}}
    for name in body:
        for value in (*TEXTS, *OTHERS):
            yield {"data": json.dumps(body | {name: value}), "content_type": "application/json"}


@pytest.mark.parametrize("key", VALID)
def test_no_value_makes_a_route_fail(api: Api, world: World, key: str) -> None:
    document = Document(api.get("//openapi.json").json)
    for changes in hostile(world, key, document):
        answer = send(api, world, key, allowed_caller(world, key), **changes)
        assert answer.status_code < 500, (changes, answer.text)
