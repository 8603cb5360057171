"""The conditions of `If-Match` and `If-None-Match` (RFC 9110 §13.1). All entity tags here are `"<version>"`.

A list is searched for the tag and not split: 64 KiB of commas would take 20 ms to split. The search is exact: no tag
contains a quotation mark, so in a well-formed list `"2"` can only be that tag, weak or strong.
"""


def matches_weakly(condition: str, version: int | str) -> bool:
    """Whether `If-None-Match` matches the version. A weak tag counts; `*` matches any version."""
    return condition.strip() == "*" or f'"{version}"' in condition


def matches_strongly(condition: str, version: int) -> bool:
    """Whether `If-Match` matches the version. A weak tag never counts; `*` matches any version."""
    return condition.strip() == "*" or f'"{version}"' in condition.replace('/"', "/")  # breaks the tag of `W/"2"`
