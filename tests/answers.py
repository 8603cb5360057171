"""What an error says: its status and code, the fields it names, the reason of a 401."""

from typing import Any

from werkzeug.test import TestResponse

Refusal = tuple[int, str | None, set[str]]

NOT_FOUND: Refusal = (404, "NOT_FOUND", set())


def error_of(answer: TestResponse) -> tuple[int, str | None]:
    """Status and code; None if the answer is no error."""
    return answer.status_code, (answer.json or {}).get("error", {}).get("code")


def refusal(answer: TestResponse) -> Refusal:
    """Status, code and the keys of the details."""
    return *error_of(answer), set(answer.json["error"].get("details", {}))


def wrong(*fields: str) -> Refusal:
    """The refusal of a request in which these fields are wrong, and no others."""
    return 422, "VALIDATION_ERROR", set(fields)


def details(answer: TestResponse, status: int = 422, code: str = "VALIDATION_ERROR") -> Any:
    """The details of the error. Raises AssertionError if it is another error."""
    assert error_of(answer) == (status, code), answer.text
    return answer.json["error"].get("details", {})


def reason(answer: TestResponse) -> str:
    """The reason of a 401. Raises AssertionError if the answer is no 401 with a challenge."""
    found = details(answer, 401, "UNAUTHORIZED")["reason"]
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    return found
