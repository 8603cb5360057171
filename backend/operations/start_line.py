"""The start line: which program runs with which settings, once in the log at each start.

Without it a log does not say which version answered a request, nor with which settings. The master of gunicorn logs it
after its checks and before the first worker, the development server before its first request. A start that is refused
has none.

Promised: no secret is in it. A setting that may hold one is shown as `set`. Not promised: options of gunicorn's own
command line, such as `--workers`; a line for SIGHUP, since environment and master stay the same.
"""

import logging
import os
import platform
import shlex
import sqlite3
from collections.abc import Iterator, Mapping

from backend import __version__
from backend.infrastructure.migrations import DIRECTORY, schema_version
from backend.settings import SECRET, VARIABLES, Settings, text_of

log = logging.getLogger(__name__)


def log_start(settings: Settings) -> None:
    """Log the line, at level INFO. `settings` are those of this process's environment."""
    log.info(start_line(settings, os.environ))


def start_line(settings: Settings, environment: Mapping[str, str]) -> str:
    """Versions of service, schema, engine and Python, and the settings that differ from their defaults.

    `environment` is that of which `settings` were read. Values are quoted as for a shell.
    """
    engine, files = f"SQLite {sqlite3.sqlite_version}", DIRECTORY
    if settings.postgres_url:
        engine, files = "PostgreSQL", DIRECTORY.with_name("postgres")
    return (
        f"reference-backend {__version__}, schema {schema_version(files)}, {engine}, "
        f"Python {platform.python_version()}, {' '.join(_changed(settings, environment)) or 'default settings'}"
    )


def _changed(settings: Settings, environment: Mapping[str, str]) -> Iterator[str]:
    defaults = Settings()
    for name, (attribute, *_) in VARIABLES.items():
        text = text_of(name, environment)
        if text and getattr(settings, attribute) != getattr(defaults, attribute):
            yield f"{name}={'set' if name in SECRET else shlex.quote(text)}"
