"""Where the time of an authenticated, cached `GET /users/{id}` goes, layer by layer.

The chain is rebuilt with one more link each time; behind the last link stands a ready answer. The difference between
two chains is the layer of the added link, so the layers add up to the whole. Calls within a link are also timed alone
on the same input; the rest of the layer is the link's own time.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from app import App
from backend.infrastructure.json_encoder import to_json
from backend.infrastructure.keyring import Keyring
from backend.infrastructure.tokens import Tokens
from backend.web.handler import endpoint
from backend.web.middleware import Handler, Middleware, chain
from backend.web.request import Request
from backend.web.response import Response, envelope
from tests.bench.measure import OURS, Figure, Size, microseconds
from tests.bench.service import SECRET, Application, Environ, ask, environ, folder, service
from tests.conftest import Person

CALLS, TURNS = 1000, 8  # as in in_process.py: a turn includes the work of the log's thread
LINKS = {  # the layer of each function in `App.middleware`
    "request_ids": "request id", "client_addresses": "client address", "access_log": "log",
    "cross_origin": "cross origin", "error_responses": "errors", "framing": "framing", "routing": "route",
    "authentication": "authentication", "RateLimits": "limit",
}  # fmt: skip
Rounds = Mapping[str, Sequence[float]]


def figures(size: Size) -> Iterator[Figure]:
    """A layer each, beside the whole: the ratio is its share."""
    with folder() as path, service(path / "app.db") as api:
        ada = api.sign_up("Ada")
        chains, parts = chains_of(api.app, ada), parts_of(api.app, ada)
        took = microseconds({**chains, **parts}, CALLS, TURNS, size.rounds)
    for name, values in layers(took, list(chains)).items():
        yield Figure("layers", name, "µs", {OURS: values, "the whole": took["handler"]})


def chains_of(app: App, ada: Person) -> dict[str, Callable[[], object]]:
    """Calls with the server's layer alone, with one more layer, with two more …; each is named by its last layer."""
    request = environ("GET", f"/users/{ada.id}", ada)
    body = ask(app, request)
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    caller = app.logins.identify(ada.access)
    found = endpoint(next(route for route in app.routes if route.path.endswith("/users/{id}")))

    def server(environ: Environ, start_response: Callable[..., object]) -> list[bytes]:
        start_response("200 OK", headers)
        return [body]

    def parse(environ: Environ, start_response: Callable[..., object]) -> list[bytes]:
        return server(Request(environ).environ, start_response)

    def ready(request: Request) -> Response:
        request.endpoint, request.caller = found, caller  # so that the log line is the same
        return Response(200, body)

    chains: dict[str, Application] = {"server": server, "parse": parse, "response": linked([], ready)}
    for count, link in enumerate(app.middleware, 1):
        function = link.__qualname__.partition(".")[0]
        chains[LINKS.get(function, function)] = linked(app.middleware[:count], ready)
    chains["handler"] = app
    return {name: partial(ask, application, request) for name, application in chains.items()}


def linked(links: Sequence[Middleware], last: Handler) -> Application:
    handle = chain(links, last)
    return lambda environ, start_response: handle(Request(environ))(environ, start_response)


def parts_of(app: App, ada: Person) -> dict[str, Callable[[], object]]:
    """Calls within a link."""
    user = app.logins.identify(ada.access).user
    tokens = Tokens(Keyring([SECRET]), 900, 900)
    return {
        "token": lambda: tokens.verify("access", ada.access),
        "identify": lambda: app.logins.identify(ada.access),
        "encode": lambda: Response(200, to_json(envelope("data", user, "0" * 32)).encode()),
    }


def layers(took: Rounds, chains: Sequence[str]) -> Rounds:
    """The time of each layer, round by round."""
    found = {"server": took["server"]}
    for before, name in itertools.pairwise(chains):
        own = less(took[name], took[before])
        if name == "authentication":
            found |= {"token": took["token"], "identity cache": less(took["identify"], took["token"])}
            own = less(own, took["identify"])
        if name == "handler":
            found["encode"] = took["encode"]
            own = less(own, took["encode"])
        found[name] = own
    return found | {"all of them": [sum(values) for values in zip(*found.values(), strict=True)]}


def less(one: Sequence[float], other: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(one, other, strict=True)]
