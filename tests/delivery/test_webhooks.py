"""Webhooks: signed as the standard specifies, posted to public addresses only, no redirect followed."""

import base64
import json
import time

import pytest

from backend.delivery import relay
from backend.delivery.webhooks import Webhook, payload, signature, signing_key, webhooks
from backend.domain import Event
from backend.services.events import DeliveryFailed
from backend.settings import Networks, Settings, SettingsError
from tests.waiting import wait_until
from tests.webhook_receiver import receiving

KEY = b"a key that both sides know"
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
LOOPBACK = Networks("127.0.0.0/8")
EVENT = Event(
    "01900000-0000-7000-8000-000000000001", "order.placed", "order", "01900000-0000-7000-8000-000000000002",
    "01900000-0000-7000-8000-000000000003", "request-1", {"total": 750}, 1_700_000_000_123,
)  # fmt: skip


@pytest.fixture
def receiver():
    with receiving() as (made, port):
        made.url = f"http://127.0.0.1:{port}/hook?a=1"
        yield made


@pytest.fixture
def webhook(receiver):
    return Webhook(receiver.url, KEY, LOOPBACK)


def test_the_signature_is_that_of_the_standard():
    """A known answer of the reference implementations."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_an_event_arrives_signed_and_whole(receiver, webhook):
    """Its id, the time of the try, and a body with type, timestamp and data."""
    webhook.deliver(EVENT)
    (arrival,) = receiver.arrivals
    assert arrival.path == "/hook?a=1"
    assert arrival.id == EVENT.id
    assert abs(int(arrival.headers["webhook-timestamp"]) - time.time()) < 10
    assert arrival.is_signed_with(KEY)
    assert not arrival.is_signed_with(b"another key")
    assert arrival.headers["content-type"] == "application/json"
    assert arrival.json == {
        "type": "order.placed", "timestamp": "2023-11-14T22:13:20.123Z",
        "data": {
            "resourceType": "order", "resourceId": EVENT.resource_id, "userId": EVENT.user_id,
            "requestId": "request-1", "total": 750,
        },
    }  # fmt: skip


def test_each_try_has_its_own_time_and_the_same_id(receiver):
    """So a receiver can recognise a repetition and refuse a replayed old request."""
    now = iter([1000.9, 2000.1])
    webhook = Webhook(receiver.url, KEY, LOOPBACK, lambda: next(now))
    webhook.deliver(EVENT)
    webhook.deliver(EVENT)
    first, second = receiver.arrivals
    assert (first.id, first.body) == (second.id, second.body)
    assert [each.headers["webhook-timestamp"] for each in (first, second)] == ["1000", "2000"]
    assert second.is_signed_with(KEY)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_delivered(receiver, webhook, status):
    receiver.answer = lambda *_: (status, {})
    webhook.deliver(EVENT)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308, 400, 401, 404, 410, 429, 500, 503, 600])
def test_anything_else_is_a_failure_and_no_redirect_is_followed(receiver, webhook, status):
    receiver.answer = lambda *_: (status, {"Location": receiver.url})
    with pytest.raises(DeliveryFailed, match=str(status)):
        webhook.deliver(EVENT)
    assert len(receiver.arrivals) == 1


def test_a_receiver_gets_every_event_of_an_application(make_api, receiver, clock, monkeypatch):
    """In the order of each aggregate, although the receiver fails every other time."""
    monkeypatch.setattr(relay, "POLL_SECONDS", 0.02)
    receiver.answer = lambda *_: (204 if len(receiver.arrivals) % 2 else 500, {})
    api = make_api(webhook_urls=(receiver.url,), webhook_secret=SECRET, webhook_allow_networks=LOOPBACK)
    admin = api.admin()
    product = api.product(admin)
    for price in (1, 2, 3):
        api.patch(f"/products/{product}", admin, {"unitPrice": price})
    with api.app.database.snapshot() as tx:
        published = tx.rows("SELECT id, name, resource_id FROM outbox ORDER BY seq")
    wait_until(lambda: clock.advance(1) or {one.id for one in receiver.arrivals} == {row[0] for row in published})
    arrived = dict.fromkeys((arrival.id, arrival.json["type"]) for arrival in receiver.arrivals)
    mine = {row[0] for row in published if row[2] == product}
    assert [each for each in arrived if each[0] in mine] == [(row[0], row[1]) for row in published if row[0] in mine]


def test_a_receiver_that_is_down_delays_no_other(make_api, receiver):
    """Nor the audit log."""
    dead = "http://127.0.0.1:1/"
    api = make_api(webhook_urls=(dead, receiver.url), webhook_secret=SECRET, webhook_allow_networks=LOOPBACK)
    admin = api.admin()
    wait_until(lambda: len(receiver.arrivals) == 3)  # signed up, logged in, made an admin
    wait_until(lambda: api.get("//readyz").status_code == 200)  # not while the audit log's thread is writing
    wait_until(lambda: len(api.get("/audit", admin).json["data"]) == 3)


def test_nothing_secret_is_sent(make_api, receiver, settings):
    """Of passwords and logins, a receiver only gets that something happened."""
    api = make_api(webhook_urls=(receiver.url,), webhook_secret=SECRET, webhook_allow_networks=LOOPBACK)
    ada = api.sign_up("Ada")
    api.post("/auth/refresh", json={"refreshToken": ada.refresh})
    api.post("/auth/password-reset", json={"email": ada.email})
    wait_until(lambda: "password.reset_requested" in [arrival.json["type"] for arrival in receiver.arrivals])
    with api.app.database.snapshot() as tx:
        ((reset_id,),) = tx.rows("SELECT id FROM password_resets")
        ((password_hash,),) = tx.rows("SELECT password_hash FROM users")
        outbox = json.dumps(tx.rows("SELECT * FROM outbox"))
    sent = outbox + "".join(str(arrival) for arrival in receiver.arrivals)
    for secret in (ada.access, ada.refresh, reset_id, password_hash, settings.jwt_secrets[0], SECRET[6:], ada.email):
        assert secret not in sent


def test_a_payload_cannot_overwrite_what_the_event_is_about():
    event = Event("id", "x.y", "order", "1", None, "r", {"resourceId": "2", "more": "ü"}, 0)
    data = json.loads(payload(event))["data"]
    assert data == {"resourceType": "order", "resourceId": "1", "userId": None, "requestId": "r", "more": "ü"}


def test_the_name_of_a_subscriber_does_not_reveal_its_url():
    """It does not change, and two URLs have different names."""
    settings = Settings(webhook_urls=("https://a.example/s3cret", "https://b.example/", "https://b.example/"))
    names = [subscriber.name for subscriber in webhooks(settings)]
    assert len(set(names)) == len(names) == 2
    assert names[0] == "webhook 5bbb66e53cc63086"


def test_the_key_is_the_decoded_secret():
    secret = Settings.from_environment({"WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}).webhook_secret
    assert signing_key(secret) == base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")


@pytest.mark.parametrize("secret", [None, "", "  "])
def test_webhooks_without_a_secret_stop_the_start(secret):
    """In one line that names the variable. Without a key every client could forge a signature."""
    environment = {"WEBHOOK_URLS": "https://hooks.example/"} | ({} if secret is None else {"WEBHOOK_SECRET": secret})
    with pytest.raises(
        SettingsError, match=r"^WEBHOOK_SECRET was empty; .*must be whsec_ and base64 of 24 to 64 bytes$"
    ):
        Settings.from_environment(environment)
