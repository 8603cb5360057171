"""The table `audit`: one row for each event."""

from collections.abc import Iterable, Sequence

from backend.domain import AuditEntry, Event
from backend.infrastructure.database import Tx

COLUMNS = "id, user_id, action, resource_type, resource_id, request_id, created_at"


def insert(tx: Tx, events: Iterable[Event]) -> None:
    """Add a row for each event. Idempotent."""
    tx.run_each(
        f"INSERT INTO audit ({COLUMNS}) VALUES (:id, :user, :name, :type, :of, :request, :at) ON CONFLICT DO NOTHING",
        (
            {
                "id": event.id, "user": event.user_id, "name": event.name, "type": event.resource_type,
                "of": event.resource_id, "request": event.request_id, "at": event.created_at,
            }
            for event in events
        ),
    )  # fmt: skip


def page(tx: Tx, *, user_id: str | None, action: str | None, before: str | None, limit: int) -> Sequence[AuditEntry]:
    """Newest first. Only those older than `before`, if given. `user_id` is the actor's."""
    wanted = {"user_id = :user_id": user_id, "action = :action": action, "id < :before": before}
    where = " AND ".join(["1 = 1", *(clause for clause, value in wanted.items() if value is not None)])
    rows = tx.rows(
        f"SELECT {COLUMNS} FROM audit WHERE {where} ORDER BY id DESC LIMIT :limit",
        user_id=user_id, action=action, before=before, limit=limit,
    )  # fmt: skip
    return [AuditEntry(*row) for row in rows]
