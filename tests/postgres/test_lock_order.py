"""Requests that lock the same rows take turns: a deadlock would cost each a second, and be run again."""

from tests.at_once import at_once


def test_uses_of_a_token_and_its_successor_take_turns(api, ada, monkeypatch):
    """All lock the user, then the login, then its tokens."""
    refresh, runs = api.app.logins.refresh, []
    child = refresh(ada.refresh).refresh_token
    monkeypatch.setattr(api.app.logins, "refresh", lambda token: (runs.append(token), refresh(token))[1])
    at_once(
        [lambda token=token: api.post("/auth/refresh", json={"refreshToken": token})
         for token in (ada.refresh, child) * 4]
    )  # fmt: skip
    assert len(runs) == 8
