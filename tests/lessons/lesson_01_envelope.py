"""Envelope: it is put on twice, a failure arrives as a success, and the details are lost.

Catalogue: "Wrap every handler, so that all answers have the same shape and all errors pass one place."

Goes wrong: The handler wraps its result, and so does the middleware around it. The inner one catches the error, so the
outer one sees an ordinary value and reports success. The error handler copies `message` and forgets `details`.

Bitten: https://github.com/ckb-js/kuai/pull/378, whose answers were `ok(ok(value))`, and
https://github.com/AndrewKeig/express-validation/issues/83, where a middleware dropped the list of wrong fields.

Read: `backend/web/response.py` has the only envelope, `backend/web/handler.py` puts it on, and
`backend/web/middleware.py` renders errors, each with the details of its class in `backend/errors.py`.

Exercise: Take `@wrapped` off `create_product`. Which two of the three faults are gone, and which line causes the
third?
"""

from tests.lessons import Stage, Verdict

FIELDS = ("sku", "unitPrice", "currency", "stock")
WRONG = {"sku": "", "name": "Tea", "unitPrice": -1, "currency": "euro", "stock": 1.5}


class ApiError(Exception):
    def __init__(self, message, details):
        self.message, self.details = message, details


def wrapped(handler):
    def wrapper(body):
        try:
            return {"success": True, "data": handler(body)}
        except ApiError as error:
            return {"success": False, "error": error.message}

    return wrapper


@wrapped
def create_product(body):
    valid = {
        "sku": body["sku"] != "",
        "unitPrice": body["unitPrice"] >= 0,
        "currency": body["currency"] in ("EUR", "USD"),
        "stock": isinstance(body["stock"], int),
    }
    if not all(valid.values()):
        raise ApiError("Validation failed", [field for field in valid if not valid[field]])
    return body


application = wrapped(create_product)  # the middleware, which wraps every handler


def naive(stage: Stage) -> list[Verdict]:
    good = application({"sku": "TEA", "name": "Tea", "unitPrice": 250, "currency": "EUR", "stock": 10})
    bad = application(WRONG)
    return verdicts(depth(good), bad["success"], str(bad))


def ours(stage: Stage) -> list[Verdict]:
    api = stage.api()
    root, ada = api.admin(), api.sign_up("Ada")
    product, account = api.product(root), api.account(ada)
    paths = ["/products", f"/products/{product}", "/users/me", "/accounts", f"/accounts/{account}", "/auth/sessions"]
    deepest = max(depth(api.get(path, ada).json) for path in paths)
    bad = api.post("/products", root, WRONG)
    return verdicts(deepest, bad.status_code < 400, bad.text)


def depth(answer) -> int:
    """The envelopes around the data."""
    return 1 + depth(answer["data"]) if isinstance(answer, dict) and "data" in answer else 0


def verdicts(envelopes: int, success: bool, text: str) -> list[Verdict]:
    named = sum(field in text for field in FIELDS)
    refused = f"a refused product is {'a success' if success else 'an error'} to the client"
    return [
        Verdict(envelopes == 1, envelopes - 1, f"{envelopes} envelope{'s' * (envelopes > 1)} around the data"),
        Verdict(not success, int(success), refused),
        Verdict(named == len(FIELDS), len(FIELDS) - named, f"{named} of {len(FIELDS)} wrong fields are named"),
    ]
