"""The audit log, which admins read: one row for each public event."""

from collections.abc import Sequence

from backend.domain import AuditEntry
from backend.infrastructure.database import Database
from backend.repositories import audit
from backend.services.events import Subscriber


class Audit:
    """Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def subscriber(self) -> Subscriber:
        """Records events in the transaction that deletes their deliveries, so each has exactly one row."""
        return Subscriber("audit", record=audit.insert)

    def page(self, *, user_id: str | None, action: str | None, before: str | None, limit: int) -> Sequence[AuditEntry]:
        """Newest first. `user_id` is the actor's."""
        with self._database.read() as tx:
            return audit.page(tx, user_id=user_id, action=action, before=before, limit=limit)
