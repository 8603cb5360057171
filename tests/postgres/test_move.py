"""A database of SQLite is taken over whole, or not at all."""

import sqlite3
from contextlib import closing

import pytest

from backend.cli.move import TABLES, move
from backend.errors import Conflict


@pytest.fixture
def source(world, database_path):
    return database_path


def rows_of(execute):
    return {table: sorted(map(repr, execute(f"SELECT * FROM {table}").fetchall())) for table in TABLES}


def test_every_row_of_every_table_arrives(source, url, outsider):
    moved = move(source, url)
    with closing(sqlite3.connect(source)) as old:
        assert rows_of(outsider.execute) == rows_of(old.execute)
        names = {name for (name,) in old.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert names - set(TABLES) == {"schema_migrations", "cache_invalidations", "sqlite_sequence"}
    assert moved["users"] == 4


def test_the_service_goes_on_where_it_was(make_api, world):
    """Logins, balances and the numbers of events."""
    api = make_api()  # which has taken over the world
    owner = world.people["owner"]
    assert api.get("/users/me", owner).status_code == 200
    assert api.post("/accounts", owner, {"currency": "EUR"}).status_code == 201


def test_a_target_with_rows_is_refused(source, url, outsider):
    move(source, url)
    with pytest.raises(Conflict, match="not empty"):
        move(source, url)


def test_a_row_that_refers_to_nothing_stops_the_move_and_nothing_is_written(source, url, outsider):
    with closing(sqlite3.connect(source)) as old, old:
        old.execute("DELETE FROM products")
    with pytest.raises(Conflict, match=r"refused the move: .*foreign key"):
        move(source, url)
    assert outsider.execute("SELECT count(*) FROM users").fetchone() == (0,)


def test_books_that_do_not_add_up_stop_the_move(source, url, outsider):
    with closing(sqlite3.connect(source)) as old, old:
        old.execute("UPDATE accounts SET balance = balance + 1 WHERE kind = 'system'")
    with pytest.raises(Conflict, match="adds up"):
        move(source, url)
    assert outsider.execute("SELECT count(*) FROM users").fetchone() == (0,)
