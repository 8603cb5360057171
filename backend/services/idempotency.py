"""Idempotency keys: the key, the effect and its event are one transaction, and the first answer is given again.

Of two at the same moment the write lock makes one the second, and it finds the key. A failed attempt rolls its key back
with everything else. The caller checks rights before: a replay after losing them is refused.
"""

from collections.abc import Callable
from typing import TypeVar

from backend.domain import Attempt, Once
from backend.errors import IdempotencyKeyReused
from backend.infrastructure.transaction import Transaction
from backend.repositories import idempotency_keys

T = TypeVar("T")

LIFETIME = 24 * 3600 * 1000  # milliseconds
PRUNED = 5  # expired keys that a keyed write removes: a fixed cost, and more than the one key that it adds


def once(tx: Transaction, user_id: str, attempt: Attempt, effect: Callable[[], T]) -> Once[T]:
    """Run `effect` unless this attempt is a repetition; either way its first result, encoded.

    Raises IdempotencyKeyReused if the key stood for something else.
    """
    if attempt.key is None:
        return Once(attempt.encode(effect()), replayed=False)
    since = tx.now - LIFETIME
    earlier = idempotency_keys.find(tx, user_id, attempt.key, since)
    if earlier is not None:
        fingerprint, data = earlier
        if fingerprint != attempt.fingerprint:
            raise IdempotencyKeyReused
        return Once(data, replayed=True)
    encoded = attempt.encode(effect())
    idempotency_keys.prune(tx, since, PRUNED)
    idempotency_keys.put(tx, user_id, attempt.key, attempt.fingerprint, encoded)
    return Once(encoded, replayed=False)
