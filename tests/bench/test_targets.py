"""The bench's arithmetic: ratios within rounds, verdicts, and what counts as noise."""

import pytest

from tests.bench.measure import Figure, interleaved, ratio_of_rounds
from tests.bench.report import Report
from tests.bench.targets import Series, Target, Verdict

NAME = ("a group", "a figure")


def figure(ours, other=(1, 1, 1)):
    return Figure(*NAME, "µs", {"ours": ours, "other": other})


def verdict(ours, other=(1, 1, 1), **limit):
    return str(target(**limit).verdict([figure(ours, other)]))


def target(**limit):
    return Target("ours against the other", Series(*NAME), Series(*NAME, "other"), **limit)


def test_each_contender_comes_first_in_its_turn():
    came = []
    results = interleaved({name: lambda name=name: came.append(name) or name for name in "abc"}, 3)
    assert came == list("abcbcacab")
    assert results == {name: [name] * 3 for name in "abc"}


def test_a_ratio_is_that_of_one_round_and_not_of_the_medians():
    """The machine got slower and slower: the medians' ratio would be 2."""
    assert ratio_of_rounds([1, 4, 9], [2, 2, 3]) == (2, 0.5, 3)
    assert ratio_of_rounds([2, 4, 40], [1, 2, 20]) == (2, 2, 2)


def test_contenders_that_missed_a_round_cannot_be_compared():
    with pytest.raises(ValueError, match="zip"):
        ratio_of_rounds([1, 2], [1])


@pytest.mark.parametrize(
    ("ours", "limit", "said"),
    [
        ((1, 1, 1), {"at_most": 1}, "holds"),
        ((2, 2, 2), {"at_most": 1}, "misses"),
        ((1, 1, 2), {"at_most": 1}, "holds, within noise"),
        ((1, 2, 2), {"at_most": 1}, "misses, within noise"),
        ((1, 1, 2), {"at_most": 1, "always": True}, "misses"),
        ((5, 5, 6), {"at_least": 5}, "holds"),
        ((4, 5, 6), {"at_least": 5}, "holds, within noise"),
        ((4, 4, 4), {"at_least": 5}, "misses"),
        ((6, 6, 6), {"at_least": 5, "stretch": 6}, "holds, and the stretch"),
        ((5, 5, 5), {"at_least": 5, "stretch": 6}, "holds"),
        ((1, 1, 1), {"at_most": 2, "stretch": 1}, "holds, and the stretch"),
        ((2, 2, 2), {"at_most": 2, "stretch": 1}, "holds"),
    ],
)
def test_the_median_decides_and_the_spread_says_how_sure_that_is(ours, limit, said):
    assert verdict(ours, **limit) == said


def test_a_target_without_figures_has_no_verdict():
    assert target(at_most=1).verdict([]) == Verdict("not measured", None)
    assert target(at_most=1).verdict([Figure(*NAME, "µs", {"ours": [1]})]) == Verdict("not measured", None)


def test_a_report_is_read_as_it_was_written():
    report = Report([figure((1, 2, 3))], [target(at_most=1)])
    assert report.only_noise_since(report.markdown())


@pytest.mark.parametrize(
    ("ours", "only_noise"),
    [
        ((3, 4, 9), True),  # the spreads meet
        ((3.5, 4, 9), False),  # slower than in any round before
        ((0.5, 0.5, 2), False),  # the target holds now, and the spreads still overlap
    ],
)
def test_only_noise_has_changed_if_spreads_overlap_and_verdicts_are_equal(ours, only_noise):
    before = Report([figure((2, 2, 3))], [target(at_most=1)]).markdown()
    assert Report([figure(ours)], [target(at_most=1)]).only_noise_since(before) is only_noise


def test_a_target_that_is_new_is_more_than_noise():
    assert not Report([figure((1, 1, 1))], [target(at_most=1)]).only_noise_since("nothing of ours")
