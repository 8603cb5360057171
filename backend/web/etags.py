"""The conditions of `If-Match` and `If-None-Match` (RFC 9110 §13.1). Our entity tags are all `"<version>"`.

A list is searched for the tag in question, not taken apart, which would cost 20 ms for 64 KiB of commas. The search is
exact: no tag contains a quotation mark, so in a well-formed list `"2"` is nothing but that tag, weak or strong.
"""


def matches_weakly(condition: str, version: int) -> bool:
    """Whether `If-None-Match` names the version: a weak tag does too, `*` is any version."""
    return condition.strip() == "*" or f'"{version}"' in condition


def matches_strongly(condition: str, version: int) -> bool:
    """Whether `If-Match` names the version: weak tags never do, `*` is any version."""
    return condition.strip() == "*" or f'"{version}"' in condition.replace('/"', "/")  # what `W/"2"` begins with
