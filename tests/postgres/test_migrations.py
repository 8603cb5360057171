"""Migrations on PostgreSQL: at once from several hosts, and what a start on another schema or server says."""

import multiprocessing

import psycopg
import pytest

from backend.infrastructure.migrations import SchemaMismatch
from backend.postgres.migrations import check_schema, migrate
from backend.settings import SettingsError


def test_of_three_hosts_at_once_one_migrates(fresh_url):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        applied = pool.map(migrate, [fresh_url] * 3)
    assert sorted(map(bool, applied)) == [False, False, True]
    check_schema(fresh_url)


def test_a_migration_that_fails_leaves_nothing(fresh_url, tmp_path):
    (tmp_path / "0001_good.sql").write_text("CREATE TABLE good (id bigint);")
    (tmp_path / "0002_bad.sql").write_text("CREATE TABLE bad (id bigint); SELECT nonsense;")
    with pytest.raises(psycopg.Error):
        migrate(fresh_url, tmp_path)
    with psycopg.connect(fresh_url) as connection:
        assert connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall() == []


def test_an_absent_or_older_or_newer_schema_stops_the_start(fresh_url):
    with pytest.raises(SchemaMismatch, match="older"):
        check_schema(fresh_url)
    migrate(fresh_url)
    for change, word in (("DELETE FROM schema_migrations WHERE version = 8", "older"),
                         ("INSERT INTO schema_migrations VALUES (8, 'x', 0), (9999, 'x', 0)", "newer")):  # fmt: skip
        with psycopg.connect(fresh_url) as connection:
            connection.execute(change)
        with pytest.raises(SchemaMismatch, match=word):
            check_schema(fresh_url)


@pytest.mark.parametrize("url", [
    "postgresql://ada:hunter2@127.0.0.1:1/app", "postgresql://ada:hunter2@no-such-host.invalid/app",
    "postgresql://ada:hunter2@127.0.0.1:99999/app", "postgresql://ada:hunter2@[::1/app",
])  # fmt: skip
def test_a_server_that_cannot_be_reached_stops_the_start_with_one_line_without_the_password(url):
    with pytest.raises(SettingsError) as error:
        check_schema(url)
    assert str(error.value).startswith("DATABASE_URL")
    assert "hunter2" not in str(error.value)
    assert "\n" not in str(error.value)
