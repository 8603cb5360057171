"""Service endpoints: health, readiness, documentation, metrics, and the audit log."""

import re
import time

from tests.conformance.checks import Broken, check, check_each, expect, expect_data
from tests.conformance.client import Client, Skipped

PATHS = (
    "/users /users/me /users/{id} /auth/login /auth/refresh /auth/logout /auth/sessions /auth/sessions/{id} "
    "/auth/password /auth/password-reset /auth/password-reset/confirm /products /products/{id} /accounts "
    "/accounts/{id} /accounts/{id}/deposits /accounts/{id}/withdrawals /accounts/{id}/transactions /transfers "
    "/transactions/{id} /orders /orders/{id} /orders/{id}/cancel /orders/{id}/fulfil /audit"
).split()
FOREIGN = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*(?:src|href)=["']?(?:https?:)?//[^\s>]+""")
PATIENCE = 60  # seconds; a row of the audit log should appear within 5, but a busy machine may be slow


@check_each({"health": "//healthz", "readiness": "//readyz"})
def it_is_well(api: Client, path: str) -> None:
    """`/healthz` is 200 while the process answers, `/readyz` while it can work."""
    expect("its data", {"status": "ok"}, expect_data(api.get(path)))


@check
def the_document(api: Client) -> None:
    """`/openapi.json` is the bare OpenAPI 3.1 document, and has every path."""
    document = api.get("//openapi.json").json
    expect("its version", "3.1", document["openapi"][:3])
    expect("paths that are missing", set(), {f"/api/v1{path}" for path in PATHS} - set(document["paths"]))


@check
def the_page(api: Client) -> None:
    """`/docs` is a page of HTML, served whole from this process."""
    answer = api.get("//docs")
    expect("status and type", (200, "text/html"), (answer.status, answer.headers.get_content_type()))
    expect("what it loads from elsewhere", [], FOREIGN.findall(answer.body.decode()))


@check
def metrics(api: Client) -> None:
    """`/metrics` is Prometheus text, where the server has it."""
    answer = api.get("//metrics")
    if answer.status == 404:
        raise Skipped("this server has no /metrics")
    expect("status and type", (200, "text/plain"), (answer.status, answer.headers.get_content_type()))


@check
def the_audit_log(api: Client) -> None:
    """A row of the audit log appears soon after the event, with its actor and its request's id."""
    made = api.post("/accounts", api.ada, {"currency": "EUR"})
    account, path = expect_data(made, 201)["id"], f"/audit?userId={api.ada.id}&limit=100"
    end = time.monotonic() + PATIENCE
    rows: list[dict[str, str]] = []
    while not rows and time.monotonic() < end:
        rows = [row for row in expect_data(api.get(path, api.admin)) if row["resourceId"] == account]
        time.sleep(0.05)
    if not rows:
        raise Broken(path, f"a row about the account within {PATIENCE} s", "none")
    expect("its request's id", made.headers["X-Request-ID"], rows[0]["requestId"])
    expect("its actor", api.ada.id, rows[0]["userId"])
