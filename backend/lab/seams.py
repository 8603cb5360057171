"""The seams: a database, a cache and a limiter that do what the core's do and add spans to the current trace.

Each has the interface of the tool that it stands for, so `App` takes it in that tool's place. The core knows nothing of
it, and an application without the lab pays nothing.

A transaction shows the wait for the write lock with BEGIN IMMEDIATE, each statement, COMMIT or ROLLBACK, and what
follows the commit. A lookup in a cache shows its outcome:

  hit        the value was stored
  miss       this request loaded it, and stored it; `absent` if there is no such row
  refused    this request loaded it, and the fill guard did not store it: a write came between
  coalesced  another request was loading it, and this one got the same value
  no cache   nothing is ever stored
"""

import re
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import CodeType
from typing import Any, TypeVar

from backend.infrastructure.cache import LruCache, NoCache
from backend.infrastructure.database import Database, Row, Tx
from backend.infrastructure.rate_limiter import Policy, RateLimiter, RateLimitResult
from backend.lab.trace import Span, current, traced

T = TypeVar("T")

SECRET = re.compile("password|hash|token|nonce|successor|secret|data|payload")
HARMLESS = {"token_version"}
SHOWN = 80  # characters of a parameter, and of a statement's name


class TracedDatabase(Database):
    """A Database with a span for each block, statement, and step of a transaction."""

    @contextmanager
    def read(self) -> Iterator[Tx]:
        with traced("database", "read", _code(Database.read)), super().read() as tx:
            yield TracedTx(tx)

    @contextmanager
    def snapshot(self) -> Iterator[Tx]:
        with traced("database", "snapshot", _code(Database.snapshot)), super().snapshot() as tx:
            yield TracedTx(tx)

    @contextmanager
    def transaction(self) -> Iterator[Tx]:
        code = _code(Database.transaction)
        with traced("database", "transaction", code):
            steps = _Steps()
            steps.begin("wait for the write lock, BEGIN IMMEDIATE")
            try:
                with super().transaction() as tx:
                    steps.end()
                    tx.after_commit(steps.end)  # the first action, so it ends COMMIT and not what follows
                    try:
                        yield TracedTx(tx)
                    except BaseException:
                        steps.begin("ROLLBACK")
                        raise
                    steps.begin("COMMIT")
            finally:
                steps.end()


class _Steps:
    """One open span after the other, in the current trace."""

    def __init__(self) -> None:
        self._trace, self._is_open = current.get(), False

    def begin(self, name: str) -> None:
        if self._trace:
            self._trace.begin(Span("database", name))
            self._is_open = True

    def end(self) -> None:
        """End the step, if one is open."""
        if self._trace and self._is_open:
            self._trace.end()
        self._is_open = False


class TracedTx(Tx):
    """The open transaction `tx`, with a span for each statement."""

    def __init__(self, tx: Tx) -> None:
        self.__dict__ = tx.__dict__  # one state: what one of them registers, the other runs

    def run(self, sql: str, **parameters: object) -> int:
        with _statement(sql, parameters) as span:
            span.detail["changed"] = changed = super().run(sql, **parameters)
        return changed

    def run_each(self, sql: str, parameters: Iterable[Mapping[str, object]]) -> int:
        sets = list(parameters)
        with _statement(sql, sets[0] if sets else {}) as span:
            span.detail |= {"times": len(sets), "changed": (changed := super().run_each(sql, sets))}
        return changed

    def rows(self, sql: str, **parameters: object) -> list[Row]:
        with _statement(sql, parameters) as span:
            rows = super().rows(sql, **parameters)
            span.detail["rows"] = len(rows)
        return rows

    def after_commit(self, action: Callable[[], None]) -> None:
        def run() -> None:
            name = getattr(action, "__qualname__", "").partition(".<locals>")[0]
            with traced("after commit", name, getattr(action, "__code__", None)):
                action()

        super().after_commit(run)


def _statement(sql: str, parameters: Mapping[str, object]) -> Any:
    shown = {name: masked(name, value) for name, value in parameters.items()}
    return traced("sql", _short(" ".join(sql.split())), sql=sql, parameters=shown)


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def masked(name: str, value: object) -> object:
    """The value as it may be shown: no hash, password, token or stored answer, and nothing long."""
    if isinstance(value, bytes) or (name not in HARMLESS and SECRET.search(name)):
        return value if value is None else "•••"
    return value if value is None or isinstance(value, int | float) else _short(str(value))


class TracedCache:
    """A Cache with a span for each lookup and each invalidation."""

    def __init__(self, cache: LruCache | NoCache) -> None:
        self._cache = cache

    def get_or_load(self, key: Hashable, load: Callable[[Tx], T | None], tags: tuple[str, ...]) -> T | None:
        loaded = False

        def loading(tx: Tx) -> T | None:
            nonlocal loaded
            loaded = True
            if isinstance(self._cache, LruCache) and (trace := current.get()) and trace.slow_load:
                with traced("cache", "the lab makes this load slow"):
                    time.sleep(trace.slow_load)
            return load(tx)

        shown = " ".join(map(str, key)) if isinstance(key, tuple) else str(key)
        with traced("cache", f"get {shown}", type(self._cache).get_or_load.__code__, tags=tags) as span:
            before = getattr(self._cache, "refused", 0)
            value = self._cache.get_or_load(key, loading, tags)
            refused = loaded and getattr(self._cache, "refused", 0) > before
            span.detail["outcome"] = "refused" if refused else self._outcome(span, loaded, value)
        return value

    def invalidate(self, *tags: str) -> None:
        with traced("cache", f"invalidate {' '.join(tags)}", type(self._cache).invalidate.__code__):
            self._cache.invalidate(*tags)

    def _outcome(self, span: Span, loaded: bool, value: object) -> str:
        if isinstance(self._cache, NoCache):
            return "no cache"
        if loaded:
            return "miss" if value is not None else "miss, absent"
        trace = current.get()
        waited = trace is not None and any(each.name == "SingleFlight.run" for each in trace.inside(span))
        return ("coalesced" if waited else "hit") + ("" if value is not None else ", absent")


class TracedLimiter(RateLimiter):
    """A RateLimiter with a span for each count, which has the state after it."""

    def hit(self, policy: Policy, subject: str) -> RateLimitResult:
        with _count(RateLimiter.hit.__code__, policy, subject) as tell:
            return tell(super().hit(policy, subject))

    def peek(self, policy: Policy, subject: str) -> RateLimitResult:
        with _count(RateLimiter.peek.__code__, policy, subject) as tell:
            return tell(super().peek(policy, subject))

    def refund(self, policy: Policy, subject: str, since: int) -> RateLimitResult:
        with _count(RateLimiter.refund.__code__, policy, subject) as tell:
            return tell(super().refund(policy, subject, since))


@contextmanager
def _count(code: CodeType, policy: Policy, subject: str) -> Iterator[Callable[[RateLimitResult], RateLimitResult]]:
    limit = f"{policy.quota} in {policy.window:g} s"
    with traced("limiter", f"{code.co_name} {policy.name}: {subject}", code, limit=limit) as span:

        def tell(result: RateLimitResult) -> RateLimitResult:
            span.detail |= {"outcome": f"{result.remaining} left" if result.allowed else "refused"}
            return result

        yield tell


def _code(block: Any) -> CodeType:
    """The code of a context manager's generator."""
    return block.__wrapped__.__code__  # type: ignore[no-any-return]  # contextlib's types hide the generator
