"""Both schemas are one: each file of PostgreSQL is that of SQLite in PostgreSQL's words."""

import re
from pathlib import Path

import pytest

SQL = Path(__file__).parents[2] / "sql"
ONE_PROCESS_CACHES = "0009_cache_invalidations.sql"  # nothing is cached on PostgreSQL
OVER_HOSTS = "0009_rate_limits.sql"
WORDS = {  # of SQLite → of PostgreSQL
    r"\bINTEGER PRIMARY KEY AUTOINCREMENT": "bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    r"\bINTEGER\b": "bigint",
    r"\bactive bigint": "active smallint",
    r"\bBLOB\b": "bytea",
    r"\bTEXT\b": 'text COLLATE "C"',
    r"\) STRICT(, WITHOUT ROWID)?;": ");",
}


def statements(path: Path) -> str:
    """Without comments, and with single blanks."""
    return re.sub(r"\s+", " ", re.sub("--.*", "", path.read_text(encoding="utf-8"))).strip()


def test_both_have_the_same_files():
    sqlite, postgres = ({path.name for path in (SQL / engine).glob("*.sql")} for engine in ("sqlite", "postgres"))
    assert sqlite - {ONE_PROCESS_CACHES} == postgres - {OVER_HOSTS}


@pytest.mark.parametrize(
    "file", [path.name for path in (SQL / "sqlite").glob("*.sql") if path.name != ONE_PROCESS_CACHES]
)
def test_a_file_means_the_same(file):
    translated = statements(SQL / "sqlite" / file)
    for word, other in WORDS.items():
        translated = re.sub(word, other, translated)
    assert statements(SQL / "postgres" / file) == translated
