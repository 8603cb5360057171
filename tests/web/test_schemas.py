"""Validation of bodies: all wrong fields at once, each under its path; no value is coerced."""

import re
import unicodedata
from dataclasses import dataclass

import pytest

from backend.web.schemas import fields_of
from tests.answers import details
from tests.conftest import PASSWORD

NEW_USER = {"email": "new@example.com", "password": "correct horse", "name": "New"}
NEW_PRODUCT = {"sku": "S", "name": "N", "unitPrice": 1, "currency": "EUR", "stock": 0}
ID = "01900000-0000-7000-8000-000000000000"
TWO_AS_ONE = "e\u0301"  # one character once it is NFC
FOUR_AS_ONE = "α\u0313\u0300\u0345"


@pytest.fixture
def wiring():
    """One: bodies are validated before any tool is used."""
    return "core"


def sign_up(api, **changes):
    return api.post("/users", json={**NEW_USER, **changes})


def test_all_wrong_fields_are_reported_at_once(api):
    wrong = details(sign_up(api, email="nobody", password="short", name=7, role="admin"))
    assert wrong == {
        "email": "must be an e-mail address",
        "password": "must have 8 to 256 characters",
        "name": "must be a string",
        "role": "unknown field",
    }


def test_of_many_wrong_fields_fifty_are_reported(api, ada):
    assert len(details(sign_up(api, **{f"a{n}": n for n in range(1000)}))) == 50
    assert len(details(api.post("/orders", ada, {"accountId": ID, "items": [{"quantity": 0}] * 50}))) == 50


def test_of_a_long_wrong_name_the_beginning_is_reported(api, ada, admin):
    """Otherwise the answer would be as long as the request."""
    shown = details(sign_up(api, **{"x" * 60_000: 1}))
    assert shown == {"x" * 100: "unknown field"}
    items = [{"productId": ID, "quantity": 1, "y" * 1200: 1}] * 50
    answer = api.post("/orders", ada, {"accountId": ID, "items": items})
    assert details(answer)["items[49]." + "y" * 90] == "unknown field"
    assert len(answer.data) < 10_000
    assert details(api.get(f"/users?{'z' * 8000}=1", admin)) == {"z" * 100: "unknown parameter"}


def test_all_missing_fields_are_reported_at_once(api, admin):
    assert details(api.post("/users", json={})) == dict.fromkeys(("email", "password", "name"), "is required")
    assert details(api.post("/products", admin, {})).keys() == NEW_PRODUCT.keys()


def test_wrong_fields_in_a_list_are_told_by_their_path(api, ada):
    items = [
        {"productId": ID, "quantity": 0},
        "one",
        {"productId": "x", "colour": 1},
        {"productId": ID, "quantity": 1},
    ]
    assert details(api.post("/orders", ada, {"accountId": None, "items": items, "note": ""})) == {
        "accountId": "must be an id: a lowercase UUID",
        "items[0].quantity": "must be from 1 to 1000",
        "items[1]": "must be an object",
        "items[2].productId": "must be an id: a lowercase UUID",
        "items[2].quantity": "is required",
        "items[2].colour": "unknown field",
        "items[3].productId": "must be unique",
        "note": "unknown field",
    }


@pytest.mark.parametrize(
    ("items", "where"),
    [
        ([], "items"),
        ({}, "items"),
        ("", "items"),
        (None, "items"),
        ([{"productId": ID, "quantity": 1}] * 51, "items"),
        ([{"productId": ID, "quantity": 1}, {"productId": ID, "quantity": 2}], "items[1].productId"),
        ([{"productId": f" {ID} ", "quantity": 1}, {"productId": ID, "quantity": 2}], "items[1].productId"),
        ([{"productId": ID, "quantity": 1}, {"productId": f"{ID} ", "quantity": 2}], "items[1].productId"),
        ([[]], "items[0]"),
        ([None], "items[0]"),
    ],
)
def test_a_list_has_one_to_fifty_items_and_no_product_twice(api, ada, items, where):
    assert details(api.post("/orders", ada, {"accountId": ID, "items": items})).keys() == {where}


