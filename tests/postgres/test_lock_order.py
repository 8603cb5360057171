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


def test_admins_that_change_each_other_take_turns(api, admin, monkeypatch):
    """Both users are locked in the order of their ids, whichever of them is the caller."""
    other, save, runs = api.admin("Other"), api.app.users.update, []
    monkeypatch.setattr(api.app.users, "update", lambda *given: (runs.append(1), save(*given))[1])
    answers = at_once(
        [lambda by=by, of=of, n=n: api.patch(f"/users/{of.id}", by, {"name": f"Name {n}"})
         for n in range(10) for by, of in ((admin, other), (other, admin))]
    )  # fmt: skip
    assert {answer.status_code for answer in answers} == {200}
    assert len(runs) == len(answers)
