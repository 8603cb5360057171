"""The public JSONTestSuite (github.com/nst/JSONTestSuite) through real requests.

`json_test_suite.json` has its files, with the licence they come under: the name of each, and its bytes as Latin-1. A
name begins with `y_` (any parser must take the file), `n_` (must refuse it) or `i_` (may do either).
"""

import json
from pathlib import Path

import pytest
from werkzeug.test import Client

from backend.errors import MalformedJson
from backend.settings import Settings
from backend.web.json_body import parse_json
from tests.wirings import make_app

SUITE = json.loads(Path(__file__).with_name("json_test_suite.json").read_text("ascii"))["files"]
# These two are 100 and 250 KB of one thing.
DEEP = {"n_structure_100000_opening_arrays": "[" * 100_000, "n_structure_open_array_object": '[{"":' * 50_000 + "\n"}
FILES = {name: text.encode("latin-1") for name, text in {**SUITE, **DEEP}.items()}
# RFC 7493 forbids what RFC 8259 only advises against.
STRICTER = {"y_object_duplicated_key", "y_object_duplicated_key_and_value"}
MAX_BODY = 64 * 1024


def names(kind: str) -> list[str]:
    return [name for name in FILES if name.startswith(f"{kind}_")]


@pytest.fixture(scope="module")
def post(migrated):
    """POST bytes to a route that takes an object and, given these, changes nothing; returns the status."""
    settings = Settings(database_path=migrated, jwt_secrets=("x" * 32,), rate_limit_default=None, rate_limit_auth=None)
    app = make_app(settings)
    client = Client(app, use_cookies=False)

    def status(data: bytes) -> int:
        return client.post("/api/v1/auth/logout", data=data, content_type="application/json").status_code

    yield status
    app.close()


@pytest.mark.parametrize("name", names("n"))
def test_what_is_no_json_is_refused(post, name):
    """400, not 422, which would mean that it was read; 413 for files that are too large."""
    data = FILES[name]
    with pytest.raises(MalformedJson):
        parse_json(data)
    assert post(data) == (413 if len(data) > MAX_BODY else 400)


@pytest.mark.parametrize("name", names("y"))
def test_what_is_json_is_read(post, name):
    """422, because none has the required field; 400 only for duplicate keys."""
    assert post(FILES[name]) == (400 if name in STRICTER else 422)


@pytest.mark.parametrize("name", names("i"))
def test_what_parsers_may_differ_on_is_answered_either_way(post, name):
    assert post(FILES[name]) in (400, 422)


def test_the_suite_is_whole():
    """A missing file would make the tests above pass."""
    assert {kind: len(names(kind)) for kind in "yni"} == {"y": 95, "n": 188, "i": 35}
    assert len(FILES) == 95 + 188 + 35