@pytest.mark.parametrize("roles", [[], ["root"], ["user", "user"], ["user", None], "user", {"user": True}, [["user"]]])
def test_roles_are_a_list_of_known_ones_each_once(api, admin, ada, roles):
    assert all(path.startswith("roles") for path in details(api.patch(f"/users/{ada.id}", admin, {"roles": roles})))


@pytest.mark.parametrize("body", ["[]", "null", "true", "1", '"{}"', "[{}]"])
def test_a_body_that_is_no_object_is_invalid(api, body):
    answer = api("POST", "/users", data=body, content_type="application/json")
    assert details(answer) == {"body": "must be an object"}


@pytest.mark.parametrize(
    "written", ["true", "false", "1.0", '"1"', "1E2", "1e0", "-0.0", "null", "[1]", "{}", "0", "-1", "1000000000001"]
)
def test_what_is_no_integer_in_range_is_no_price(api, admin, written):
    """`true`, `1.0`, `"1"` and `1E2` are not integers; an amount is from 1 to 10¹²."""
    body = f'{{"sku":"S","name":"N","unitPrice":{written},"currency":"EUR","stock":0}}'
    answer = api("POST", "/products", admin, data=body, content_type="application/json")
    assert details(answer).keys() == {"unitPrice"}


@pytest.mark.parametrize(("field", "value"), [("unitPrice", 1), ("unitPrice", 10**12), ("stock", 0), ("stock", 10**9)])
def test_the_ends_of_a_range_are_in_it(api, admin, field, value):
    answer = api.post("/products", admin, {**NEW_PRODUCT, field: value})
    assert (answer.status_code, answer.json["data"][field]) == (201, value)


@pytest.mark.parametrize(("field", "value"), [("stock", -1), ("stock", 10**9 + 1), ("stock", 2**63 - 1)])
def test_beyond_the_ends_of_a_range_is_out(api, admin, field, value):
    assert details(api.post("/products", admin, {**NEW_PRODUCT, field: value})).keys() == {field}


@pytest.mark.parametrize("value", [1, 0, "true", None, []])
def test_only_true_and_false_are_booleans(api, admin, ada, value):
    assert details(api.patch(f"/users/{ada.id}", admin, {"active": value})).keys() == {"active"}


@pytest.mark.parametrize("field", ["name", "email", "roles", "active"])
def test_null_is_not_the_same_as_left_out(api, admin, ada, field):
    assert details(api.patch(f"/users/{ada.id}", admin, {field: None})).keys() == {field}


@pytest.mark.parametrize(
    ("sent", "kept"), [({}, None), ({"memo": None}, None), ({"memo": ""}, ""), ({"memo": " "}, "")]
)
def test_only_a_memo_may_be_null(api, admin, ada, sent, kept):
    """`null` means none; `""` is kept."""
    answer = api.post(f"/accounts/{api.account(ada)}/deposits", admin, {"amount": 1, **sent})
    assert (answer.status_code, answer.json["data"]["memo"]) == (201, kept)


@pytest.mark.parametrize("space", [" ", "\t", "\r\n", "\u00a0", "\u2003", "\u3000", "\u00a0\t", "\n\u2003\n \u3000\t"])
def test_strings_are_trimmed(api, space):
    answer = sign_up(api, email=f"{space}ada@example.com{space}", name=f"{space}Ada  L.{space}")
    assert (answer.status_code, answer.json["data"]["email"]) == (201, "ada@example.com")
    assert answer.json["data"]["name"] == "Ada  L."


def test_strings_are_normalised(api):
    """NFC: two spellings of a name are one name."""
    answer = sign_up(api, name=unicodedata.normalize("NFD", "Zoë Å"))
    assert answer.json["data"]["name"] == unicodedata.normalize("NFC", "Zoë Å")


