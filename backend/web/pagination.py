"""Lists in pages: by offset (`page`, `pageSize`) and by cursor (`limit`, `cursor`), both with `Link` (RFC 8288).

A cursor is the id of the last row of a page and a signature that binds it to its list and filter. It is opaque to
clients, valid on every worker and after a restart, and stored nowhere. Lists are newest first and ids sort by time, so
the next page is `id < last`: rows written meanwhile are newer, and no row appears twice or is skipped.
"""

import base64
import binascii
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import urlencode

from backend.errors import ValidationFailed
from backend.infrastructure.json_encoder import camel_case
from backend.infrastructure.keyring import Keyring
from backend.web.constraints import Integer, Token
from backend.web.request import Request
from backend.web.router import Access

T = TypeVar("T")


@dataclass(frozen=True)
class CursorQuery:
    """`?limit=&cursor=`; a list with filters adds its own fields."""

    limit: Annotated[int, Integer(1, 100)] = 20
    cursor: Annotated[str, Token(200)] | None = None


@dataclass(frozen=True)
class OffsetQuery:
    """`?page=&pageSize=`; a list with filters adds its own fields."""

    page: Annotated[int, Integer(1, 2**63 - 1)] = 1
    page_size: Annotated[int, Integer(1, 100)] = 20


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a list, `meta.pagination`, and the value of the `Link` header ("" for none)."""

    items: Sequence[T]
    pagination: dict[str, Any]
    link: str


class Cursors:
    """Pages lists by signed cursors. Thread-safe."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def page(self, request: Request, query: CursorQuery, fetch: Callable[[str | None, int], Sequence[T]]) -> Page[T]:
        """A page of what `fetch(before, limit)` returns. It fetches one row more, to see whether a page follows."""
        scope = _scope(request, query)
        rows = fetch(self._read(query.cursor, scope), query.limit + 1)
        items: Sequence[Any] = rows[: query.limit]
        cursor = self._made(items[-1].id, scope) if len(rows) > query.limit else None
        link = _link(request, query, "next", cursor=cursor) if cursor else ""
        return Page(items, {"limit": query.limit, "nextCursor": cursor}, link)

    def _made(self, last_id: str, scope: str) -> str:
        raw = uuid.UUID(last_id).bytes
        return _base64(raw + self._keyring.sign("cursor", raw + scope.encode())[:16])

    def _read(self, cursor: str | None, scope: str) -> str | None:
        if cursor is None:
            return None
        try:
            data = base64.urlsafe_b64decode(f"{cursor}=")
        except (binascii.Error, ValueError):
            data = b""
        raw, signature = data[:16], data[16:]
        good = len(data) == 32 and _base64(data) == cursor  # and spelt as `_made` spells it
        if not good or not self._keyring.verifies("cursor", raw + scope.encode(), signature):
            raise ValidationFailed({"cursor": "is not a cursor of this list and filter"})
        return str(uuid.UUID(bytes=raw))


def offset_page(request: Request, query: OffsetQuery, items: Sequence[T], total: int) -> Page[T]:
    """The page of `items` out of `total`. A page past the end is empty."""
    total_pages = -(-total // query.page_size)
    last = max(1, total_pages)
    pages = {"first": 1, "prev": min(query.page - 1, last), "next": query.page + 1, "last": last}
    links = [_link(request, query, name, page=page) for name, page in pages.items() if 1 <= page <= last]
    pagination = {"page": query.page, "pageSize": query.page_size, "total": total, "totalPages": total_pages}
    return Page(items, pagination, ", ".join(links))


def _scope(request: Request, query: CursorQuery) -> str:
    """What a cursor is bound to: the list, its filters and, unless all callers see the same rows, the caller."""
    filters = {f.name: getattr(query, f.name) for f in fields(query) if f.name not in ("limit", "cursor")}
    caller, endpoint = request.caller, request.endpoint
    public = endpoint is not None and endpoint.route.access is Access.ANYONE
    owner = caller.user.id if caller is not None and not caller.is_admin and not public else ""
    return f"{request.path} {sorted(filters.items())} {owner}"


def _link(request: Request, query: CursorQuery | OffsetQuery, relation: str, **changed: object) -> str:
    """The same list with some parameters changed. The reference is relative, so the Host header is not trusted.

    Parameters are repeated as parsed, not as sent: white space around a value could fill the response's head.
    """
    parsed = {camel_case(f.name): getattr(query, f.name) for f in fields(query)}
    parameters = {name: parsed[name] for name, _ in request.query_parameters()} | changed
    return f'<{request.path}?{urlencode(parameters)}>; rel="{relation}"'


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
