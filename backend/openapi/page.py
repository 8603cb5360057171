"""`/docs`: the page to read and try the API. Swagger UI, served whole from this process.

Swagger UI works under a strict Content-Security-Policy and asks no other server for anything; README.md compares it
with others. `swagger_ui/` has its release files, compressed; `page.html`, `page.js` and `page.css` are our own.

Promised: a page that a script of another origin can neither run in nor frame; files that are sent once and revalidated
by ETag. Not promised: a login that outlives a reload, since the token is in the page's memory only.
"""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from backend.web.handler import responds
from backend.web.request import Request
from backend.web.response import Response

FOLDER = Path(__file__).parent
SWAGGER_UI = "swagger-ui-5.35.0"  # the version is in its URL, so browsers may keep it for ever
HTML, SCRIPT, STYLE = (f"text/{kind}; charset=utf-8" for kind in ("html", "javascript", "css"))
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
MAX_ACCEPT_ENCODING = 256  # characters; browsers send about 25, and parsing 64 KiB of them takes 39 ms
REVALIDATE = "no-cache"
FOREVER = "public, max-age=31536000, immutable"


class DocsRoutes:
    """Thread-safe. The URL table lists every file, so no part of a request's path reaches the file system."""

    @responds(200, etag=True, public=True, media=HTML)
    def get_docs_page(self, request: Request) -> Response:
        """This page."""
        return _response(request, "page.html", HTML, REVALIDATE)

    @responds(200, etag=True, public=True, media=SCRIPT)
    def get_docs_script(self, request: Request) -> Response:
        """The page's own script."""
        return _response(request, "page.js", SCRIPT, REVALIDATE)

    @responds(200, etag=True, public=True, media=STYLE)
    def get_docs_style(self, request: Request) -> Response:
        """The page's own style."""
        return _response(request, "page.css", STYLE, REVALIDATE)

    @responds(200, etag=True, public=True, media=SCRIPT)
    def get_viewer_script(self, request: Request) -> Response:
        """Swagger UI."""
        return _response(request, f"swagger_ui/{SWAGGER_UI}.js.gz", SCRIPT, FOREVER)

    @responds(200, etag=True, public=True, media=STYLE)
    def get_viewer_style(self, request: Request) -> Response:
        """The style of Swagger UI."""
        return _response(request, f"swagger_ui/{SWAGGER_UI}.css.gz", STYLE, FOREVER)


@dataclass(frozen=True)
class _File:
    content: bytes
    digest: str


@cache
def _file(name: str) -> _File:
    content = (FOLDER / name).read_bytes()
    return _File(content, hashlib.sha256(content).hexdigest()[:32])


def _response(request: Request, name: str, media: str, cache_control: str) -> Response:
    """The file, compressed if it is stored so and the client accepts that; or 304.

    A 304 carries the policy too: browsers replace the headers of what they have stored by those of the 304.
    """
    file = _file(name)
    compressed = name.endswith(".gz") and _accepts_gzip(request)
    if request.is_known_version(file.digest):
        response = Response(304, cache_control=cache_control, content_policy=CONTENT_POLICY)
    else:
        content = gzip.decompress(file.content) if name.endswith(".gz") and not compressed else file.content
        response = Response(200, content, media, cache_control, CONTENT_POLICY)
        response.headers += [("Content-Encoding", "gzip")] if compressed else []
    # Weak, because both encodings have it.
    response.headers += [("ETag", f'W/"{file.digest}"'), ("Vary", "Accept-Encoding")]
    return response


def _accepts_gzip(request: Request) -> bool:
    sent = request.headers.get("Accept-Encoding", "")
    return len(sent) <= MAX_ACCEPT_ENCODING and request.accept_encodings["gzip"] > 0