def test_a_password_is_normalised_and_not_trimmed(api):
    decomposed = unicodedata.normalize("NFD", " pässword ")
    assert sign_up(api, password=decomposed).status_code == 201
    credentials = {"email": NEW_USER["email"], "password": unicodedata.normalize("NFC", decomposed)}
    assert api.post("/auth/login", json=credentials).status_code == 200
    assert api.post("/auth/login", json={**credentials, "password": decomposed.strip()}).status_code == 401


def test_control_characters_are_refused(api, admin):
    """Within a string; at its ends some of them are white space."""
    deposits = f"/accounts/{api.account(admin)}/deposits"
    for control in "\0\x01\n\t\x1b\x7f\x80\x85\x9f":
        assert details(sign_up(api, name=f"A{control}da")).keys() == {"name"}, control
        assert details(api.post(deposits, admin, {"amount": 1, "memo": f"for{control}tea"})).keys() == {"memo"}, control


def test_a_character_that_reorders_text_is_a_control_character(api, admin):
    """U+202E shows what follows from right to left: `exe.fdp` looks like `pdf.exe`."""
    deposits = f"/accounts/{api.account(admin)}/deposits"
    product = {"sku": "S", "unitPrice": 1, "currency": "EUR", "stock": 0}
    for control in "\u061c\u200e\u200f\u202a\u202e\u2066\u2069":
        assert details(sign_up(api, name=f"A{control}da")).keys() == {"name"}, control
        assert details(api.post("/products", admin, product | {"name": control + "Tea"})).keys() == {"name"}, control
        assert details(api.post(deposits, admin, {"amount": 1, "memo": f"tea{control}"})).keys() == {"memo"}, control


@pytest.mark.parametrize(
    "name",
    [
        "\u200b", "\ufeff \u2060", "\u3164", "\u115f\u00ad", "\u2800", "\ufe0f", "\U000e0041", "\ufff9\ufffb", "\ufffc",
        "\U00013430", "\U00016fe4", "\U0001d159",
    ],
)  # fmt: skip
def test_a_name_has_a_visible_character(api, admin, name):
    product = {"sku": "S", "name": name, "unitPrice": 1, "currency": "EUR", "stock": 0}
    assert details(sign_up(api, name=name)).keys() == {"name"}
    assert details(api.patch("/users/me", admin, {"name": name})).keys() == {"name"}
    assert details(api.post("/products", admin, product)).keys() == {"name"}
    assert details(api.post("/products", admin, product | {"name": "Tea", "sku": name})).keys() == {"sku"}


@pytest.mark.parametrize("name", ["👩‍💻", "می‌خواهم", "क्‍ष", "❤️", "A\u200bda", "\u0301"])
def test_joiners_and_selectors_within_a_name_stay(api, name):
    """Emoji and several scripts need them."""
    assert sign_up(api, name=name).json["data"]["name"] == unicodedata.normalize("NFC", name)


@pytest.mark.parametrize("password", ["\0correct horse", "correct\0horse", "correct horse\0"])
def test_a_password_has_no_nul(api, ada, password):
    """Neither a new one nor a current one."""
    assert details(sign_up(api, password=password)).keys() == {"password"}
    assert details(api.post("/auth/login", json={"email": ada.email, "password": password})).keys() == {"password"}
    change = {"currentPassword": password, "newPassword": password}
    assert details(api.post("/auth/password", ada, change)).keys() == change.keys()


@pytest.mark.parametrize("password", ["pass\tword\n", "\x01" * 8, "zq8 vxk1", "🔑" * 8, "é" * 256, TWO_AS_ONE * 256])
def test_a_password_may_hold_anything_else(api, password):
    """Tabs and line ends too: 8 to 256 characters, counted after normalisation."""
    assert sign_up(api, password=password).status_code == 201


