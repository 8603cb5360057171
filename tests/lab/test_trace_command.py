"""`python app.py trace METHOD PATH`: the tree of one request, and one line for what is no request."""

import re
import sqlite3
from contextlib import closing

import pytest

from tests.cli.running import run, run_here
from tests.conftest import PASSWORD
from tests.wirings import make_app

LINE = re.compile(r" +\d+\.\d{3}  \w[\w ]{11}  +\S.*| +· .*")


@pytest.fixture
def database(settings):
    """With an active admin, root@example.com, and a deactivated user, gone@example.com."""
    app = make_app(settings)
    app.users.create_admin("root@example.com", PASSWORD, "Root")
    app.users.sign_up("gone@example.com", PASSWORD, "Gone")
    app.users.set_active("gone@example.com", False)
    app.close()
    return settings.database_path


def asked(database, question):
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(question).fetchone()[0]


def test_it_prints_the_tree_and_the_status(database):
    """In a process of its own, outside the project's folder."""
    done = run(database, "trace", "get", "/api/v1/users/me", "--as", "root@example.com")
    tree, _, status = done.stdout.rpartition("\n\n")
    assert (done.returncode, done.stderr, status) == (0, "", "200 OK\n")
    assert [line for line in tree.splitlines() if not LINE.fullmatch(line)] == []
    order = ["request_ids", "Logins.identify", "Tokens.verify", "SEARCH users", "UserRoutes.get_current_user"]
    assert sorted(order, key=tree.index) == order


def test_a_write_stays_and_the_login_that_it_used_has_ended(database):
    body = '{"sku": "TEA", "name": "Tea", "unitPrice": 250, "currency": "EUR",\n "stock": 1}'
    done = run_here(database, "trace", "POST", "/api/v1/products", "--as", "root@example.com", "--body", body)
    assert done.stdout.endswith("\n\n201 Created\n") and "COMMIT" in done.stdout
    assert asked(database, "SELECT stock FROM products WHERE sku = 'TEA'") == 1
    assert (
        asked(database, "SELECT count(*) FROM sessions") == asked(database, "SELECT count(ended_at) FROM sessions") == 1
    )


def test_an_error_is_told_with_its_fields(database):
    done = run_here(database, "trace", "POST", "/api/v1/users", "--body", '{"email": "x"}')
    status, error, *fields = done.stdout.rpartition("\n\n")[2].splitlines()
    assert (done.returncode, status, error) == (
        0, "422 Unprocessable Entity", "VALIDATION_ERROR: Some fields are invalid.",
    )  # fmt: skip
    assert [field.partition(":")[0] for field in fields] == ["email", "password", "name"]


@pytest.mark.parametrize("request_", [("GET", "/lab"), ("GET", "/labels"), ("HEAD", "/api/v1/nothing")])
def test_a_request_for_what_is_not_there_is_traced_as_well(database, request_):
    """Also if its path is the lab's, which the application of this command does not have, or its answer has no body."""
    done = run_here(database, "trace", *request_)
    assert (done.returncode, done.stderr) == (0, "")
    assert "  dispatch\n" in done.stdout or "  Router.find  ✗\n" in done.stdout
    assert "\n404 Not Found\n" in done.stdout


def test_a_login_prints_no_token_and_no_password(database):
    body = f'{{"email": "root@example.com", "password": "{PASSWORD}"}}'
    done = run_here(database, "trace", "POST", "/api/v1/auth/login", "--body", body)
    assert "200 OK" in done.stdout
    assert not re.search(r"eyJ|\$2b|\b[0-9a-f]{64}\b", done.stdout) and PASSWORD not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["G T", "/"], "METHOD must be a word, such as GET."),
        (["GET", "healthz"], "PATH must start with / and be percent-encoded."),
        (["GET", "/a b"], "PATH must start with / and be percent-encoded."),
        (["GET", "/\udcff"], "PATH must start with / and be percent-encoded."),
        (["GET", "/", "--body", "\udcff"], "EMAIL and JSON must be UTF-8."),
        (["GET", "/", "--as", "no@example.com"], "There is no active user no@example.com."),
        (["GET", "/", "--as", "gone@example.com"], "There is no active user gone@example.com."),
        (["GET", "/", "--as", ""], "There is no active user ."),
    ],
)
def test_what_is_no_request_or_no_active_user_is_one_line(database, arguments, line):
    done = run_here(database, "trace", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{line}\n")


def test_a_database_that_is_not_migrated_is_one_line(tmp_path):
    done = run_here(tmp_path / "none.db", "trace", "GET", "/")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert not (tmp_path / "none.db").exists()


def test_it_says_that_it_works_on_sqlite_alone(database):
    done = run_here(database, "trace", "GET", "/healthz", DATABASE_URL="postgresql://127.0.0.1:1/none")
    line = "trace works on SQLite alone, and DATABASE_URL is of PostgreSQL\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
