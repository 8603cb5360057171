"""`users`: lists users, and deactivates or activates one as an admin does through the API."""

import pytest

from backend.cli import users
from tests.cli.running import refused, run_here


def rows(done):
    """The rows of the table without the header, split into words."""
    assert (done.returncode, done.stderr) == (0, "")
    head, *lines = [line.split() for line in done.stdout.splitlines()]
    assert head == ["ID", "CREATED", "STATE", "ROLES", "E-MAIL"]
    return lines


def test_users_are_listed_oldest_first(database_path, api, admin, ada, grace):
    api.patch(f"/users/{grace.id}", admin, {"active": False})
    created = [api.get(f"/users/{person.id}", admin).json["data"]["createdAt"] for person in (admin, ada, grace)]
    assert rows(run_here(database_path, "users")) == [
        [admin.id, created[0], "active", "admin,user", admin.email],
        [ada.id, created[1], "active", "user", ada.email],
        [grace.id, created[2], "deactivated", "user", grace.email],
    ]


def test_without_users_the_table_is_empty(database_path):
    assert rows(run_here(database_path, "users")) == []


def test_each_user_is_listed_once_however_many_there_are(app, api, monkeypatch, capsys):
    monkeypatch.setattr(users, "PAGE", 2)
    ids = [api.sign_up(name).id for name in ("Ada", "Grace", "Lin", "Mary", "Rosa")]
    users.list_all(app)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == ids


def test_a_deactivated_user_is_locked_out_and_an_activated_one_logs_in_again(database_path, api, admin, ada):
    """Every login ends and stays ended. Each command is idempotent."""
    for _ in range(2):
        done = run_here(database_path, "users", "--deactivate", " ADA@example.com")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "ada@example.com is deactivated; every login of this user has ended\n"
    assert api.get("/users/me", ada).status_code == 401
    assert api.post("/auth/refresh", json={"refreshToken": ada.refresh}).status_code == 401
    login = {"email": ada.email, "password": "correct horse battery staple"}
    assert api.post("/auth/login", json=login).status_code == 401
    for _ in range(2):
        done = run_here(database_path, "users", "--activate", "ada@example.com")
        assert (done.returncode, done.stdout, done.stderr) == (0, "ada@example.com is active\n", "")
    assert api.get("/users/me", ada).status_code == 401
    assert api.log_in(ada.email).id == ada.id


def test_events_and_audit_equal_those_of_the_api_except_for_the_actor(database_path, api, admin, ada):
    """The same changes, made through the API and through the command line."""
    for active in (False, True):
        api.patch(f"/users/{ada.id}", admin, {"active": active})
    for option in ("--deactivate", "--activate"):
        assert run_here(database_path, "users", option, ada.email).returncode == 0
    with api.app.database.snapshot() as tx:
        events = tx.rows(
            "SELECT name, user_id, payload FROM outbox WHERE resource_id = :id AND name <> 'user.created' ORDER BY seq",
            id=ada.id,
        )
    by_api, by_command = events[:2], events[2:]
    assert [name for name, *_ in by_api] == ["user.deactivated", "user.updated"]
    assert [(name, payload) for name, _, payload in by_command] == [(name, payload) for name, _, payload in by_api]
    assert [user_id for _, user_id, _ in events] == [admin.id, admin.id, None, None]


def test_the_last_active_admin_cannot_be_deactivated(database_path, api, admin):
    assert (
        refused(run_here(database_path, "users", "--deactivate", admin.email)) == "The last active admin must stay one."
    )
    assert api.get("/users/me", admin).status_code == 200
    other = api.admin("Other")
    assert run_here(database_path, "users", "--deactivate", admin.email).returncode == 0
    assert "last active admin" in refused(run_here(database_path, "users", "--deactivate", other.email))


@pytest.mark.parametrize("option", ["--activate", "--deactivate"])
@pytest.mark.parametrize("email", ["nobody@example.com", "nonsense", ""])
def test_an_unknown_e_mail_fails_with_one_line(database_path, option, email):
    assert refused(run_here(database_path, "users", option, email)) == "No user has this e-mail address."
