"""The public JSONTestSuite (github.com/nst/JSONTestSuite) through real requests, where it lies beside the repository.

Its files begin with `y_` (any parser must take them), `n_` (must refuse them) or `i_` (may do either).
"""

from pathlib import Path

import pytest
from werkzeug.test import Client

from app import create_app
from backend.errors import MalformedJson
from backend.infrastructure.logs import LogSink
from backend.infrastructure.rate_limiter import RateLimiter
from backend.settings import Settings
from backend.web.json_body import parse_json

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "json"
# RFC 7493 forbids what RFC 8259 only advises against.
STRICTER = {"y_object_duplicated_key.json", "y_object_duplicated_key_and_value.json"}
MAX_BODY = 64 * 1024

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"JSONTestSuite is not in {FOLDER.parent.name}/json")


def files(kind: str) -> list[Path]:
    return sorted(path for path in FOLDER.glob(f"{kind}_*.json")) if FOLDER.is_dir() else []


@pytest.fixture(scope="module")
def post(migrated):
    """POST some bytes to a route that takes an object and, given these, changes nothing; its status."""
    settings = Settings(database_path=migrated, jwt_secrets=("x" * 32,), rate_limit_default=None, rate_limit_auth=None)
    app = create_app(settings, RateLimiter(slots=8), log=LogSink(-1, limit=0))
    client = Client(app, use_cookies=False)

    def status(data: bytes) -> int:
        return client.post("/api/v1/auth/logout", data=data, content_type="application/json").status_code

    yield status
    app.close()


@pytest.mark.parametrize("path", files("n"), ids=lambda path: path.stem)
def test_what_is_no_json_is_refused(post, path):
    """400 and not 422, which would say that it was read; 413 for the files that no parser gets to see."""
    data = path.read_bytes()
    with pytest.raises(MalformedJson):
        parse_json(data)
    assert post(data) == (413 if len(data) > MAX_BODY else 400)


@pytest.mark.parametrize("path", files("y"), ids=lambda path: path.stem)
def test_what_is_json_is_read(post, path):
    """422, for none of them has the field that the route wants; 400 only for duplicate keys."""
    assert post(path.read_bytes()) == (400 if path.name in STRICTER else 422)


@pytest.mark.parametrize("path", files("i"), ids=lambda path: path.stem)
def test_what_parsers_may_differ_on_is_answered_either_way(post, path):
    assert post(path.read_bytes()) in (400, 422)


def test_the_suite_is_whole():
    """An empty folder would make the tests above pass by their absence."""
    assert (len(files("n")) > 150, len(files("y")) > 80, len(files("i")) > 30) == (True, True, True)
