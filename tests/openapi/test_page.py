"""`/docs` and its files over HTTP: what they are, how long they are kept, and what the browser may do with them."""

import gzip
import hashlib
import re

import pytest

from backend.openapi.page import SWAGGER_UI
from tests.every_route import VALID

FILES = [key.removeprefix("GET ") for key in VALID if key.startswith("GET /docs")]
# Of the files in the release `swagger-ui-dist` 5.35.0 on npm. README.md of the room says how to update them.
RELEASE = {
    f"/docs/{SWAGGER_UI}.js": "e6a898692f2d768e807c3ba4626068a69a2c5dd960dd6c76f3e4d3a3de180af2",
    f"/docs/{SWAGGER_UI}.css": "5ed08757e53da3e026d6cbecc61fe5d43585c9560b302d534ad56692519a273d",
}
ETAG = re.compile(r'W/"[0-9a-f]{32}"')


def test_the_page_loads_files_of_this_service_and_has_no_script_of_its_own(api):
    page = api.get("//docs").text
    loaded = re.findall(r'<(?:script|link)[^>]* (?:src|href)="([^"]+)"', page)
    assert sorted([*loaded, "/docs"]) == sorted([*FILES, "data:,"])
    assert re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL) == ["", ""]
    assert not re.search(r"<style|\sstyle=|\son\w+=", page)
    assert '<meta name="referrer" content="no-referrer">' in page


@pytest.mark.parametrize("path", RELEASE)
def test_the_viewer_is_the_release_to_the_byte(api, path):
    """Compressed or not, as the client accepts it."""
    plain, packed = (api.get(f"/{path}", headers={"Accept-Encoding": sent}) for sent in ("gzip;q=0", "br, gzip"))
    assert hashlib.sha256(plain.data).hexdigest() == RELEASE[path]
    assert gzip.decompress(packed.data) == plain.data
    assert ("Content-Encoding" in plain.headers, packed.headers["Content-Encoding"]) == (False, "gzip")
    assert len(packed.data) == int(packed.headers["Content-Length"]) < len(plain.data) / 3


def test_a_list_of_encodings_that_is_costly_to_parse_is_not_parsed(api):
    answer = api.get(f"/{next(iter(RELEASE))}", headers={"Accept-Encoding": "gzip," * 10_000})
    assert answer.status_code == 200 and "Content-Encoding" not in answer.headers


@pytest.mark.parametrize("path", FILES)
@pytest.mark.parametrize("accepted", ["", "gzip"])
def test_a_file_that_the_client_has_is_not_sent_again(api, path, accepted):
    """The version of the viewer is in its URL, so browsers keep it; they ask for the other files each time."""
    sent = {"Accept-Encoding": accepted}
    first = api.get(f"/{path}", headers=sent)
    again = api.get(f"/{path}", headers={**sent, "If-None-Match": first.headers["ETag"]})
    changed = api.get(f"/{path}", headers={**sent, "If-None-Match": 'W/"another"'})
    assert ETAG.fullmatch(first.headers["ETag"])
    assert (again.status_code, again.data, changed.status_code, changed.data) == (304, b"", 200, first.data)
    kept = "public, max-age=31536000, immutable" if path in RELEASE else "no-cache"
    for answer in (first, again):
        assert answer.headers["Cache-Control"] == kept
        assert answer.headers["Vary"] == "Accept-Encoding"


@pytest.mark.parametrize("path", FILES)
def test_the_policy_lets_the_page_reach_this_service_alone(api, path):
    """On a 304 too: its headers replace those that the browser has stored."""
    first = api.get(f"/{path}")
    again = api.get(f"/{path}", headers={"If-None-Match": first.headers["ETag"]})
    for answer in (first, again):
        policy = dict(rule.split(" ", 1) for rule in answer.headers["Content-Security-Policy"].split("; "))
        assert policy == {
            "default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "connect-src": "'self'",
            "img-src": "'self' data:", "frame-ancestors": "'none'", "base-uri": "'none'", "form-action": "'none'",
        }  # fmt: skip


@pytest.mark.parametrize(
    "path",
    ["/docs/", "/docs//page.js", "/docs/page.py", "/docs/../page.py", "/docs/..%2Fpage.py", "/docs/swagger_ui/LICENSE"],
)
def test_no_other_file_is_served(api, path):
    assert api.get(f"/{path}").status_code == 404