@pytest.mark.parametrize("password", ["a" * 7, TWO_AS_ONE * 7, "🔑" * 7, "a" * 257, "", None, 12345678])
def test_a_password_has_eight_to_256_characters(api, password):
    assert details(sign_up(api, password=password)).keys() == {"password"}


@pytest.mark.parametrize("name", ["", " ", "\u3000\n", "a" * 101, "é" * 101])
def test_a_name_that_is_blank_or_too_long_is_refused(api, name):
    assert details(sign_up(api, name=name)).keys() == {"name"}


@pytest.mark.parametrize("name", ["a", "é" * 100, TWO_AS_ONE * 100, FOUR_AS_ONE * 100, " " * 50 + "a" * 100, "𝔸" * 100])
def test_a_name_has_up_to_a_hundred_characters_once_it_is_trimmed_and_normalised(api, name):
    assert sign_up(api, name=name).status_code == 201


@pytest.mark.parametrize(("length", "status"), [(0, 201), (500, 201), (501, 422)])
def test_a_memo_has_up_to_500_characters(api, admin, ada, length, status):
    body = {"amount": 1, "memo": "ä" * length}
    assert api.post(f"/accounts/{api.account(ada)}/deposits", admin, body).status_code == status


LONG = "@" + ".".join(["d" * 60] * 3) + ".de"  # 187 characters


@pytest.mark.parametrize(
    "email",
    ["a@b.de", "a.b+c@sub.example.org", "o'neil@example.com", "_@x-y.example", "A@EXAMPLE.COM", "x" * 64 + "@b.de",
     "1@1.1", "x" * 64 + LONG, "a?=b@c.de", "a=b@c.de", "?@c.de", "!#$%&'*+/=^_`{|}~-@c.de"],
)  # fmt: skip
def test_an_email_address_is_taken_as_typed(api, email):
    answer = sign_up(api, email=email)
    assert (answer.status_code, answer.json["data"]["email"]) == (201, email)


@pytest.mark.parametrize(
    "email",
    ["", "a", "@", "a@", "@b.de", "a@b", "a@b.", "a@.de", "a@b..de", "a..b@c.de", ".a@b.de", "a.@b.de", "a b@c.de",
     "a@b c.de", "a@-b.de", "a@b-.de", "a@b.de, c@d.de", "a@b.de\r\nBcc: c@d.de", "Ada <a@b.de>", "a@@b.de",
     "a@b@c.de", "é@b.de", "a@bü.de", "a@[127.0.0.1]", '"a b"@c.de', "x" * 65 + "@b.de", "a@" + "d" * 64 + ".de",
     "x" * 64 + "@" + ".".join(["d" * 62] * 3) + ".de", "a\0@b.de", "=?utf-8?q?ceo?=@b.de",
     "=?utf-8?q?v=40b=2Eex=3E=2C?=a@b.de", "a=?=@b.de", "a.=?b@c.de", 1, None, ["a@b.de"]],
)  # fmt: skip
def test_what_is_no_email_address_is_refused(api, email):
    assert details(sign_up(api, email=email)).keys() == {"email"}


@pytest.mark.parametrize("encoded", ["=?utf-8?q?ceo?=@bank.example", "=?utf-8?q?v=40b=2Eex=3E=2C?=a@evil.example"])
def test_an_encoded_word_is_refused_wherever_an_address_is_taken(api, admin, ada, encoded):
    """RFC 2047: mail software may decode it into another address. The document says so too."""
    sent = {"email": encoded}
    answers = [
        sign_up(api, **sent),
        api.post("/auth/login", json={**sent, "password": PASSWORD}),
        api.post("/auth/password-reset", json=sent),
        api.patch("/users/me", ada, {**sent, "currentPassword": PASSWORD}),
        api.patch(f"/users/{ada.id}", admin, sent),
    ]
    assert [details(answer).keys() for answer in answers] == [{"email"}] * 5
    schemas = api.get("//openapi.json").json["components"]["schemas"]
    for name in ("NewUser", "Credentials", "ResetRequest", "UserChanges"):
        assert schemas[name]["properties"]["email"] == {"$ref": "#/components/schemas/EmailAddress"}
    pattern = schemas["EmailAddress"]["pattern"]
    assert not re.search(pattern, encoded) and re.search(pattern, "a?=b@c.de")


