"""An ETag that is only a version: the browser shows Grace the profile of Ada.

Catalogue: "Answer with `ETag: "<version>"`, and with 304 if the client has that version."

Goes wrong: `/users/me` is one URL and another resource for each caller. Ada's profile has version 1, and so has every
profile that has not changed since sign-up. On a shared computer the browser asks as Grace with Ada's tag. The server
compares 1 with 1 and says 304, and the browser shows what it has: Ada's name and address.

Bitten: https://github.com/Kinto/kinto/issues/635, where the second user of a browser got the data of the first.

Read: `backend/web/handler.py`, `is_validated`: the handler compares tags only where the URL has an `{id}` or all
callers see the same. `/users/me` is `no-store`, and its ETag is for `If-Match` alone.

Exercise: Let `me` make the tag of the user's id and the version. Which profile does the browser show Grace now? Which
one does it keep on the disk for the next user of the computer, unless the answer says `no-store`?
"""

from collections.abc import Callable

from tests.lessons import Stage, Verdict

NAMES = ("Ada", "Grace", "Edsger", "Barbara", "Donald")
URL = "/users/me"


def me(user, headers):
    etag = f'"{user["version"]}"'
    if headers.get("If-None-Match") == etag:
        return 304, {"ETag": etag}, None
    return 200, {"ETag": etag, "Cache-Control": "private, no-cache"}, user


class Browser:
    """Keeps answers by URL and asks whether they still hold, as RFC 9111 tells a private cache to."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[str, dict]] = {}

    def get(self, url: str, ask: Callable) -> dict:
        """The body to show. `ask(headers)` sends the request and returns status, headers and body."""
        headers = {"If-None-Match": self.kept[url][0]} if url in self.kept else {}
        status, answered, body = ask(headers)
        if status == 304:
            return self.kept[url][1]
        if "ETag" in answered and "no-store" not in answered.get("Cache-Control", ""):
            self.kept[url] = answered["ETag"], body
        return body


def naive(stage: Stage) -> list[Verdict]:
    browser = Browser()
    users = [{"name": name, "version": 1} for name in NAMES]
    shown = [browser.get(URL, lambda headers, user=user: me(user, headers))["name"] for user in users]
    return [verdict(shown)]


def ours(stage: Stage) -> list[Verdict]:
    api, browser = stage.api(), Browser()
    people = [api.sign_up(name) for name in NAMES]

    def ask_as(person) -> Callable:
        def ask(headers):
            tagged = {"If-None-Match": '"1"'} | headers  # an older browser may have kept one
            answer = api.get(URL, person, headers=tagged)
            return answer.status_code, dict(answer.headers), answer.json and answer.json["data"]

        return ask

    return [verdict([browser.get(URL, ask_as(person))["name"] for person in people])]


def verdict(shown: list[str]) -> Verdict:
    wrong = sum(name != asked for name, asked in zip(shown, NAMES, strict=True))
    says = f"{len(NAMES)} users of one browser, {wrong} saw the profile of another: {', '.join(shown)}"
    return Verdict(not wrong, wrong, says)
