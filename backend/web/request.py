"""One HTTP request: Werkzeug's, with the attributes that the middleware sets."""

import random
import re
from typing import Any
from urllib.parse import parse_qsl

from werkzeug.wrappers import Request as WerkzeugRequest

from backend.domain import Caller, Precondition
from backend.errors import (
    AppError,
    BadRequest,
    LengthRequired,
    MalformedJson,
    PayloadTooLarge,
    Unauthorized,
    UnsupportedMediaType,
    ValidationFailed,
)
from backend.web.constraints import CONTROL
from backend.web.counts import Count
from backend.web.etags import matches_strongly, matches_weakly
from backend.web.json_body import parse_json
from backend.web.router import Endpoint

MAX_BODY = 64 * 1024
MAX_PARAMETERS = 100  # of a query
UTF_8 = {"charset=utf-8", 'charset="utf-8"'}
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
IDEMPOTENCY_KEY = re.compile(r"[!-+\--~]{1,255}")  # visible ASCII without the comma, which joins two header lines


class Request(WerkzeugRequest):
    """Used by one thread. The attributes are set by the middleware named beside them."""

    def __init__(self, environ: dict[str, Any]) -> None:
        super().__init__(environ)
        # As the client sent it: Werkzeug would give every path one leading slash.
        self.path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace")
        raw_path = environ.get("RAW_URI", "").partition("?")[0]
        if raw_path.startswith("//") or "%2F" in raw_path.upper():
            self.path = f"//{self.path}"  # servers drop slashes and decode %2F; so no such path matches a route
        given = environ.get("HTTP_X_REQUEST_ID", "")
        self.id = given if REQUEST_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"  # unique; no secret
        self.client = ""  # address, by client_addresses
        self.endpoint: Endpoint | None = None  # by routing
        self.path_id = ""  # the value of the path's `{id}`, by routing
        self.refusal: AppError | None = None  # the 404 or 405 if there is no endpoint, by routing
        self.caller: Caller | None = None  # by authentication
        self.auth_error: AppError | None = None  # the 401 for a bad token, by authentication
        self.counts: list[Count] = []  # that the request has made, by rate_limits
        self.error: AppError | None = None  # that the response renders, by error_responses
        self._body: bytes | None = None  # until it is read
        self.response_headers: list[tuple[str, str]] = []  # of every response, by any middleware

    @property
    def user(self) -> Caller:
        """The authenticated caller. Raises Unauthorized."""
        if self.caller is None:
            raise self.auth_error or Unauthorized("missing")
        return self.caller

    @property
    def agent(self) -> str:
        """`User-Agent` read as UTF-8, or as Latin-1 if it is not, without control characters."""
        sent = self.environ.get("HTTP_USER_AGENT", "").encode("latin-1")  # PEP 3333 decodes header bytes as Latin-1
        try:
            text = sent.decode("utf-8")
        except UnicodeDecodeError:
            text = sent.decode("latin-1")
        return CONTROL.sub("", text)

    def query_parameters(self) -> list[tuple[str, str]]:
        """The first 100 pairs of the query string, percent-decoded. Raises ValidationFailed if it is not UTF-8.

        No route has 100 parameters, so a longer query has an unknown or repeated one among the first 100.
        """
        raw = self.environ.get("QUERY_STRING", "")
        if not raw:
            return []
        try:
            sent = raw.encode("latin-1").decode("utf-8")  # PEP 3333 decodes raw bytes as Latin-1
            pairs = "&".join([pair for pair in sent.split("&") if pair][:MAX_PARAMETERS])
            return parse_qsl(pairs, keep_blank_values=True, errors="strict") if pairs else []
        except ValueError:
            raise ValidationFailed({"query": "must be percent-encoded UTF-8"}) from None

    def json_body(self) -> Any:
        """The strictly parsed body. Raises UnsupportedMediaType, then MalformedJson."""
        kind, *parameters = self.environ.get("CONTENT_TYPE", "").lower().split(";")
        charsets = [parameter.strip(" \t") for parameter in parameters if "charset" in parameter]
        if kind.strip(" \t") != "application/json" or len(charsets) > 1 or not UTF_8.issuperset(charsets):
            raise UnsupportedMediaType
        return parse_json(self._unencoded_body())

    def no_body(self) -> Any:
        """The parsed body of a route that takes none: `{}` if it is empty. No Content-Type is needed."""
        return parse_json(self._unencoded_body() or b"{}")

    def raw_body(self) -> bytes:
        """The body, read once. Raises MalformedJson if it is shorter than its Content-Length."""
        if self._body is None:
            length = int(self._content_length())
            self._body = self.environ["wsgi.input"].read(length) if length else b""
            if len(self._body) != length:
                raise MalformedJson("The body is shorter than its Content-Length.")
        return self._body

    def _content_length(self) -> str:
        """The Content-Length without leading zeros; "0" if there is none."""
        return self.environ.get("CONTENT_LENGTH", "").lstrip("0") or "0"

    def _unencoded_body(self) -> bytes:
        if self.environ.get("HTTP_CONTENT_ENCODING"):
            raise UnsupportedMediaType
        return self.raw_body()

    def check_framing(self) -> None:
        """Raises LengthRequired, BadRequest or PayloadTooLarge for a body that must not be read."""
        if "HTTP_TRANSFER_ENCODING" in self.environ:
            raise LengthRequired
        length = self._content_length()
        if not (length.isascii() and length.isdigit()):
            raise BadRequest("Content-Length must be a number.")
        if len(length) > len(str(MAX_BODY)) or int(length) > MAX_BODY:
            raise PayloadTooLarge

    def idempotency_key(self) -> str | None:
        """The Idempotency-Key, None if there is none. Raises BadRequest if it is malformed."""
        key = self.environ.get("HTTP_IDEMPOTENCY_KEY")
        if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):
            raise BadRequest("Idempotency-Key must be 1 to 255 visible ASCII characters without a comma.")
        return key

    def is_known_version(self, version: int | str) -> bool:
        """Whether `If-None-Match` matches this version (weak comparison, RFC 9110 §13.1.2)."""
        return matches_weakly(self.environ.get("HTTP_IF_NONE_MATCH", ""), version)

    def precondition(self) -> Precondition:
        """A function that tells whether a version satisfies `If-Match` (strong comparison) and `If-None-Match`.

        `If-None-Match` is ignored if the path has no `{id}`: such a URL names another resource for each caller.
        """
        match = self.environ.get("HTTP_IF_MATCH", "*")
        none_match = self.environ.get("HTTP_IF_NONE_MATCH", "") if self.path_id else ""
        return lambda version: matches_strongly(match, version) and not matches_weakly(none_match, version)
