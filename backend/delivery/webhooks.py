"""Webhooks: events are posted to WEBHOOK_URLS as Standard Webhooks 1.0 specifies.

`Webhook-Id` is the id of the event, the same for every try, so that a receiver can recognise a repetition.
`Webhook-Timestamp` is the time of the try. `Webhook-Signature` is `v1,` and the base64 of HMAC-SHA256 over
"id.timestamp.body". Every status but 2xx is a failure, redirects included. The body says what happened to which
resource, and repeats the payload of the event.
"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Sequence

from backend.delivery.outbound_post import post
from backend.domain import Event
from backend.infrastructure.timestamps import iso_time
from backend.services.events import DeliveryFailed, Subscriber
from backend.settings import Networks, Settings

TIMEOUT_SECONDS = 10.0  # for one try, below DELIVERY_SECONDS


class Webhook:
    """One receiver. Thread-safe. `clock` returns the wall time in seconds."""

    def __init__(self, url: str, key: bytes, allowed: Networks, clock: Callable[[], float] = time.time) -> None:
        self._url = url
        self._key = key
        self._allowed = allowed
        self._clock = clock

    def deliver(self, event: Event) -> None:
        """Post the event. Raises DeliveryFailed, OSError, http.client.HTTPException."""
        body = payload(event)
        sent = str(int(self._clock()))
        headers = {
            "Content-Type": "application/json",
            "Webhook-Id": event.id,
            "Webhook-Timestamp": sent,
            "Webhook-Signature": signature(self._key, event.id, sent, body),
        }
        status = post(self._url, body, headers, self._allowed, TIMEOUT_SECONDS)
        if not 200 <= status <= 299:
            raise DeliveryFailed(f"the receiver answered {status}")


def webhooks(settings: Settings) -> Sequence[Subscriber]:
    """One subscriber for each of WEBHOOK_URLS. Its name is a hash, because the URL may contain a secret."""
    key, allowed = signing_key(settings.webhook_secret or ""), settings.webhook_allow_networks
    return [
        Subscriber(f"webhook {hashlib.sha256(url.encode()).hexdigest()[:16]}", Webhook(url, key, allowed).deliver)
        for url in dict.fromkeys(settings.webhook_urls)
    ]


def signing_key(secret: str) -> bytes:
    """The key that `whsec_…` encodes."""
    return base64.b64decode(secret.removeprefix("whsec_"))


def payload(event: Event) -> bytes:
    """The body. The event's own fields win over fields of the same name in its payload."""
    data = {
        **event.payload, "resourceType": event.resource_type, "resourceId": event.resource_id,
        "userId": event.user_id, "requestId": event.request_id,
    }  # fmt: skip
    content = {"type": event.name, "timestamp": iso_time(event.created_at), "data": data}
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def signature(key: bytes, event_id: str, timestamp: str, body: bytes) -> str:
    signed = hmac.digest(key, f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(signed).decode()}"
