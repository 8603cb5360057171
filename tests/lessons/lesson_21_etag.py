"""An ETag that is only a version: the browser shows Grace the profile of Ada.

Catalogue: "Answer with `ETag: "<version>"`, and with 304 if the client has that version."

Goes wrong: `/users/me` is one URL and another resource for each caller. Ada's profile has version 1, and so has every
profile that has not changed since sign-up. On a shared computer the browser asks as Grace with Ada's tag. The server
compares 1 with 1 and says 304, and the browser shows what it has: Ada's name and address.

Bitten: https://github.com/Kinto/kinto/issues/635, where the second user of a browser got the data of the first.

Read: `backend/web/handler.py`, `is_revalidated`: the handler compares tags only where the URL has an `{id}` or all
callers see the same. `/users/me` is `no-store`, and its ETag is for `If-Match` alone.

Exercise: Let `me` make the tag of the user's id and the version. Which profile does the browser show Grace now? Which
one does it keep on the disk for the next user of the computer, unless the answer says `no-store`?
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

from tests.conftest import Person
from tests.lessons import Stage, Verdict

Headers: TypeAlias = Mapping[str, str]
Answer: TypeAlias = tuple[int, Headers, dict]  # status, headers, body

NAMES = ("Ada", "Grace", "Edsger", "Barbara", "Donald")
URL = "/users/me"


def me(user, headers):
    etag = f'"{user["version"]}"'
    if headers.get("If-None-Match") == etag:
        return 304, {"ETag": etag}, {}
    return 200, {"ETag": etag, "Cache-Control": "private, no-cache"}, user


class Browser:
    """Keeps answers by URL and asks whether they still hold, as RFC 9111 tells a private cache to."""

    def __init__(self, obeys: bool) -> None:
        self.kept: dict[str, tuple[str, dict]] = {}
        self.obeys = obeys  # `no-store`; otherwise it keeps every answer that has a tag

    def get(self, ask: Callable[[Headers], Answer]) -> dict:
        """What the browser shows at URL. `ask` sends the request."""
        etag, body = self.kept.get(URL, ("", {}))
        status, headers, sent = ask({"If-None-Match": etag} if etag else {})
        if status == 304:
            return body
        if not (self.obeys and "no-store" in headers["Cache-Control"]):
            self.kept[URL] = headers["ETag"], sent
        return sent


def naive(stage: Stage) -> list[Verdict]:
    users = [{"name": name, "version": 1} for name in NAMES]
    return verdicts([lambda headers, user=user: me(user, headers) for user in users])


def ours(stage: Stage) -> list[Verdict]:
    api = stage.api()

    def ask(person: Person, headers: Headers) -> Answer:
        answer = api.get(URL, person, headers=headers)
        return answer.status_code, answer.headers, answer.json["data"] if answer.data else {}

    return verdicts([partial(ask, api.sign_up(name)) for name in NAMES])


def verdicts(users: Sequence[Callable[[Headers], Answer]]) -> list[Verdict]:
    """All of them use one browser, one after the other."""
    found = []
    for obeys in (True, False):
        browser = Browser(obeys)
        shown = [browser.get(ask)["name"] for ask in users]
        wrong = sum(name != asked for name, asked in zip(shown, NAMES, strict=True))
        says = f"`no-store` {'obeyed' if obeys else 'ignored'}: the users see {', '.join(shown)}"
        found.append(Verdict(not wrong, wrong, says))
    return found
