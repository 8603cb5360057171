"""The whole application with a log queue of 50 lines, so that a test can fill it."""

from app import create_app
from backend.infrastructure import logs

logs.standard_error().sink._limit = 50
application = create_app()
