"""The whole application with a log queue of 50 lines, so that a test can fill it."""

import logging
from dataclasses import replace

from app import App
from backend.production.log_queue import LogQueue
from backend.production.wiring import production_tools
from backend.settings import Settings

settings, queue = Settings.from_environment(), LogQueue(2, limit=50)
logging.getLogger().handlers = [queue]
application = App(settings, replace(production_tools(settings), log_request=queue.log_request))
