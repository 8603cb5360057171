"""Idempotency keys: the key, the effect and its event are one transaction, and the first answer is given again.

Of two at the same moment the write lock makes one the second, and it finds the key. A failed attempt rolls its key back
with everything else. The caller checks rights before: a replay after losing them is refused.
"""

from collections.abc import Callable
from typing import TypeVar

from backend.domain import IdempotentRequest, IdempotentResult
from backend.errors import IdempotencyKeyReused
from backend.infrastructure.transaction import Tx
from backend.repositories import idempotency_keys

T = TypeVar("T")

LIFETIME = 24 * 3600 * 1000  # milliseconds
PRUNED = 5  # expired keys that a keyed write removes: a fixed cost, and more than the one key that it adds


def once(tx: Tx, user_id: str, idempotent: IdempotentRequest, effect: Callable[[], T]) -> IdempotentResult[T]:
    """Run `effect` unless this attempt is a repetition; either way its first result, encoded.

    Raises IdempotencyKeyReused if the key stood for something else.
    """
    if idempotent.key is None:
        return IdempotentResult(idempotent.encode(effect()), replayed=False)
    since = tx.now - LIFETIME
    earlier = idempotency_keys.find(tx, user_id, idempotent.key, since)
    if earlier is not None:
        fingerprint, data = earlier
        if fingerprint != idempotent.fingerprint:
            raise IdempotencyKeyReused
        return IdempotentResult(data, replayed=True)
    encoded = idempotent.encode(effect())
    idempotency_keys.prune(tx, since, PRUNED)
    idempotency_keys.put(tx, user_id, idempotent.key, idempotent.fingerprint, encoded)
    return IdempotentResult(encoded, replayed=False)