@pytest.mark.parametrize("currency", ["eur", "EURO", "XXX", "", "E\0R", 978, None])
def test_a_currency_is_an_active_code_in_capitals(api, ada, currency):
    assert details(api.post("/accounts", ada, {"currency": currency})).keys() == {"currency"}


@pytest.mark.parametrize("wrong", ["", "1", ID.upper().replace("0", "A"), ID.replace("-", ""), f"{{{ID}}}", 7])
def test_an_id_in_a_body_is_a_lowercase_uuid(api, ada, wrong):
    body = {"fromAccountId": ID, "toAccountId": wrong, "amount": 1}
    assert details(api.post("/transfers", ada, body)).keys() == {"toAccountId"}


def test_the_error_of_a_wrong_choice_names_the_choices(api, admin, ada):
    """It lists a few choices, and describes many."""
    assert details(api.get("/users?role=root", admin)) == {"role": "must be one of user, admin"}
    assert details(api.post("/accounts", ada, {"currency": "XXX"})) == {
        "currency": "must be an active ISO 4217 code in capitals"
    }


def test_a_field_without_a_rule_stops_the_start_by_name():
    @dataclass
    class Careless:
        colour: str

    with pytest.raises(TypeError, match="colour"):
        fields_of(Careless)


def test_an_error_between_two_fields_is_reported_under_the_second(api, ada):
    body = {"fromAccountId": ID, "toAccountId": ID, "amount": 1}
    assert details(api.post("/transfers", ada, body)).keys() == {"toAccountId"}
    assert details(sign_up(api, password=NEW_USER["email"].upper())).keys() == {"password"}


def test_an_id_and_a_code_are_trimmed_like_any_string(api, ada):
    assert api.post("/accounts", ada, {"currency": " EUR\n"}).json["data"]["currency"] == "EUR"
    transfer = {"fromAccountId": f"\t{ID} ", "toAccountId": ID.replace("0", "1"), "amount": 1}
    assert api.post("/transfers", ada, transfer).status_code == 404


@pytest.mark.parametrize("control", ["\x1c", "\x1f", "\x85", "\x00"])
def test_what_only_python_treats_as_white_space_is_a_control_character(api, control):
    assert details(sign_up(api, name=f"{control}Ada")) == {"name": "must not contain control characters"}


@pytest.mark.parametrize("control", ["\x1c", "\x1f", "\x85", "\x00"])
def test_a_control_character_is_not_trimmed_off_a_code_a_choice_or_an_id(api, admin, ada, control):
    assert details(api.post("/accounts", ada, {"currency": f"EUR{control}"})).keys() == {"currency"}
    assert details(api.patch(f"/users/{ada.id}", admin, {"roles": [f"{control}user"]})).keys() == {"roles[0]"}
    transfer = {"fromAccountId": f"{control}{ID}", "toAccountId": f"{ID}{control}", "amount": 1}
    assert details(api.post("/transfers", ada, transfer)).keys() == {"fromAccountId", "toAccountId"}
    assert details(api.get("/users", admin, query_string={"role": f"user{control}"})).keys() == {"role"}


def test_fields_are_compared_although_another_one_is_wrong(api, ada):
    """A password equal to the address, or a transfer to its own account, is reported together with the rest."""
    assert details(sign_up(api, password="NEW@example.com", name="")).keys() == {"name", "password"}
    transfer = {"fromAccountId": ID, "toAccountId": ID, "amount": 0}
    assert details(api.post("/transfers", ada, transfer)).keys() == {"amount", "toAccountId"}
