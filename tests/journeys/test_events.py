"""Every kind of event: its name, resource, actor and payload, as webhooks and the audit log get it."""

import re
from pathlib import Path

import pytest

from backend.settings import Networks
from tests.conftest import PASSWORD
from tests.mailbox import Mailbox
from tests.waiting import wait_until
from tests.webhook_receiver import receiving

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SERVICES = Path(__file__).parents[2] / "backend" / "services"


@pytest.fixture
def receiver():
    with receiving() as (made, port):
        made.url = f"http://127.0.0.1:{port}/hook"
        yield made


@pytest.fixture
def api(make_api, receiver):
    networks = Networks("127.0.0.0/8")
    return make_api(webhook_urls=(receiver.url,), webhook_secret=SECRET, webhook_allow_networks=networks)


class Told:
    """The events that should have been published so far: name, resource type, resource id, user id, payload."""

    def __init__(self):
        self.events = []

    def tell(self, name, resource_id, by, **payload):
        of = {"deposit": "transaction", "withdrawal": "transaction", "transfer": "transaction",
              "payment": "transaction", "refund": "transaction", "password": "user"}  # fmt: skip
        first = name.partition(".")[0]
        kind = "user" if name == "session.all_ended" else of.get(first, first)
        self.events.append((name, kind, resource_id, by.id if by else None, payload))

    def signed_up(self, api, name):
        person = api.sign_up(name)
        self.tell("user.created", person.id, person)
        self.tell("session.created", session_of(api, person), person)
        return person

    def logged_in(self, api, person, password=PASSWORD):
        person = api.log_in(person.email, password)
        self.tell("session.created", session_of(api, person), person)
        return person


def session_of(api, person):
    (session,) = [each for each in api.get("/auth/sessions", person).json["data"] if each["current"]]
    return session["id"]


def done(answer):
    assert answer.status_code < 300, answer.text
    return answer.json and answer.json["data"]


def users_and_sessions(api, told, clock, mailbox):
    """Everything that can happen to a user, done by an admin and by Ada, the user that is not deleted."""
    admin = told.signed_up(api, "Root")
    with api.app.database.transaction() as tx:
        api.app.users.grant_admin(tx, admin.id)
    told.tell("user.updated", admin.id, None, changed=["roles"])
    ada = told.signed_up(api, "Ada")
    done(api.patch("/users/me", ada, {"name": "Ada L."}))
    told.tell("user.updated", ada.id, ada, changed=["name"])
    done(api.patch(f"/users/{ada.id}", admin, {"name": "Ada", "roles": ["admin", "user"]}))
    told.tell("user.updated", ada.id, admin, changed=["name", "roles"])
    done(api.patch(f"/users/{ada.id}", admin, {"roles": ["user"]}))
    told.tell("user.updated", ada.id, admin, changed=["roles"])
    second = told.logged_in(api, ada)
    told.tell("session.ended", session_of(api, second), ada)
    done(api.post("/auth/logout", json={"refreshToken": second.refresh}))
    third = told.logged_in(api, ada)
    told.tell("session.ended", session_of(api, third), ada)
    done(api.delete(f"/auth/sessions/{session_of(api, third)}", ada))
    stolen = told.logged_in(api, ada)
    told.tell("session.refresh_repeated", session_of(api, stolen), ada)
    told.tell("session.reuse_detected", session_of(api, stolen), ada)
    for _ in range(2):
        done(api.post("/auth/refresh", json={"refreshToken": stolen.refresh}))
    clock.advance(11)
    assert api.post("/auth/refresh", json={"refreshToken": stolen.refresh}).status_code == 401
    done(api.post("/auth/password", ada, {"currentPassword": PASSWORD, "newPassword": "another pass phrase"}))
    told.tell("password.changed", ada.id, ada)
    token = mailbox.reset_token(api, ada.email)
    told.tell("password.reset_requested", ada.id, ada)
    done(api.post("/auth/password-reset/confirm", json={"token": token, "newPassword": PASSWORD}))
    told.tell("password.reset", ada.id, ada)
    ada = told.logged_in(api, ada)
    done(api.delete("/auth/sessions", ada))
    told.tell("session.all_ended", ada.id, ada)
    gone, deleted = told.signed_up(api, "Gone"), told.signed_up(api, "Deleted")
    done(api.patch(f"/users/{gone.id}", admin, {"active": False}))
    told.tell("user.deactivated", gone.id, admin, changed=["active"])
    done(api.delete(f"/users/{deleted.id}", admin))
    told.tell("user.deactivated", deleted.id, admin, changed=["email", "name", "active"])
    told.tell("user.deleted", deleted.id, admin)
    return admin, told.logged_in(api, ada)


