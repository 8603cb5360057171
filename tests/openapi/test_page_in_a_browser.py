"""`/docs` in a real Chromium on a real server: sign up, log in, try; and its colours, its accessibility, its width."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.chromium import MILLISECONDS, Visit, chromium, needs_chromium
from tests.cli.running import development_server

HEADING = {"light": "rgb(59, 65, 81)", "dark": "rgb(228, 230, 230)"}  # the colour of Swagger UI's headings
PHONE = {"width": 375, "height": 800}
pytestmark = needs_chromium


class Docs(Visit):
    def __init__(self, page: Page, url: str) -> None:
        super().__init__(page, f"{url}/docs")
        page.locator(".opblock").first.wait_for()

    def open(self, operation: str) -> None:
        self.page.locator(f"#operations-{operation} .opblock-summary-control").click()

    def execute(self, operation: str, body: str | None = None) -> tuple[int, Any]:
        """Send the example of an open operation, or `body`; the status that came and the body that the page shows."""
        box = self.page.locator(f"#operations-{operation}")
        if body is not None:
            box.get_by_label("Request body").fill(body)
        with self.page.expect_response(lambda response: response.request.method != "GET") as answered:
            box.get_by_role("button", name="Execute").click()
        answer = answered.value
        expect(box.locator(".live-responses-table")).to_contain_text(
            answer.headers["x-request-id"], timeout=MILLISECONDS
        )
        expect(box.locator(".live-responses-table .response-col_status").last).to_contain_text(str(answer.status))
        text = "" if answer.status == 204 else box.locator(".live-responses-table pre").first.inner_text()
        return answer.status, json.loads(text or "null")

    def serious_faults(self) -> list[str]:
        """What axe-core finds on the page as it is now."""
        found = Axe().run(self.page, options={"resultTypes": ["violations"]}).response["violations"]
        serious = [fault for fault in found if fault["impact"] in ("serious", "critical")]
        return [f"{fault['id']}: {node['html']}" for fault in serious for node in fault["nodes"]]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    database = tmp_path_factory.mktemp("docs") / "app.db"
    with development_server(database, RATE_LIMIT_AUTH="off") as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as launched:
        yield launched


def test_a_newcomer_signs_up_logs_in_and_tries(browser, url):
    """With the examples as they stand. The browser violates no policy and asks no other server."""
    docs = Docs(browser.new_page(), url)
    docs.page.get_by_role("link", name="Sign up").click()
    status, user = docs.execute("users-createUser")
    assert (status, user["data"]["name"]) == (201, "Earl Grey")
    docs.page.get_by_role("link", name="log in").click()
    assert docs.execute("auth-logIn")[0] == 200
    docs.open("accounts-createAccount")
    status, account = docs.execute("accounts-createAccount")
    assert (status, account["data"]["ownerId"], account["data"]["currency"]) == (201, user["data"]["id"], "EUR")
    status, refused = docs.execute("accounts-createAccount", '{"currency": "euro", "colour": "green"}')
    assert (status, refused["error"]["details"].keys()) == (422, {"currency", "colour"})
    assert [text for text in docs.complaints if "status of 422" not in text] == []
    assert docs.asked - {("data", "")} == {("http", urlsplit(url).netloc)}
    docs.page.close()


def test_the_token_is_kept_in_the_page_and_forgotten_when_it_is_refused(browser, url):
    """An ended login does not keep the next one from succeeding. No storage of the browser has a token."""
    docs = Docs(browser.new_page(), url)
    api, lady = docs.page.request, {"email": "lady@example.com", "password": "a quiet harbour"}
    assert api.post(f"{url}/api/v1/users", data={**lady, "name": "Lady Grey"}).status == 201
    docs.open("auth-logIn")
    docs.open("accounts-createAccount")
    for _ in range(2):
        status, pair = docs.execute("auth-logIn", json.dumps(lady))
        assert status == 200
        token = {"Authorization": f"Bearer {pair['data']['accessToken']}"}
        assert api.delete(f"{url}/api/v1/auth/sessions", headers=token).status == 204
    answers = [docs.execute("accounts-createAccount") for _ in range(2)]
    reasons = [(status, body["error"]["details"]["reason"]) for status, body in answers]
    assert reasons == [(401, "revoked"), (401, "missing")]
    assert docs.page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    docs.page.close()


@pytest.mark.parametrize(("scheme", "other"), [("light", "dark"), ("dark", "light")])
def test_it_has_the_colours_of_the_system_and_nothing_that_axe_calls_serious(browser, url, scheme, other):
    """axe-core finds nothing serious: in the list, an open operation with its answer, the dialog for a token."""
    docs = Docs(browser.new_page(color_scheme=scheme), url)
    heading = docs.page.locator(".opblock-tag").first
    expect(heading).to_have_css("color", HEADING[scheme])
    docs.open("auth-logIn")
    docs.execute("auth-logIn", "{}")
    assert docs.serious_faults() == []
    docs.page.get_by_text("What all operations have in common").click()
    docs.page.get_by_role("button", name="Authorize").click()
    docs.page.get_by_role("button", name="Close").first.wait_for()
    assert docs.serious_faults() == []
    docs.page.emulate_media(color_scheme=other)
    expect(heading).to_have_css("color", HEADING[other], timeout=MILLISECONDS)
    docs.page.close()


def test_it_fits_the_width_of_a_phone(browser, url):
    docs = Docs(browser.new_page(viewport=PHONE), url)
    docs.open("auth-logIn")
    docs.execute("auth-logIn", "{}")
    docs.page.get_by_text("What all operations have in common").click()
    assert docs.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    docs.page.close()
