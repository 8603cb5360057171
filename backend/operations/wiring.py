"""Puts operations into the application: threads, routes and middleware beside the application's own."""

from dataclasses import replace

from app import Tools
from backend.operations.housekeeping import Housekeeping
from backend.settings import Settings


def with_operations(settings: Settings, tools: Tools) -> Tools:
    """The tools of one worker, with what operations add. Call it after the fork."""
    return replace(tools, background=(*tools.background, Housekeeping(settings, tools.database)))