def money_and_goods(api, told, admin, ada):
    """Everything that can happen to a product, an account, a transaction and an order."""
    product = api.product(admin, price=250, stock=10)
    told.tell("product.created", product, admin)
    done(api.patch(f"/products/{product}", admin, {"name": "Better", "unitPrice": 250, "stock": 9}))
    told.tell("product.updated", product, admin, changed=["name", "stock"])
    accounts = [api.account(ada), api.account(ada)]
    for account in accounts:
        told.tell("account.created", account, ada)
    for kind, event, amount in (("deposits", "deposit.completed", 5000), ("withdrawals", "withdrawal.completed", 300)):
        transaction = done(api.post(f"/accounts/{accounts[0]}/{kind}", admin, {"amount": amount}))
        told.tell(event, transaction["id"], admin, amount=amount)
    body = {"fromAccountId": accounts[0], "toAccountId": accounts[1], "amount": 40}
    told.tell("transfer.completed", done(api.post("/transfers", ada, body))["id"], ada, amount=40)
    for end, event, by in (("cancel", "order.cancelled", ada), ("fulfil", "order.fulfilled", admin)):
        body = {"accountId": accounts[0], "items": [{"productId": product, "quantity": 3}]}
        order = done(api.post("/orders", ada, body))["id"]
        told.tell("payment.completed", newest_transaction(api, accounts[0], ada), ada, amount=750)
        told.tell("order.placed", order, ada, total=750)
        done(api.post(f"/orders/{order}/{end}", by))
        told.tell(event, order, by)
        if end == "cancel":
            told.tell("refund.completed", newest_transaction(api, accounts[0], ada), ada, amount=750)


def newest_transaction(api, account, by):
    return done(api.get(f"/accounts/{account}/transactions?limit=1", by))[0]["id"]


def test_every_event_has_its_name_resource_actor_and_payload(api, receiver, clock, settings):
    """Webhooks get the payload, and the events of one resource in order; the audit log has a row for each."""
    told = Told()
    admin, ada = users_and_sessions(api, told, clock, Mailbox(settings.database_path.parent / "outbox"))
    money_and_goods(api, told, admin, ada)
    wait_until(lambda: len(receiver.arrivals) == len(told.events))
    arrived = [arrival.json for arrival in receiver.arrivals]
    about = ("resourceType", "resourceId", "userId")
    sent = [
        (one["type"], *(one["data"].pop(key) for key in about), without(one["data"], "requestId")) for one in arrived
    ]
    assert by_resource(sent) == by_resource(told.events)
    wait_until(lambda: len(done(api.get("/audit?limit=100", admin))) == len(told.events))
    audit = done(api.get("/audit?limit=100", admin))[::-1]
    assert [(row["action"], *(row[key] for key in about)) for row in audit] == [event[:4] for event in told.events]


def by_resource(events):
    """The events of each resource, in their order."""
    resources = {(kind, resource_id) for _, kind, resource_id, *_ in events}
    return {resource: [event for event in events if event[1:3] == resource] for resource in resources}


def without(fields, *names):
    return {name: value for name, value in fields.items() if name not in names}


def test_every_event_of_the_services_is_the_subject_of_a_journey():
    journeys = "".join(file.read_text() for file in Path(__file__).parent.glob("*.py"))
    untold = [name for name in names_in_the_services() if f'"{name}"' not in journeys]
    assert untold == [], "a test in tests/journeys/ must read these events in the audit log, by their names"


def names_in_the_services():
    """Every event that the services can publish. A new one has to be added to this walk."""
    texts = "".join(file.read_text() for file in SERVICES.glob("*.py"))
    literal = set(re.findall(r'"([a-z]+\.[a-z_]+)"', texts))
    types = ("deposit", "withdrawal", "transfer", "payment", "refund")
    return literal | {f"{type}.completed" for type in types} | {"order.cancelled", "order.fulfilled"}
