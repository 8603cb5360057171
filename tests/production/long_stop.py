"""Production's configuration with a longer stop: a client on a busy machine may need more than a second to see it."""

from backend.gunicorn_conf import *  # noqa: F403 - gunicorn reads the names of this module
from backend.production import gunicorn_worker

gunicorn_worker.STOP_SECONDS = 5.0
