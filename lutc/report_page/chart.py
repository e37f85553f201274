"""The Pareto curve as SVG: time of the whole model against what it loses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from lutc.report_page.markup import duration, element, number, text
from lutc.report_page.view import Point, View

_HEIGHTS = {720: 340, 360: 300}
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 18, 22, 44
_WIDE = 3.0  # slowest over fastest
_FAR = 5.0  # times the budget
_LETTER = 6.6  # width of a letter at 12 px, on the generous side

Scale = Callable[[float], float]


def pareto(view: View) -> str:
    """The figure, once for wide screens and once for phones; empty with fewer than two points."""
    if len(view.points) < 2:
        return ""
    parts = [_svg(view, width, kind) for width, kind in ((720, "wide"), (360, "narrow"))]
    kinds = [("l-chosen", "this artifact")]
    if any(point.measured and not point.chosen for point in view.points):
        kinds.append(("l-measured", "measured"))
    if any(not point.measured for point in view.points):
        kinds.append(("l-predicted", "predicted"))
    legend = "".join(element("span", name, class_=kind) for kind, name in kinds)
    return element("figure", "".join(parts) + element("div", legend, class_="legend"), class_="card")


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats in both time and loss, by rising time."""
    best, kept = math.inf, []
    for point in sorted(points, key=lambda p: (p.us, p.loss)):
        if point.loss < best:
            kept.append(point)
            best = point.loss
    return kept


def near(view: View) -> list[Point]:
    """The points worth drawing: predictions far beyond the budget would press all others together."""
    if view.limit is None or view.limit <= 0:
        return list(view.points)
    most = max([_FAR * view.limit, *(point.loss for point in view.points if point.measured)])
    return [point for point in view.points if point.loss <= most]


def _svg(view: View, width: int, kind: str) -> str:
    height = _HEIGHTS[width]
    points = near(view)
    losses = [point.loss for point in points] + ([view.limit] if view.limit is not None else [])
    times = [point.us for point in points]
    x, marks = _time_axis(times, width)
    low, high = min(0.0, *losses), max(losses) or 1.0
    y = _linear(low, high + (high - low) * 0.08, height - _BOTTOM, _TOP)
    parts = _axes(view, width, height, x, y, marks, _ticks(low, high, 5))
    if view.limit is not None:
        parts.append(_line("limit", _LEFT, y(view.limit), width - _RIGHT, y(view.limit)))
        parts.append(_text("label limit-name", _LEFT + 4, y(view.limit) - 5, "budget", "start"))
    path = " ".join(f"{'L' if i else 'M'}{x(p.us):.1f} {y(p.loss):.1f}" for i, p in enumerate(front(points)))
    parts.append(f'<path class="front" d="{path}"/>')
    parts += [_mark(point, x, y) for point in sorted(points, key=lambda p: p.chosen)]
    parts += _names(points, x, y, width, height - _BOTTOM)
    label = f"Time of the whole model against {view.loss_name}, {len(points)} models"
    return element("svg", "".join(parts), class_=kind, viewBox=f"0 0 {width} {height}", role="img", aria_label=label)


def _time_axis(times: Sequence[float], width: int) -> tuple[Scale, list[float]]:
    """Where times lie and which to write; logarithmic where the slowest takes more than three times the fastest."""
    low, high = min(times), max(times)
    count = 6 if width > 500 else 4
    if low <= 0 or high < _WIDE * low:
        return _linear(0, high * 1.08, _LEFT, width - _RIGHT), _ticks(0, high * 1.08, count)
    low, high = low / 1.15, high * 1.12
    straight = _linear(math.log(low), math.log(high), _LEFT, width - _RIGHT)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks: list[float] = []
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 4, 5, 6, 8)):
        found = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
        if len(found) <= count + 1 or not marks:
            marks = found
    return lambda value: straight(math.log(value)), marks


def _axes(
    view: View, width: int, height: int, x: Scale, y: Scale, times: Sequence[float], losses: Sequence[float]
) -> list[str]:
    bottom = height - _BOTTOM
    parts = []
    for value in losses:
        parts.append(_line("grid", _LEFT, y(value), width - _RIGHT, y(value)))
        parts.append(_text("axis", _LEFT - 8, y(value) + 4, number(value), "end"))
    for value in times:
        parts.append(_line("grid", x(value), bottom, x(value), bottom + 4))
        parts.append(_text("axis", x(value), bottom + 17, duration(value) if value else "0", "middle"))
    parts.append(_text("axis", _LEFT, 12, f"\u2191 {view.loss_name}", "start"))
    parts.append(_text("axis", width - _RIGHT, height - 6, "time of one inference \u2192", "end"))
    return parts


def _mark(point: Point, x: Scale, y: Scale) -> str:
    kind = "point chosen" if point.chosen else "point measured" if point.measured else "point"
    words = f"{point.name}: {duration(point.us)}, loses {number(point.loss)}"
    words += f"; {point.forms}" if point.forms else ""
    radius = 8 if point.chosen else 4.5
    title = element("title", text(words))
    return f'<circle class="{kind}" cx="{x(point.us):.1f}" cy="{y(point.loss):.1f}" r="{radius}">{title}</circle>'


def _names(points: Sequence[Point], x: Scale, y: Scale, width: int, floor: float) -> list[str]:
    """Names beside measured points, the chosen one's first; a name that would lie over another is left out."""
    taken: list[tuple[float, float, float, float]] = []
    marks = [(x(point.us), y(point.loss)) for point in points]
    parts = []
    named = [point for point in points if point.measured or point.chosen]
    for point in sorted(named, key=lambda p: (not p.chosen, p.name not in ("int8", "all int8", "fp32"))):
        name = point.name if len(point.name) <= 28 else point.name[:27] + "\u2026"
        reach = _LETTER * len(name)
        left = x(point.us) + 12 + reach > width - _RIGHT
        start = x(point.us) - 12 - reach if left else x(point.us) + 12
        for shift in (4, -9, 17) if y(point.loss) < floor - 14 else (-9, 4):
            base = y(point.loss) + shift
            box = (start, base - 11, start + reach, base + 3)
            over = any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken)
            hit = any(box[0] - 5 < mx < box[2] + 5 and box[1] - 5 < my < box[3] + 5 for mx, my in marks)
            if name and start >= 0 and not over and not hit:
                taken.append(box)
                anchor = "end" if left else "start"
                parts.append(_text("label name" if point.chosen else "label", start + reach * left, base, name, anchor))
                break
    return parts


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(kind: str, x: float, y: float, words: str, anchor: str) -> str:
    return element("text", text(words), class_=kind, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)


def _linear(low: float, high: float, start: float, end: float) -> Scale:
    """Maps low .. high to start .. end."""
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _ticks(low: float, high: float, count: int) -> list[float]:
    """About so many round numbers within low .. high."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw)) if raw > 0 else 1.0
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]
