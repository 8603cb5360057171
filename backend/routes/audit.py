"""The audit log: `/api/v1/audit`."""

from dataclasses import dataclass
from typing import Annotated

from backend.domain import AuditEntry
from backend.services.audit import Audit
from backend.web.constraints import Reference, Text
from backend.web.handler import responds
from backend.web.pagination import CursorQuery, Cursors, Page
from backend.web.request import Request


@dataclass(frozen=True)
class AuditQuery(CursorQuery):
    """`userId` is the actor's id, `action` the name of an event."""

    user_id: Reference | None = None
    action: Annotated[str, Text(1, 100)] | None = None


class AuditRoutes:
    def __init__(self, audit: Audit, cursors: Cursors) -> None:
        self._audit = audit
        self._cursors = cursors

    @responds(200)
    def list_audit_entries(self, request: Request, query: AuditQuery) -> Page[AuditEntry]:
        """The audit log, newest first. An entry appears within 5 s."""
        return self._cursors.page(
            request,
            query,
            lambda before, limit: self._audit.page(
                user_id=query.user_id, action=query.action, before=before, limit=limit
            ),
        )
