"""No N+1: a list takes as many SQL statements for thirty rows as for one, whatever belongs to each row."""

import pytest

from tests.conftest import PASSWORD

ROWS = 30


@pytest.fixture
def api(work, make_api):
    """Without a cache: every request reads all that it needs from the database."""
    api = make_api(cache_size=0)
    api.app.relay.stop()  # so that no commit but the test's own makes production's cache read its log
    return api


def statements(work, api, path, by):
    """The statements that a request runs, and the data of its answer."""
    api.get(path, by)  # production's cache reads its log of earlier writes here
    answer, seen = work.statements_of(lambda: api.get(path, by))
    assert answer.status_code == 200, answer.text
    return seen, answer.json["data"]


def users(api, admin, ada):
    for n in range(ROWS):
        api.post("/users", json={"email": f"{n}@example.com", "password": PASSWORD, "name": f"User {n}"})


def sessions(api, admin, ada):
    for _ in range(ROWS - 1):
        api.post("/auth/login", json={"email": ada.email, "password": PASSWORD})


def products(api, admin, ada):
    return [api.product(admin, f"SKU-{n}", price=1, stock=1000) for n in range(ROWS)]


def accounts(api, admin, ada):
    for _ in range(ROWS):
        api.account(ada)


def movements(api, admin, ada):
    account = api.account(ada)
    for _ in range(ROWS):
        api.post(f"/accounts/{account}/deposits", admin, {"amount": 1})
    return account


def orders(api, admin, ada, person=None):
    """Place orders, each of two products, as Ada or another user."""
    person = person or ada
    wanted = [{"productId": api.product(admin, f"{person.id}-{n}", stock=1000), "quantity": 1} for n in range(2)]
    account = api.account(person, balance=100_000, admin=admin)
    for _ in range(ROWS):
        assert api.post("/orders", person, {"accountId": account, "items": wanted}).status_code == 201


def users_with_orders(api, admin, ada):
    users(api, admin, ada)
    for n in range(3):
        orders(api, admin, ada, api.sign_up(f"Buyer{n}"))


@pytest.mark.parametrize(
    ("fill", "path", "caller"),
    [
        (users, "/users?pageSize={n}", "admin"),
        (users, "/users?pageSize={n}&q=user&role=user&sort=email", "admin"),
        (users_with_orders, "/users?pageSize={n}&include=orders", "admin"),
        (products, "/products?limit={n}", None),
        (accounts, "/accounts?limit={n}", "ada"),
        (accounts, "/accounts?limit={n}", "admin"),
        (movements, "/accounts/{made}/transactions?limit={n}", "ada"),
        (orders, "/orders?limit={n}", "ada"),
        (orders, "/orders?limit={n}&status=placed", "admin"),
    ],
)
def test_a_longer_page_takes_no_more_statements(work, api, admin, ada, fill, path, caller):
    made = fill(api, admin, ada)
    by = {"admin": admin, "ada": ada, None: None}[caller]
    one, short = statements(work, api, path.format(n=1, made=made), by)
    many, long = statements(work, api, path.format(n=ROWS, made=made), by)
    assert (len(short), len(long)) == (1, ROWS)
    assert 0 < len(one) == len(many), many


def test_a_user_with_many_logins_takes_no_more_statements(work, api, admin, ada):
    one, short = statements(work, api, "/auth/sessions", ada)
    sessions(api, admin, ada)
    many, long = statements(work, api, "/auth/sessions", ada)
    assert (len(short), len(long)) == (1, ROWS)
    assert 0 < len(one) == len(many), many


def test_an_order_of_many_items_takes_no_more_statements(work, api, admin, ada):
    stock, account = products(api, admin, ada), api.account(ada, balance=1000, admin=admin)
    counts = []
    for wanted in (stock[:1], stock):
        items = [{"productId": product, "quantity": 1} for product in wanted]
        order = api.post("/orders", ada, {"accountId": account, "items": items}).json["data"]["id"]
        seen, shown = statements(work, api, f"/orders/{order}", ada)
        assert len(shown["items"]) == len(wanted)
        counts.append(len(seen))
    assert 0 < counts[0] == counts[1]


@pytest.mark.sqlite
def test_what_is_cached_takes_no_statement(work, make_api, wiring):
    """A product and the list of them. Production caches a token's session and user, too, and asks for new commits."""
    api = make_api()
    api.app.relay.stop()
    admin = api.admin()
    product = api.product(admin)
    by, expected = (admin, {"PRAGMA data_version"}) if wiring == "production" else (None, set())
    for path in (f"/products/{product}", "/products"):
        api.get(path, by)
        seen, _ = statements(work, api, path, by)
        assert set(seen) == expected


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("fill", "path"),
    [
        (orders, "/orders"),
        (orders, "/orders?status=placed"),
        (orders, "/orders?status=fulfilled"),
        (accounts, "/accounts"),
        (movements, "/accounts/{made}/transactions"),
    ],
)
def test_rows_of_others_do_not_slow_a_users_own_lists_down(work, api, admin, ada, fill, path):
    """Measured in steps of SQLite's machine.

    The server runs these lists in its loop, so none may grow with the business.
    """
    made = fill(api, admin, ada)
    alone = steps(work, api, path.format(made=made), ada)
    for status in ("placed", "fulfilled"):
        stranger = api.sign_up(status)
        orders(api, admin, ada, stranger)
        with api.app.database.transaction() as tx:
            tx.run("UPDATE orders SET status = :status WHERE user_id = :id", status=status, id=stranger.id)
    assert steps(work, api, path.format(made=made), ada) <= alone + ROWS  # less than one for each of theirs


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("fill", "path", "caller"),
    [
        (products, "/products", None),
        (accounts, "/accounts", "ada"),
        (accounts, "/accounts", "admin"),
        (movements, "/accounts/{made}/transactions", "ada"),
        (orders, "/orders", "ada"),
        (orders, "/orders?status=placed", "admin"),
    ],
)
def test_a_short_page_reads_no_more_than_it_shows(work, api, admin, ada, fill, path, caller):
    """It does not read the whole list and drop the rest."""
    made = fill(api, admin, ada)
    by = {"admin": admin, "ada": ada, None: None}[caller]
    path = f"{path}{'&' if '?' in path else '?'}limit=".format(made=made)
    assert steps(work, api, f"{path}1", by) + 2 * ROWS <= steps(work, api, f"{path}{ROWS}", by)


def steps(work, api, path, by):
    """The approximate number of steps that SQLite's machine takes for a request."""
    api.get(path, by)
    answer, taken = work.steps_of(lambda: api.get(path, by))
    assert answer.status_code == 200, answer.text
    return taken
