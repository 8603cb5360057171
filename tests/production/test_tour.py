"""The README's tour on the production server."""

from tests.production.real_service import service
from tests.test_readme import take_tour


def test_the_tour_shows_the_stated_results_in_production_and_can_be_repeated(tmp_path, database_path):
    limits = {"RATE_LIMIT_DEFAULT": "300/60", "RATE_LIMIT_AUTH": "10/60"}
    with service(tmp_path / "server.log", database_path, **limits) as server:
        for _ in range(2):
            take_tour(database_path, server.address[1])
