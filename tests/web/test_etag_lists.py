"""Which versions a list of entity tags names, whatever else is in it (RFC 9110 §8.8.3)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.web.etags import matches_strongly, matches_weakly

contents = st.one_of(
    st.sampled_from(["2", "22", "-2", "2,", ",2", "W/", "2/", "/", "2-gzip", "*", ""]),
    st.text(st.sampled_from("2,/W*\\\xff!"), max_size=4),
)
lists = st.lists(
    st.tuples(st.sampled_from(["", "W/"]), contents, st.sampled_from([",", ", ", "\t,,  ,"])), min_size=1, max_size=6
)


@given(lists)
def test_a_list_names_exactly_the_tags_that_stand_in_it(tags: list[tuple[str, str, str]]) -> None:
    written = "".join(f'{weak}"{content}"{separator}' for weak, content, separator in tags)
    assert matches_weakly(written, 2) == any(content == "2" for _, content, _ in tags)
    assert matches_strongly(written, 2) == any((weak, content) == ("", "2") for weak, content, _ in tags)


@pytest.mark.parametrize("written", ["", "2", "'2'", '"2', '2"', '" 2"', '"2 "', "W/2", "**", '"*"', "*, *", ","])
def test_what_is_no_list_of_tags_names_no_version(written: str) -> None:
    assert not matches_weakly(written, 2)
    assert not matches_strongly(written, 2)


@pytest.mark.parametrize("written", ["*", " *\t"])
def test_an_asterisk_names_all(written: str) -> None:
    assert matches_weakly(written, 2)
    assert matches_strongly(written, 2)
