"""Webhooks: events, posted to the addresses of WEBHOOK_URLS as Standard Webhooks 1.0 has it.

`Webhook-Id` is the event's, the same at every try, so that a receiver can tell a repetition; `Webhook-Timestamp` is the
try's. `Webhook-Signature` is `v1,` and base64 of HMAC-SHA256 over "id.timestamp.body". Anything but a 2xx is a failure,
redirects too. The body says what happened to which resource, and no more of it than the event's payload.
"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Sequence

from backend.delivery.outbound_post import post
from backend.domain import Event
from backend.infrastructure.logs import iso_time
from backend.services.events import DeliveryFailed, Subscriber
from backend.settings import Networks, Settings

TIMEOUT_SECONDS = 10.0  # of one try: a receiver that hangs gets no more than six a minute


class Webhook:
    """One receiver. Thread-safe."""

    def __init__(self, url: str, key: bytes, allowed: Networks, clock: Callable[[], float] = time.time) -> None:
        self._url = url
        self._key = key
        self._allowed = allowed
        self._clock = clock

    def deliver(self, event: Event) -> None:
        """Raises DeliveryFailed, OSError, http.client.HTTPException."""
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
    """A subscriber for each of WEBHOOK_URLS. Its name does not tell the URL, which may hold a secret."""
    key, allowed = signing_key(settings.webhook_secret or ""), settings.webhook_allow_networks
    return [
        Subscriber(f"webhook {hashlib.sha256(url.encode()).hexdigest()[:16]}", Webhook(url, key, allowed).deliver)
        for url in dict.fromkeys(settings.webhook_urls)
    ]


def signing_key(secret: str) -> bytes:
    """The key that `whsec_…` stands for."""
    return base64.b64decode(secret.removeprefix("whsec_"))


def payload(event: Event) -> bytes:
    data = {
        **event.payload, "resourceType": event.resource_type, "resourceId": event.resource_id,
        "userId": event.user_id, "requestId": event.request_id,
    }  # fmt: skip
    content = {"type": event.name, "timestamp": iso_time(event.created_at), "data": data}
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def signature(key: bytes, event_id: str, timestamp: str, body: bytes) -> str:
    signed = hmac.digest(key, f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(signed).decode()}"
