"""The `auth` limit is one count for all hosts; the others are each host's own."""

import pytest

from backend.infrastructure.rate_limiter import Policy, RateLimiter
from backend.postgres.rate_limiter import HostsRateLimiter
from tests.at_once import at_once

AUTH, DEFAULT = Policy("auth", 10, 36_000), Policy("default", 10, 36_000)  # one an hour


@pytest.fixture
def hosts(make_database):
    return [HostsRateLimiter(RateLimiter(), make_database()) for _ in range(2)]


def hits(hosts, policy, count):
    return sum(at_once([lambda n=n: hosts[n % 2].hit(policy, "ada").allowed for n in range(count)]))


def test_two_hosts_allow_the_quota_of_auth_between_them(hosts):
    assert hits(hosts, AUTH, 40) == AUTH.quota


def test_two_hosts_allow_the_quota_of_default_each(hosts):
    assert hits(hosts, DEFAULT, 40) == 2 * DEFAULT.quota


def test_a_result_says_what_is_left(hosts):
    one, other = hosts
    first, second = one.hit(AUTH, "ada"), other.hit(AUTH, "ada")
    assert (first.remaining, second.remaining) == (9, 8)
    assert 7000 < second.reset_after <= 7200
    assert other.peek(AUTH, "ada").remaining == 8
    assert one.peek(AUTH, "grace").remaining == 10


def test_a_refused_hit_says_when_to_retry_and_changes_no_row(hosts, outsider):
    for _ in range(AUTH.quota):
        hosts[0].hit(AUTH, "ada")
    before = outsider.execute("SELECT xmin, arrival FROM rate_limits").fetchall()
    refused = hosts[1].hit(AUTH, "ada")
    assert (refused.allowed, refused.remaining) == (False, 0)
    assert 0 < refused.retry_after <= 3600
    assert outsider.execute("SELECT xmin, arrival FROM rate_limits").fetchall() == before


def test_a_hit_that_is_taken_back_may_be_made_again(hosts):
    one, other = hosts
    for _ in range(AUTH.quota):
        since = one.clock()
        one.hit(AUTH, "ada")
    assert not other.hit(AUTH, "ada").allowed
    assert one.refund(AUTH, "ada", since).remaining == 1
    assert other.hit(AUTH, "ada").allowed
    assert not one.hit(AUTH, "ada").allowed


def test_rows_of_passed_times_are_deleted(hosts, outsider):
    outsider.execute("INSERT INTO rate_limits SELECT 'old ' || n, n FROM generate_series(1, 15) AS n")
    hosts[0].hit(AUTH, "ada")
    hosts[0].hit(AUTH, "ada")
    assert outsider.execute("SELECT subject FROM rate_limits").fetchall() == [("auth ada",)]
