"""SECURITY.md is true and whole: what a row names exists, and each requirement of the standards stands there once."""

import re

import pytest

from tests.test_house_rules import ROOT, has_symbol, refuse

# OWASP ASVS 5.0.0: the level of each requirement, in order, of each section. `1.1` has two, both of level 2.
LEVELS = """
    1.1 22 1.2 1111122223 1.3 112222222223 1.4 222 1.5 123
    2.1 122 2.2 112 2.3 12223 2.4 23
    3.1 3 3.2 113 3.3 12223 3.4 11222233 3.5 11122333 3.6 3 3.7 22333
    4.1 12233 4.2 23333 4.3 22 4.4 1222
    5.1 2 5.2 112333 5.3 113 5.4 222
    6.1 122 6.2 111111112222 6.3 11223333 6.4 112233 6.5 22222333 6.6 2223 6.7 33 6.8 2222
    7.1 222 7.2 1111 7.3 22 7.4 11222 7.5 223 7.6 22
    8.1 1233 8.2 1123 8.3 133 8.4 23
    9.1 111 9.2 1222
    10.1 22 10.2 223 10.3 22223 10.4 1111122222233333 10.5 22222 10.6 22 10.7 222
    11.1 2233 11.2 22233 11.3 11233 11.4 1222 11.5 23 11.6 23 11.7 33
    12.1 12233 12.2 11 12.3 22223
    13.1 2333 13.2 222223 13.3 2233 13.4 1222233
    14.1 22 14.2 12223333 14.3 122
    15.1 12233 15.2 12233 15.3 1222222 15.4 3333
    16.1 2 16.2 22222 16.3 2222 16.4 222 16.5 2223
    17.1 23 17.2 22223333 17.3 22
""".split()
REQUIREMENTS = [
    f"{section}.{number}"
    for section, levels in zip(LEVELS[::2], LEVELS[1::2], strict=True)
    for number, level in enumerate(levels, 1)
    if level != "3"
]
WITHOUT_TEST = ("**Gap**", "**Page**", "**Tool**", "**Proxy**", "**Operator**")
TEXT = (ROOT / "backend/operations/SECURITY.md").read_text(encoding="utf-8")


def tables() -> list[list[str]]:
    """The rows of all tables below `## API Security Top 10`: their cells."""
    lines = TEXT.partition("## API Security Top 10")[2].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [row for row in rows if re.match(r"API\d|\d", row[0])]


def chosen(name: str) -> list[str]:
    """The requirements of a chapter, a section or a single number."""
    return [number for number in REQUIREMENTS if f"{number}.".startswith(f"{name}.")]


MET, EXCLUDED = [row for row in tables() if len(row) > 2], [row for row in tables() if len(row) == 2]


def test_each_requirement_of_levels_1_and_2_stands_there_once():
    """The standard has 70 of level 1 and 183 of level 2."""
    assert len(REQUIREMENTS) == 70 + 183
    named = [number for number, *_ in MET if not number.startswith("API")]
    named += [number for names, _ in EXCLUDED for name in names.split(", ") for number in chosen(name)]
    assert sorted(named) == sorted(REQUIREMENTS)
    assert [number for number in named if number not in REQUIREMENTS] == []


def test_each_risk_of_the_top_10_stands_there_once():
    assert [risk.split()[0] for risk, *_ in MET if risk.startswith("API")] == [f"API{n}" for n in range(1, 11)]


def test_the_gaps_are_those_of_the_rows():
    (listed,) = re.findall(r"^Gaps: (.+)\.$", TEXT, re.MULTILINE)
    assert listed.split(", ") == [row[0] for row in MET if "**Gap**" in "".join(row) and not row[0].startswith("API")]


@pytest.mark.parametrize("row", MET, ids=lambda row: row[0])
def test_what_a_row_names_exists(row):
    """A row names its code and a test, or says why there is none."""
    where, tests = row[-2:]
    symbols, cases = re.findall(r"`([\w./-]+):([\w.]+)`", where), re.findall(r"`(tests/[^`:]+)::(test_\w+)", tests)
    assert (symbols and cases) or (where.startswith(WITHOUT_TEST) and not tests)
    refuse(
        {f"{name}: {symbol}" for name, symbol in symbols + cases
         if not ((ROOT / name).is_file() and has_symbol(ROOT / name, symbol))},
        "Renamed or moved? Correct this row of SECURITY.md.",
    )  # fmt: skip
