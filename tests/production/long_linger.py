"""Production's configuration with a longer wait after a refusal, for a client that is slow to send the rest."""

from backend.gunicorn_conf import *  # noqa: F403 - gunicorn reads the names of this module
from backend.production import connection_loop

connection_loop.LINGER_SECONDS = 60.0
