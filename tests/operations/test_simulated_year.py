"""Six weeks of the simulated year, with few users."""

from backend.operations import housekeeping
from tests.operations.simulated_year import LIVES, Year


def test_after_six_weeks_the_tables_hold_what_lives(tmp_path, monkeypatch):
    """Rows of every kind have been written and have died meanwhile."""
    monkeypatch.setattr(housekeeping, "PAUSE_SECONDS", 0)
    year = Year(tmp_path / "app.db", users=300, transfers_a_day=30)
    year.run(days=40)
    assert all(year.written[table] for table in LIVES if table != "cache_invalidations")
    assert year.dead() == dict.fromkeys(LIVES, 0)
    assert all(year.left()[table] for table in ("sessions", "refresh_tokens", "idempotency_keys", "outbox", "audit"))
    year.api.app.close()
