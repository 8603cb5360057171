"""Connections are counted by address over all workers, also after a worker's death."""

from backend.production.address_counts import WORKERS, AddressCounts


def test_an_address_has_one_limit_over_all_workers_and_others_have_their_own() -> None:
    counts = AddressCounts()
    one, other = counts.begin_worker(), counts.begin_worker()
    assert [counts.enter(worker, "192.0.2.1", 3) for worker in (one, other, one, other, one)] == [True] * 3 + [
        False
    ] * 2
    assert counts.enter(one, "192.0.2.2", 3)
    counts.leave(other, "192.0.2.1")
    assert counts.enter(one, "192.0.2.1", 3)


def test_the_places_and_the_number_of_a_dead_worker_are_free_again() -> None:
    """However many workers die, no new worker gets the number of a living one."""
    counts = AddressCounts()
    steady = counts.begin_worker()
    assert counts.enter(steady, "192.0.2.1", 2)
    for _ in range(2 * WORKERS):
        worker = counts.begin_worker()
        assert worker != steady
        assert counts.enter(worker, "192.0.2.1", 2)
        assert not counts.enter(steady, "192.0.2.1", 2)
        counts.end_worker(worker)
