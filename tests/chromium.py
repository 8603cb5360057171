"""A real headless Chromium, Debian's, and visits of a page in it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium")
MILLISECONDS = 120_000  # that a busy machine may take for one step
REPORT_VIOLATIONS = (
    "addEventListener('securitypolicyviolation', e => console.error('violated: ' + e.violatedDirective))"
)
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="there is no chromium: apt-get install chromium")


@contextmanager
def chromium() -> Iterator[Browser]:
    expect.set_options(timeout=MILLISECONDS)
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


class Visit:
    """One visit of a page. `complaints` are what the browser reports, `asked` the origins of its requests."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.asked: set[tuple[str, str]] = set()
        page.set_default_timeout(MILLISECONDS)
        page.add_init_script(REPORT_VIOLATIONS)
        page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.asked.add(urlsplit(request.url)[:2]))
        page.goto(url)
