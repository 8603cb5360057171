"""The table `idempotency_keys`: the first answer to each request that had a key. Keys are hashes of those sent."""

from backend.infrastructure.database import Tx


def find(tx: Tx, user_id: str, key: bytes, since: int) -> tuple[bytes, str] | None:
    """The fingerprint and the answer's data of the request with this key, if it was made after `since`."""
    row = tx.row(
        "SELECT fingerprint, data FROM idempotency_keys WHERE user_id = :user AND key = :key AND created_at > :since",
        user=user_id, key=key, since=since,
    )  # fmt: skip
    return (row[0], row[1]) if row else None


def put(tx: Tx, user_id: str, key: bytes, fingerprint: bytes, data: str) -> None:
    """Store the answer under this key. Overwrites an expired one."""
    tx.write(
        """INSERT INTO idempotency_keys (user_id, key, fingerprint, data, created_at)
           VALUES (:user, :key, :fingerprint, :data, :now) ON CONFLICT (user_id, key) DO UPDATE
           SET fingerprint = excluded.fingerprint, data = excluded.data, created_at = excluded.created_at""",
        user=user_id, key=key, fingerprint=fingerprint, data=data, now=tx.now,
    )  # fmt: skip


def prune(tx: Tx, until: int, batch: int) -> int:
    """Delete keys that were stored at or before `until`: the oldest, and at most `batch`. Returns their number."""
    return tx.run(
        """DELETE FROM idempotency_keys WHERE (user_id, key) IN
           (SELECT user_id, key FROM idempotency_keys WHERE created_at <= :until ORDER BY created_at LIMIT :batch)""",
        until=until,
        batch=batch,
    )
