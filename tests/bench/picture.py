"""The figures with targets as an SVG: a bar for each contender and a mark at the strictest limit."""

from collections.abc import Iterator, Sequence
from html import escape

from tests.bench.measure import OURS, Figure
from tests.bench.report import label, shown
from tests.bench.targets import Target

WIDTH, LEFT, RIGHT = 760, 190, 90  # of the picture; of the names; of the values
ROW, GAP = 18, 40
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#222}.title{font-weight:600}.bar{fill:#b4bcc8}.ours{fill:#2a78d6}"
    ".spread{stroke:#222;stroke-width:1}.limit{stroke:#c2410c;stroke-width:2;stroke-dasharray:4 3}.said{fill:#c2410c}"
)


def picture(figures: Sequence[Figure], targets: Sequence[Target]) -> str:
    """The whole SVG, with its own white background for dark pages."""
    drawn: list[str] = []
    y = 10
    for figure in figures:
        mine = [target for target in targets if target.of[:2] == (figure.group, figure.name) and target.limit]
        limits = [(limit, target) for target in mine if (limit := target.limit_on_scale(figures)) is not None]
        if limits:
            drawn += _panel(figure, *_strictest(limits), y)
            y += GAP + ROW * len(figure.rounds)
    size = f'width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}"'
    sheet = f'<rect width="{WIDTH}" height="{y}" rx="8" fill="#fff"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><title>Measured, and the limits</title>'
    return "\n".join([head, f"<style>{STYLE}</style>", sheet, *drawn, "</svg>\n"])


def _strictest(limits: list[tuple[float, Target]]) -> tuple[float, str]:
    """The limit that is hardest to keep, and how its mark is labelled."""
    upper = limits[0][1].at_most < float("inf")
    limit = (min if upper else max)(value for value, _ in limits)
    return limit, f"at {'most' if upper else 'least'} {shown(limit)}"


def _panel(figure: Figure, limit: float, said: str, y: int) -> Iterator[str]:
    """A title, a bar for each contender, and the mark."""
    top = max([limit, *(figure.spread(contender)[1] for contender in figure.rounds)])
    scale = (WIDTH - LEFT - RIGHT) / top
    bottom = y + 24 + ROW * len(figure.rounds)
    mark = LEFT + limit * scale
    title = f"{figure.group} · {label(figure)}"
    yield f'<text class="title" x="14" y="{y + 14}">{escape(title)}</text>'
    for row, contender in enumerate(figure.rounds):
        yield from _bar(figure, contender, scale, y + 24 + ROW * row)
    yield f'<path class="limit" d="M{mark:.1f} {y + 18}V{bottom}"/>'
    yield f'<text class="said" x="{WIDTH - 14}" y="{y + 14}" text-anchor="end">{said}</text>'


def _bar(figure: Figure, contender: str, scale: float, y: int) -> Iterator[str]:
    middle, (low, high) = figure.median(contender), figure.spread(contender)
    kind = "bar ours" if contender == OURS else "bar"
    yield f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(contender)}</text>'
    yield f'<rect class="{kind}" x="{LEFT}" y="{y + 2}" width="{middle * scale:.1f}" height="{ROW - 6}" rx="2"/>'
    yield f'<path class="spread" d="M{LEFT + low * scale:.1f} {y + 8}H{LEFT + high * scale:.1f}"/>'
    yield f'<text x="{WIDTH - 14}" y="{y + 12}" text-anchor="end">{shown(middle)}</text>'
