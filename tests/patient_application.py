"""The core's application for gunicorn, whose stop waits for a delivery as long as a slow machine takes."""

from app import create_app
from backend.delivery import relay

relay.STOP_SECONDS = 25.0  # gunicorn kills a worker after 30

__all__ = ["create_app"]
