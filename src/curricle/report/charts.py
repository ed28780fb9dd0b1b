"""Lines of a chart as SVG paths: numbers in, plain data for `macros.html` out. Knows nothing of what they mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 560.0, 240.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 24.0, 12.0, 34.0
TICKS = 5

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One line of a chart."""

    name: str
    points: Sequence[Point]
    marks: bool = False
    """Whether each point is drawn as a dot."""


@dataclass(frozen=True)
class Chart:
    """What `macros.chart` draws."""

    title: str
    x_label: str
    y_label: str
    lines: tuple[DrawnLine, ...]
    x_ticks: tuple[tuple[float, str], ...]
    """(place, text)"""
    y_ticks: tuple[tuple[float, str], ...]
    marks: tuple[Mark, ...] = ()
    top: float = TOP
    """Where the lines begin; above stand the texts of the marks."""
    width: float = WIDTH
    height: float = HEIGHT
    said: str = ""
    """What it shows, for who cannot see it."""


@dataclass(frozen=True)
class Mark:
    """An upright line."""

    place: float
    text: str
    at: float
    """Where the text begins."""
    y: float
    """Its base line: texts that would lie over one another stand in rows."""


@dataclass(frozen=True)
class DrawnLine:
    """A line in the chart's own coordinates."""

    name: str
    path: str
    dots: tuple[tuple[float, float, str], ...]
    """(x, y, what it is)"""
    last: str
    """Its last value."""


def chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str = "",
    marks: Sequence[tuple[float, str]] = (),
    x_range: Point | None = None,
    y_range: Point | None = None,
    percent: bool = False,
) -> Chart | None:
    """Lay lines out; None where there is no finite point.

    Args:
        marks: upright lines at x, with a text.
        percent: y is a share, shown in percent.
    """
    kept = [Line(line.name, [p for p in line.points if all(map(math.isfinite, p))], line.marks) for line in lines]
    kept = [line for line in kept if line.points]
    if not kept:
        return None
    xs, ys = ([p[k] for line in kept for p in line.points] for k in (0, 1))
    x_low, x_high = x_range or (min(xs), max(xs))
    low, high = y_range or (min(ys), max(ys))
    x_ticks, y_ticks = ticks(x_low, x_high), ticks(low, high)
    x_low, x_high = min([x_low, *x_ticks]) if x_range else x_low, max([x_high, *x_ticks]) if x_range else x_high
    low, high = min(low, y_ticks[0]), max(high, y_ticks[-1])
    if x_low == x_high:
        x_low, x_high = x_low - 0.5, x_high + 0.5
    if low == high:
        low, high = low - 0.5, high + 0.5

    def across(x: float) -> float:
        return round(LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT), 1)

    marked = _in_rows([(across(x), text) for x, text in marks if x_low <= x <= x_high])
    top = max([TOP, *(mark.y + 6 for mark in marked)])

    def down(y: float) -> float:
        return round(top + (high - y) / (high - low) * (HEIGHT - top - BOTTOM), 1)

    shown = share if percent else number
    drawn = []
    for line in kept:
        places = [(across(x), down(y)) for x, y in line.points]
        path = "M" + "L".join(f"{x:g} {y:g}" for x, y in places)
        dots = tuple(
            (*place, f"{line.name}: {number(x)}, {shown(y)}") for place, (x, y) in zip(places, line.points, strict=True)
        )
        drawn.append(
            DrawnLine(line.name, path, dots if line.marks or len(dots) == 1 else (), shown(line.points[-1][1]))
        )
    said = "; ".join(
        f"{line.name}: from {shown(line.points[0][1])} to {shown(line.points[-1][1])} over {len(line.points)} points"
        for line in kept
    )
    return Chart(
        title,
        x_label,
        y_label,
        tuple(drawn),
        tuple((across(x), number(x)) for x in x_ticks if x_low <= x <= x_high),
        tuple((down(y), shown(y)) for y in y_ticks if low <= y <= high),
        marked,
        top,
        said=said,
    )


LETTER, ROW = 8.5, 16.0
"""About the width of a letter, and the height of a row of texts, as narrow pages draw them."""


def _in_rows(marks: Sequence[tuple[float, str]]) -> tuple[Mark, ...]:
    """Marks with their texts in rows, in each of which none lies over another; those of one place stand one below the other, and none sticks out at the right."""
    ends: list[float] = []
    made = []
    for place, text in marks:
        wide = LETTER * len(text)
        at = max(LEFT, min(place, WIDTH - wide))
        row = next((k for k, end in enumerate(ends) if end <= at), len(ends))
        ends[row : row + 1] = [at + wide + LETTER]
        made.append(Mark(place, text, at, TOP + ROW * row))
    return tuple(made)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers over a range, some `TICKS` of them, the first at or below `low` and the last at or above `high`."""
    if high <= low:
        return [low]
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def number(value: float) -> str:
    """``1,250``, ``0.8312``, ``3e-05``."""
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    return f"{value:.3g}" if abs(value) < 1e-3 or abs(value) >= 1e6 else f"{value:.4g}"


def share(value: float) -> str:
    """``83.1 %``; what is not all is never shown as all, and what is something never as nothing: ``> 99.9 %``, ``< 0.1 %``."""
    if 0.9995 <= value < 1:
        return "> 99.9 %"
    if 0 < value < 0.0005:
        return "< 0.1 %"
    return f"{100 * value:.1f} %".replace(".0 %", " %")
