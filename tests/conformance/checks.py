"""What a check is: a function of a `Client` whose docstring is a promise of the contract.

    @check
    def a_missing_token_is_401(api: Client) -> None:
        '''A request without a token to a route that needs one is 401 with the reason `missing`.'''
        expect_reason(api.get("/users/me"), "missing")

Importing a section registers its checks. A check raises Broken if the promise does not hold; `expect…` do that.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from http.client import HTTPException
from typing import Any

from tests.conformance.client import Answer, Client, Skipped


@dataclass(frozen=True)
class Check:
    section: str
    name: str
    promise: str
    run: Callable[[Client], None]


@dataclass(frozen=True)
class Result:
    """`verdict` is `holds`, `broken` or `skipped`; `what` was looked at, or why it was not."""

    section: str
    name: str
    promise: str
    verdict: str
    what: str = ""
    expected: str = ""
    came: str = ""

    as_dict = asdict


class Broken(Exception):
    """The promise does not hold."""

    def __init__(self, what: str, expected: object, came: object) -> None:
        super().__init__(what, expected, came)
        self.what, self.expected, self.came = what, str(expected), str(came)


CHECKS: list[Check] = []


def check(run: Callable[[Client], None]) -> Callable[[Client], None]:
    """Register a check. Its section is its module, its name the function's."""
    CHECKS.append(_check(run, run.__name__, run))
    return run


def check_each(cases: Mapping[str, Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register one check for each case: the function gets the case's value as its second parameter."""

    def register(run: Callable[..., None]) -> Callable[..., None]:
        for name, case in cases.items():
            CHECKS.append(_check(run, f"{run.__name__}: {name}", lambda api, case=case: run(api, case)))
        return run

    return register


def _check(function: Callable[..., None], name: str, run: Callable[[Client], None]) -> Check:
    promise = " ".join((function.__doc__ or "").split())
    return Check(function.__module__.rpartition(".")[2], name.replace("_", " "), promise, run)


def results(api: Client, section: str) -> list[Result]:
    """The results of a section's checks, which run one after the other. Raises ConnectionRefusedError."""
    importlib.import_module(f"tests.conformance.sections.{section}")
    return [_result(api, each) for each in CHECKS if each.section == section]


def _result(api: Client, each: Check) -> Result:
    result = partial(Result, each.section, each.name, each.promise)
    try:
        each.run(api)
    except Skipped as reason:
        return result("skipped", str(reason))
    except Broken as broken:
        return result("broken", broken.what, broken.expected, broken.came)
    except ConnectionRefusedError:  # there is no server any more
        raise
    except (OSError, HTTPException) as error:
        return result("broken", "the connection", "an answer", repr(error))
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:  # an answer of another shape
        return result("broken", f"the answer to {api.last_request}", "the shape in the contract", repr(error))
    return result("holds")


def expect(what: str, expected: object, came: object) -> None:
    """Equal values."""
    if expected != came:
        raise Broken(what, repr(expected), repr(came))


def expect_data(answer: Answer, status: int = 200) -> Any:
    """A success of this status; its `data`."""
    if answer.status != status or (answer.body and "data" not in answer.json):
        raise Broken(answer.request, f"{status} with data" if status != 204 else "204", answer)
    return answer.json["data"] if answer.body else None


def expect_error(answer: Answer, status: int, code: str, *details: str) -> None:
    """An error of this status and code; if `details` are given, it has these and no others."""
    error = answer.json.get("error", {}) if answer.body else {}
    named = set(error.get("details", {}))
    if (answer.status, error.get("code")) != (status, code) or (details and named != set(details)):
        raise Broken(answer.request, f"{status} {code} {', '.join(sorted(details))}".strip(), answer)


def expect_wrong(answer: Answer, *fields: str) -> None:
    """The refusal of a request in which these fields are wrong, and no others."""
    expect_error(answer, 422, "VALIDATION_ERROR", *fields)


def expect_reason(answer: Answer, reason: str) -> None:
    """A 401 for this reason."""
    expect_error(answer, 401, "UNAUTHORIZED", "reason")
    expect(f"{answer.request}: details.reason", reason, answer.json["error"]["details"]["reason"])


def expect_header(answer: Answer, name: str, value: str | None) -> None:
    expect(f"{answer.request}: {name}", value, answer.headers.get(name))
