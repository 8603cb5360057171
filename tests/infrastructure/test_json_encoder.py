"""JSON of nouns: camelCase names, RFC 3339 times, everything else as JSON has it."""

import json
from dataclasses import dataclass

import pytest

from backend.domain import Timestamp
from backend.infrastructure.json_encoder import camel_case, to_json


@dataclass(frozen=True)
class Leaf:
    leaf_number: int
    seen_at: Timestamp


@dataclass(frozen=True)
class Tree:
    id: str
    is_tall: bool
    note_or_none: str | None
    leaves: tuple[Leaf, ...]


LEAF = Leaf(7, Timestamp(1_700_000_000_007))
LEAF_TEXT = '{"leafNumber":7,"seenAt":"2023-11-14T22:13:20.007Z"}'


def test_a_noun_is_written_in_the_order_of_its_fields():
    assert to_json(Tree("t", True, None, (LEAF, LEAF))) == (
        f'{{"id":"t","isTall":true,"noteOrNone":null,"leaves":[{LEAF_TEXT},{LEAF_TEXT}]}}'
    )


def test_nouns_may_stand_anywhere_in_plain_data():
    assert to_json([{"data": [LEAF], "n": 1.5}]) == f'[{{"data":[{LEAF_TEXT}],"n":1.5}}]'


def test_an_integer_that_is_no_timestamp_stays_an_integer():
    assert to_json({"at": 1_700_000_000_007}) == '{"at":1700000000007}'


def test_text_is_escaped_only_where_json_asks_for_it():
    text = 'é 🍵 " \\ \n \x1f \u2028'
    assert to_json(Tree(text, False, text, ())).startswith('{"id":"é 🍵 \\" \\\\ \\n \\u001f \u2028"')
    assert json.loads(to_json(text)) == text


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", Leaf])
def test_what_is_no_noun_and_no_plain_data_is_refused(value):
    with pytest.raises(TypeError):
        to_json({"data": value})


def test_names_become_camel_case():
    assert [camel_case(name) for name in ("id", "unit_price", "a_b_c")] == ["id", "unitPrice", "aBC"]
