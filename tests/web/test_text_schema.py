"""A text is accepted exactly if the pattern that `/openapi.json` has for it says so."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.web.constraints import Text

ANY = st.text(st.sampled_from(" \t\n\r\v\f\0\x1c\x7f\x85\xa0\u2028\u202e\u3000abé𐀀"), max_size=12)


@pytest.mark.parametrize("rule", [Text(0, 5), Text(1, 5)], ids=str)
@given(text=ANY)
def test_a_text_is_accepted_if_and_only_if_its_pattern_matches(rule, text):
    wrong: dict[str, str] = {}
    rule.check(text, "text", wrong)
    assert bool(re.search(rule.schema()["pattern"], text)) == (not wrong)
