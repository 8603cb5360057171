"""Idempotency keys: a repeated request gets the first answer again and has no second effect.

Key, effect and event are written in one transaction. Of two requests at the same moment, the second gets the write
lock after the first has committed, and finds its key. A request that fails leaves no key, because its transaction is
rolled back. The service checks rights before it calls `once`, so a replay needs them too. The database holds a hash of
each key: clients choose keys, and may put an address or a token into one.

An expired key is ignored, and overwritten when it is used again. It is not deleted here: that would be work on a
request's path (operations/housekeeping.py does it).
"""

import hashlib
import json
from collections.abc import Callable
from typing import TypeVar

from backend.domain import IdempotentRequest, IdempotentResult
from backend.errors import IdempotencyKeyReused
from backend.infrastructure.database import Tx
from backend.infrastructure.json_encoder import to_json
from backend.repositories import idempotency_keys

T = TypeVar("T")

LIFETIME = 24 * 3600 * 1000  # milliseconds


def once(tx: Tx, user_id: str, idempotent: IdempotentRequest, effect: Callable[[], T]) -> IdempotentResult[T]:
    """Run `effect`, or replay the answer of an earlier request with the same key.

    Raises IdempotencyKeyReused if that was a request for something else.
    """
    if idempotent.key is None:
        return IdempotentResult(effect(), replayed=False)
    key = hashlib.sha256(f"{user_id} {idempotent.key}".encode()).digest()
    earlier = idempotency_keys.find(tx, user_id, key, tx.now - LIFETIME)
    if earlier is not None:
        fingerprint, data = earlier
        if fingerprint != idempotent.fingerprint:
            raise IdempotencyKeyReused
        return IdempotentResult(json.loads(data), replayed=True)
    resource = effect()
    idempotency_keys.put(tx, user_id, key, idempotent.fingerprint, to_json(resource))
    return IdempotentResult(resource, replayed=False)
