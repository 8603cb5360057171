"""The result of a run: as text to read, with colour on a terminal only, or as JSON for tools."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from tests.conformance.checks import Result

GREEN, RED, YELLOW, PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[33m", "\x1b[0m"


def section_text(results: Sequence[Result], colour: bool) -> str:
    """The score of a section, and what is broken in it."""
    counted = score(results)
    line = f"{results[0].section.replace('_', ' '):<16}{counted['holds']:>4} of {counted['holds'] + counted['broken']}"
    lines = [(line, RED if counted["broken"] else GREEN), *_details(results)]
    return "\n".join(f"{paint}{text}{PLAIN}" if colour and paint else text for text, paint in lines)


def _details(results: Sequence[Result]) -> Iterator[tuple[str, str]]:
    for result in results:
        if result.verdict == "broken":
            yield f"  ✗ {result.name}", RED
            yield f"      promise    {result.promise}", ""
            yield f"      looked at  {result.what}", ""
            yield f"      expected   {result.expected}", ""
            yield f"      came       {result.came}", ""
    for reason, count in Counter(result.what for result in results if result.verdict == "skipped").items():
        yield f"  – {count} not checked: {reason}", YELLOW


def score_text(results: Sequence[Result]) -> str:
    counted = score(results)
    total = counted["holds"] + counted["broken"]
    percent = 100 * counted["holds"] // max(1, total)
    return f"Score: {counted['holds']} of {total} promises hold ({percent} %), {counted['skipped']} not checked."


def as_json(url: str, results: Sequence[Result]) -> str:
    """`{"url", "holds", "broken", "skipped", "checks": […]}`."""
    checks = [result.as_dict() for result in results]
    return json.dumps({"url": url, **score(results), "checks": checks}, indent=2, ensure_ascii=False)


def score(results: Iterable[Result]) -> dict[str, int]:
    counted = Counter(result.verdict for result in results)
    return {verdict: counted[verdict] for verdict in ("holds", "broken", "skipped")}
