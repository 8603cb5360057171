"""The whole application with a log queue of 50 lines, so that a test can fill it."""

from backend.infrastructure import logs
from backend.production.wiring import create_app

logs.standard_error().sink._limit = 50
application = create_app()
