"""What clients got after the backup's moment is worth nothing once the backup is restored."""

from pathlib import Path

import pytest

from backend.operations.restore import restore
from tests.conftest import PASSWORD, Api
from tests.operations.conftest import back_up


@pytest.fixture
def restored(make_api, database_path, tmp_path):
    """`restored(api)` stops the application, restores the backup `first.db`, and starts another."""

    def again(api: Api) -> Api:
        api.app.close()
        restore(tmp_path / "first.db", database_path)
        return make_api()

    return again


def save(database: Path) -> None:
    back_up(database, database.with_name("first.db"))


def test_every_login_ends(api, ada, database_path, restored):
    """That of before the backup, that of after it, and what a refresh token of either gives. A new login works."""
    save(database_path)
    later = api.log_in(ada.email)
    api = restored(api)
    for person in (ada, later):
        answer = api.get("/users/me", person)
        assert (answer.status_code, answer.json["error"]["details"]) == (401, {"reason": "revoked"})
        assert api.post("/auth/refresh", json={"refreshToken": person.refresh}).status_code == 401
    assert api.get("/users/me", api.log_in(ada.email)).status_code == 200


def test_open_password_resets_end(api, ada, database_path, restored):
    """A reset link from before the backup may have been used, or found, since."""
    api.app.relay.stop()
    api.post("/auth/password-reset", json={"email": ada.email})
    save(database_path)
    api = restored(api)
    with api.app.database.snapshot() as tx:
        assert tx.rows("SELECT * FROM reset_requests") == tx.rows("SELECT * FROM password_resets") == []
    assert api.log_in(ada.email, PASSWORD)


def test_an_open_reset_link_is_void(api, ada, database_path, restored):
    reset_id = "0198c0de-0000-7000-8000-000000000001"
    with api.app.database.transaction() as tx:
        tx.run("INSERT INTO password_resets (id, user_id, created_at) VALUES (:id, :user, :now)",
               id=reset_id, user=ada.id, now=tx.now)  # fmt: skip
    token = api.app.credentials.reset_token(reset_id)
    save(database_path)
    api = restored(api)
    answer = api.post("/auth/password-reset/confirm", json={"token": token, "newPassword": "another pass word"})
    assert (answer.status_code, list(answer.json["error"]["details"])) == (422, ["token"])


@pytest.mark.parametrize("times", [1, 2])
def test_no_version_of_a_product_or_user_comes_again_with_another_content(
    api, admin, ada, database_path, restored, times
):
    """An ETag from after the backup neither makes an old copy good (304) nor passes `If-Match`.

    Nor does one from between two restores of the same backup.
    """
    paths = [f"/products/{api.product(admin)}", f"/users/{ada.id}"]
    save(database_path)
    stale: set[tuple[str, str]] = set()
    for restores in range(times + 1):
        api = restored(api) if restores else api
        root, seen = api.log_in(admin.email), set()
        for name in ("Its first name", "Another name", "A third name"):
            for path in paths:
                seen.add((path, api.get(path, root).headers["ETag"]))
                for tag in [tag for of, tag in stale if of == path]:
                    assert api.get(path, root, headers={"If-None-Match": tag}).status_code == 200
                    assert api.patch(path, root, {"name": "Stale"}, headers={"If-Match": tag}).status_code == 412
                changed = api.patch(path, root, {"name": name})
                assert changed.json["data"]["version"] < 2**53  # beyond it JavaScript rounds
                seen.add((path, changed.headers["ETag"]))
        assert not seen & stale
        stale |= seen


def test_money_and_orders_are_those_of_the_backup(api, admin, ada, database_path, restored):
    account = api.account(ada, balance=100, admin=admin)
    save(database_path)
    api.post(f"/accounts/{account}/deposits", admin, {"amount": 50})
    assert api.balance(account, ada) == 150
    api = restored(api)
    assert api.balance(account, api.log_in(ada.email)) == 100
