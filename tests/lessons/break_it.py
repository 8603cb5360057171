"""Break it: for each pattern the one line to change, and the test that turns red.

    python -m tests.lessons.break_it              lists them
    python -m tests.lessons.break_it 4            shows the line and the command; change it, run it, change it back

Read the line, guess what will happen, then break it: the test's failure says what a client would have seen.
`test_break_it.py` makes every change in a copy, and sees exactly that failure.
"""

import sys
from typing import NamedTuple


class BreakIt(NamedTuple):
    """In `file`, replace `old` by `new`: then `test` fails, and its output holds `shows`."""

    pattern: str
    file: str
    old: str
    new: str
    test: str
    shows: str

    @property
    def command(self) -> str:
        return f".venv/bin/python -m pytest '{self.test}'"


BREAK_IT = (
    BreakIt(
        "Error details",
        "backend/web/response.py",
        '{"details": error.details} if error.details else {}',
        "{}",
        "tests/journeys/test_users.py::test_all_wrong_fields_of_a_sign_up_are_named_at_once[core]",
        "assert dict_keys([]) ==",
    ),
    BreakIt(
        "Roles",
        "app.py",
        'Route("GET", "/api/v1/users", users.list_users, ADMIN)',
        'Route("GET", "/api/v1/users", users.list_users, USER)',
        "tests/test_access_matrix.py::"
        "test_every_route_has_a_valid_request_and_the_access_that_the_contract_gives_it[core]",
        "Access.USER",
    ),
    BreakIt(
        "Unit of work",
        "backend/infrastructure/database.py",
        'self._begun(connection, "BEGIN IMMEDIATE")',
        'self._begun(connection, "BEGIN")',
        "tests/infrastructure/test_database.py::test_a_transaction_reads_what_was_committed_before_it_began[core]",
        "DID NOT RAISE OperationalError",
    ),
    BreakIt(
        "No more money than there is",
        "backend/services/ledger.py",
        "source.balance < amount",
        "source.balance < 0",
        "tests/journeys/test_races.py::test_an_account_is_drained_to_exactly_nothing[one application-core-transfers]",
        "INTERNAL_ERROR",
    ),
    BreakIt(
        "Idempotency",
        "backend/services/idempotency.py",
        "    idempotency_keys.put(tx, user_id, key, idempotent.fingerprint, to_json(resource))\n",
        "",
        "tests/journeys/test_races.py::"
        "test_one_idempotency_key_has_one_effect_and_all_requests_get_its_answer[one application-core-/transfers]",
        "{(201, None): 20}",
    ),
    BreakIt(
        "Refresh rotation",
        "backend/services/rotation.py",
        "if tx.now - used.used_at > self._grace:",
        "if False:",
        "tests/journeys/test_refresh_rotation.py::test_the_grace_is_a_setting[core]",
        "[200 OK]>, status = 401",
    ),
    BreakIt(
        "The revocation outlives its own 401",
        "backend/services/logins.py",
        'self._events.publish(tx, "session.reuse_detected", session, identity.user.id)',
        'raise Unauthorized("revoked")',
        "tests/journeys/test_refresh_rotation.py::test_after_the_grace_a_used_token_ends_the_login_for_good[core]",
        "[200 OK]>, status = 401",
    ),
    BreakIt(
        "A refresh token is no access token",
        "backend/infrastructure/tokens.py",
        'claims.get("type") != type or not (',
        "not (",
        "tests/web/test_tokens.py::test_refresh_and_access_tokens_do_not_stand_for_each_other[core]",
        'assert reason(bearer(api, token)) == "invalid"',
    ),
    BreakIt(
        "Revocation at once",
        "backend/services/logins.py",
        "if identity is None or not _is_live(identity, self._database.now()):",
        "if identity is None:",
        "tests/journeys/test_logins.py::test_a_logout_ends_only_its_login[core]",
        "[200 OK]>, status = 401",
    ),
    BreakIt(
        "Password hashing",
        "backend/infrastructure/passwords.py",
        "base64.b64encode(hmac.digest(CONTEXT, password.encode(), hashlib.sha384))",
        "password.encode()[:72]",
        "tests/infrastructure/test_passwords.py::test_every_character_counts[core-71]",
        "assert not True",
    ),
    BreakIt(
        "Answers that reveal no user's address",
        "backend/infrastructure/passwords.py",
        "        known = hashed is not None",
        "        if hashed is None: return False\n        known = hashed is not None",
        "tests/journeys/test_password_costs.py::test_every_failed_login_costs_one_run[core]",
        "assert [] == [4]",
    ),
    BreakIt(
        "Cache-aside, with absent entries",
        "backend/infrastructure/cache.py",
        "if entry is not None and entry.expires",
        "if entry is not None and entry.value and entry.expires",
        "tests/infrastructure/test_cache.py::test_an_absent_row_is_cached_until_it_is_created[core-itself]",
        "assert 3 == 1",
    ),
    BreakIt(
        "A load that a write overtook",
        "backend/infrastructure/cache.py",
        "if generation == self._generation:",
        "if True:",
        "tests/infrastructure/test_cache_races.py::"
        "test_a_load_that_began_before_a_write_is_returned_but_not_stored[True-no row-core-itself]",
        "assert [None, None] == [2, 2]",
    ),
    BreakIt(
        "Eager loading instead of N+1",
        "backend/repositories/orders.py",
        "items = items_of(tx, [row[0] for row in rows])",
        "items = {row[0]: items_of(tx, [row[0]])[row[0]] for row in rows}",
        "tests/journeys/test_user_list.py::test_orders_come_in_a_fixed_number_of_statements[core]",
        "assert {7, 9} == {7}",
    ),
    BreakIt(
        "Optimistic locking by ETag",
        "backend/services/products.py",
        "if not precondition(product.version):",
        "if False:",
        "tests/journeys/test_races.py::test_of_many_changes_of_one_version_one_is_made[one application-core]",
        "Counter({(200, None): 20})",
    ),
    BreakIt(
        "An ETag belongs to one resource",
        "backend/web/handler.py",
        "return contract.etag and (PARAMETER in route.path or contract.public)",
        "return contract.etag",
        "tests/web/test_etags.py::"
        "test_users_me_is_another_resource_for_each_caller_so_no_version_validates_it[core-GET]",
        "assert (304, ",
    ),
    BreakIt(
        "Cursor pagination",
        "backend/repositories/accounts.py",
        "AND id < :before",
        "AND id <= :before",
        "tests/web/test_pagination.py::test_cursor_pages_together_are_the_list_newest_first[core-3]",
        "At index 3 diff",
    ),
    BreakIt(
        "Event bus",
        "backend/services/events.py",
        "tx.after_commit(lambda: self._call_listeners(event))",
        "self._call_listeners(event)",
        "tests/services/test_all_or_nothing.py::test_no_listener_is_called_for_what_was_rolled_back[core]",
        "a listener failed on failed",
    ),
    BreakIt(
        "Strict JSON",
        "backend/web/json_body.py",
        "object_pairs_hook=_object, ",
        "",
        "tests/web/test_json_body.py::test_what_parsers_could_read_differently_is_malformed[duplicate keys]",
        "DID NOT RAISE MalformedJson",
    ),
    BreakIt(
        "The client's address",
        "backend/web/middleware.py",
        'client_address(peer, environ.get("HTTP_X_FORWARDED_FOR", ""), trusted)',
        'environ.get("HTTP_X_FORWARDED_FOR", peer)',
        "tests/web/test_client_address.py::"
        "test_a_login_remembers_the_clients_address[core-198.51.100.9-1.2.3.4--198.51.100.9]",
        "assert '1.2.3.4' == '198.51.100.9'",
    ),
    BreakIt(
        "Rights hold at the commit",
        "backend/services/rights.py",
        "yield tx, as_admin(present) if caller.as_admin else present",
        "yield tx, present",
        "tests/test_rights_at_the_commit.py::"
        "test_a_write_that_the_admin_role_admitted_is_refused_once_the_role_is_gone[core-POST /api/v1/products]",
        '== (403, "FORBIDDEN")',
    ),
    BreakIt(
        "Coherence over workers",
        "backend/production/wiring.py",
        "from backend.production.cache import CoherentCache",
        "from backend.infrastructure.cache import LruCache as CoherentCache",
        "tests/journeys/test_revocation.py::test_the_next_request_to_any_worker_is_refused[production-deactivation]",
        "[200 OK]>, status = 401",
    ),
    BreakIt(
        "Rate limit over workers",
        "backend/production/rate_limiter.py",
        "mmap.mmap(-1, self._buckets * BUCKET * 8)",
        "bytearray(self._buckets * BUCKET * 8)",
        "tests/production/test_rate_limiter.py::test_four_processes_get_exactly_the_quota_between_them",
        " == 500",
    ),
)


def main() -> None:
    if len(sys.argv) < 2:
        for number, each in enumerate(BREAK_IT, 1):
            print(f"{number:2}  {each.pattern:40} {each.file}")
        return
    by_number = {str(number): each for number, each in enumerate(BREAK_IT, 1)}
    if sys.argv[1] not in by_number:
        print(f"There is no number {sys.argv[1]}: they go from 1 to {len(BREAK_IT)}.", file=sys.stderr)
        raise SystemExit(2)
    each = by_number[sys.argv[1]]
    print(f"{each.pattern}\n\n{each.file}\n  - {each.old}\n  + {each.new}\n\n{each.command}")


if __name__ == "__main__":
    main()
