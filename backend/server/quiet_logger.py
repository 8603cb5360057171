"""Gunicorn's logger without its access log: it would put that together for each request, only to drop it."""

from gunicorn.glogging import Logger


class QuietLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """The application writes the line for each request, see `web/middleware.py`."""

    access_log_enabled = False
