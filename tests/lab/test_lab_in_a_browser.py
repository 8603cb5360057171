"""The lab's page in a real Chromium on a real server: spans in order, code, storms, keyboard, colours, widths, axe."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.chromium import MILLISECONDS, Visit, chromium, needs_chromium
from tests.lab.conftest import lab_server
from tests.lab.test_trace import TRANSFER

SIZES = {"phone": {"width": 375, "height": 800}, "projector": {"width": 1920, "height": 1080}}
GROUND = {"light": "rgb(251, 250, 247)", "dark": "rgb(20, 23, 28)"}
pytestmark = needs_chromium


class Lab(Visit):
    def __init__(self, page: Page, url: str, part: str = "") -> None:
        super().__init__(page, f"{url}/lab{part}")
        page.locator("#as option", has_text="Grace").wait_for(state="attached")
        page.locator("article").first.wait_for(state="attached")

    def send(self, example: str) -> None:
        """Choose an example, send it, and wait for its spans."""
        self.page.get_by_label("Example").select_option(label=example)
        with self.page.expect_response(lambda response: "/lab/trace" in response.url) as traced:
            self.page.get_by_role("button", name="Send").click()
        assert traced.value.status == 200
        expect(self.page.locator("#send")).to_be_enabled(timeout=MILLISECONDS)

    def spans(self) -> list[str]:
        return self.page.locator("#spans .name").all_inner_texts()

    def faults(self) -> list[str]:
        """What axe-core finds on the page as it is now."""
        found = Axe().run(self.page, options={"resultTypes": ["violations"]}).response["violations"]
        return [f"{fault['id']}: {node['html']}" for fault in found for node in fault["nodes"]]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with lab_server(tmp_path_factory.mktemp("lab"), RATE_LIMIT_DEFAULT="10000/60") as (host, port):
        yield f"http://{host}:{port}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as launched:
        yield launched


def test_a_transfer_shows_its_spans_in_order_and_the_code_of_the_chosen_one(browser, url):
    """The browser violates no policy and asks no other server."""
    lab = Lab(browser.new_page(), url)
    lab.send("Transfer 5.00 under a key; again: a replay")
    expect(lab.page.locator("#summary")).to_contain_text("201 Created")
    rest = iter(lab.spans())
    assert [name for name in TRANSFER if not any(each.startswith(name) for each in rest)] == []
    detail = lab.page.locator("#detail")
    expect(detail).to_contain_text("def create_transfer(")
    lab.page.get_by_role("button", name="Ledger.move").click()
    expect(detail).to_contain_text("raise InsufficientFunds")
    lab.page.get_by_role("button", name="UPDATE accounts").first.click()
    for text in ("SEARCH accounts USING PRIMARY KEY", "changed", "def add_to_balance("):
        expect(detail).to_contain_text(text)
    assert lab.complaints == []
    assert lab.asked - {("data", "")} == {("http", urlsplit(url).netloc)}
    lab.page.close()


def test_the_same_request_again_is_a_replay_and_the_same_read_a_hit(browser, url):
    lab = Lab(browser.new_page(), url)
    lab.send("Transfer 5.00 under a key; again: a replay")
    with lab.page.expect_response(lambda response: "/transfers" in response.url) as again:
        lab.page.get_by_role("textbox", name="Body").press("Control+Enter")
    assert again.value.headers["idempotency-replayed"] == "true"
    expect(lab.page.locator("#summary")).to_contain_text("4 statements")  # not twelve
    lab.send("Change a product: invalidated after the commit")
    for outcome in ("miss", "hit"):
        lab.send("Read a product; again: a hit")
        expect(lab.page.locator("#layers li", has_text="cache").locator(".outcome")).to_have_text(outcome)
    lab.page.close()


def test_a_refused_request_shows_where_the_error_left(browser, url):
    lab = Lab(browser.new_page(), url)
    lab.send("Transfer more than there is: a rollback")
    expect(lab.page.locator("#summary")).to_contain_text("422")
    expect(lab.page.locator("#spans li", has_text="Ledger.move")).to_contain_text("raised an error")
    assert "ROLLBACK" in lab.spans() and "COMMIT" not in lab.spans()
    lab.page.close()


def test_the_arrow_keys_move_through_the_spans_and_a_layer_marks_its_own(browser, url):
    lab = Lab(browser.new_page(), url)
    lab.send("Read a product; again: a hit")
    lab.page.locator("#spans button").first.focus()
    lab.page.keyboard.press("ArrowDown")
    expect(lab.page.locator("#detail h3")).to_have_text("request_ids")
    assert lab.page.evaluate("document.activeElement.closest('li').dataset.layer") == "middleware"
    lab.page.keyboard.press("ArrowUp")
    expect(lab.page.locator("#detail h3")).to_contain_text("GET /api/v1/products/")
    layer = lab.page.locator("#layers button", has_text="middleware")
    layer.click()
    marked = lab.page.locator("#spans li:not(.dim)")
    assert set(marked.evaluate_all("all => all.map(each => each.dataset.layer)")) == {"middleware"}
    layer.click()
    expect(lab.page.locator("#spans li.dim")).to_have_count(0)
    lab.page.close()


def test_every_example_has_a_trace(browser, url):
    lab = Lab(browser.new_page(), url)
    for example in lab.page.locator("#example option").all_inner_texts():
        lab.send(example)
        assert lab.spans()[1] == "request_ids", example
    lab.page.close()


@pytest.mark.parametrize("storm", ["50 for one cold key", "30 for the last item", "A retry storm with one key"])
def test_a_storm_shows_its_promise_its_figures_and_each_request(browser, url, storm):
    lab = Lab(browser.new_page(), url, "#storms")
    card = lab.page.locator("article", has_text=storm)
    card.get_by_role("button", name="Run").click()
    expect(card.locator(".verdict")).to_have_text("✓ holds · lab")
    requests = int(card.locator(".figures").inner_text().split()[0])
    expect(card.locator("rect")).to_have_count(requests)
    counts = card.locator("tbody td:last-child").all_inner_texts()
    assert sum(map(int, counts)) == requests
    assert lab.complaints == []
    lab.page.close()


def test_a_storm_that_needs_the_traces_of_the_lab_runs_only_against_it(browser, url):
    lab = Lab(browser.new_page(), url, "#storms")
    runner = lab.page.locator("#storm-cold-key").get_by_role("button", name="Run")
    lab.page.get_by_label("the core, two workers").check()
    expect(runner).to_be_disabled()
    lab.page.get_by_label("the lab: the core, one process").check()
    expect(runner).to_be_enabled()
    lab.page.close()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_is_wider_than_the_screen(browser, url, scheme, size):
    """In both parts, empty and filled, in the colours of the system."""
    lab = Lab(browser.new_page(color_scheme=scheme, viewport=SIZES[size]), url)
    expect(lab.page.locator("body")).to_have_css("background-color", GROUND[scheme])
    found = lab.faults()
    lab.send("Order tea: stock and payment in one transaction")
    lab.page.get_by_text("The answer").first.click()
    found += lab.faults()
    wide = [lab.page.evaluate("document.documentElement.scrollWidth")]
    lab.page.get_by_role("link", name="Storms").click()
    card = lab.page.locator("#storm-thief")
    card.get_by_role("button", name="Run").click()
    expect(card.locator(".verdict")).to_contain_text("holds")
    found += lab.faults()
    wide.append(lab.page.evaluate("document.documentElement.scrollWidth"))
    assert (found, wide) == ([], [SIZES[size]["width"]] * 2)
    lab.page.close()
