"""Hosts whose clocks differ by less than a second accept each other's tokens."""

import pytest

from tests.conftest import Api, Clock
from tests.wirings import POSTGRES, make_app


@pytest.mark.parametrize(("behind", "expected"), [(0.9, 200), (-4.0, 200), (2.5, 401)])
def test_a_new_token_is_good_on_a_host_whose_clock_is_a_little_behind(
    make_api, settings, standing_clock, behind, expected
):
    other = Api(make_app(settings, Clock(), wiring=POSTGRES))
    standing_clock.advance(behind)
    user = make_api().sign_up("Ada")
    answers = [other.get("/users/me", user), other.post("/auth/refresh", json={"refreshToken": user.refresh})]
    other.app.close()
    assert [answer.status_code for answer in answers] == [expected] * 2
