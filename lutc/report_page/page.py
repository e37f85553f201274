"""The page: headline, Pareto curve, layers, what to paste, how it was made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from lutc.report import keep_lines
from lutc.report_page.chart import front, pareto
from lutc.report_page.facts import Facts
from lutc.report_page.layers import form_badge, layer_section
from lutc.report_page.markup import duration, element, number, size, text
from lutc.report_page.style import CSS
from lutc.report_page.view import View, view

_SAME = 1.02  # ratios of time below this are no difference
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # no script, no network, whatever a name may hold


def render(report: Mapping[str, Any], facts: Facts) -> str:
    """The whole page.

    Args:
        report: Of `lutc.compile`, or an artifact's metadata "lutc.report".
        facts: Everything else.

    Returns:
        HTML without script, links or time stamp (unless `facts.made` is one). Text from the model is escaped.
    """
    shown = view(report, facts)
    sections = [
        _header(shown, facts),
        _section("Speed against loss", _curve(shown)),
        _section("Layers", _layers(shown)),
        _section("If it should lose less", _keep(report, shown)),
        _section("How it was made", _made(shown, report, facts)),
        _section("Make it again", _commands(facts)),
    ]
    made = f" \u00b7 {text(facts.made)}" if facts.made else ""
    footer = element("footer", f"Written by lutc {text(facts.versions.get('lutc', ''))}{made}".strip())
    title = text(f"{facts.model} compiled by lutc")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in sections if part)
        + f"\n{footer}\n</main>\n</body>\n</html>\n"
    )


def _section(title: str, content: str) -> str:
    return element("section", f"<h2>{title}</h2>\n{content}") if content else ""


# Headline


def _header(shown: View, facts: Facts) -> str:
    tiles = [*_speed_tiles(shown, facts), *_loss_tiles(shown), *_size_tiles(shown)]
    parts = [element("p", "lutc compile report", class_="eyebrow"), element("h1", text(facts.model))]
    parts.append(element("p", _summary(shown), class_="lead"))
    if facts.missed:
        parts.append(element("div", f"<strong>Budget missed.</strong> {text(facts.missed)}", class_="banner bad"))
    parts.append(element("dl", "".join(tiles), class_="tiles"))
    return element("header", "\n".join(parts))


def _summary(shown: View) -> str:
    """One sentence: how many layers take which form."""
    kinds = Counter(layer.form for layer in shown.layers)
    if not kinds:
        return "No layer was replaced."
    layers = "1 layer" if len(shown.layers) == 1 else f"{len(shown.layers)} layers"
    if len(kinds) == 1:
        return f"{layers}, {'all' if len(shown.layers) > 1 else ''} {form_badge(next(iter(kinds)))}"
    parts = [f"{count}\u00a0{form_badge(form)}" for form, count in kinds.most_common()]
    whole = [*(f"{part}," for part in parts[:-1]), parts[-1]]
    return f"{layers}: " + " ".join(element("span", part, class_="whole") for part in whole)


def _tile(label: str, value: str, note: str = "", kind: str = "") -> str:
    inner = f'<dt>{label}</dt><dd class="value">{value}</dd>' + (f'<dd class="note">{note}</dd>' if note else "")
    return element("div", inner, class_=f"tile {kind}".strip())


def _speed_tiles(shown: View, facts: Facts) -> list[str]:
    """Against int8 and fp32: from the measurement made for the page, else from the selection's measured points."""
    pairs: list[tuple[str, float, float]] = []
    if facts.times:
        pairs = [(name, us, facts.times.ours) for name, us in facts.times.others.items()]
    elif shown.chosen:
        ours = shown.chosen.us
        pairs = [(name, us, ours) for name in ("int8", "fp32") if (us := shown.us_of(name)) is not None]
    tiles = []
    for name, theirs, ours in pairs:
        if min(theirs, ours) <= 0:
            continue
        faster = theirs >= ours
        factor = theirs / ours if faster else ours / theirs
        label = f"{'faster' if faster else 'slower'} than {text(name)}"
        if factor < _SAME:
            label = f"as fast as {text(name)}"
        note = f"{duration(ours)} against {duration(theirs)}"
        tiles.append(_tile(label, f"{factor:.2f}\u00d7", note, "good" if faster else "bad"))
    return tiles


def _loss_tiles(shown: View) -> list[str]:
    if shown.score:
        reference, compiled = shown.score["reference"], shown.score["compiled"]
        note = f"from {number(reference, 4)} to {number(compiled, 4)}"
        drop = shown.score["drop"]
        allowed = f"; allowed: {number(shown.limit)}" if shown.limit is not None and "score" in shown.loss_name else ""
        if drop <= 0:
            return [_tile("score", "kept", note + allowed, "good")]
        share = f" ({number(100 * drop / abs(reference), 2)}\u202f%)" if reference else ""
        return [_tile("drop of the score", number(drop), note + share + allowed)]
    if shown.chosen:
        note = "squared error over variance, on samples held out"
        if shown.limit is not None:
            note += f"; allowed: {number(shown.limit)}"
        return [_tile(text(shown.loss_name), number(shown.chosen.loss), note)]
    errors = [layer.error for layer in shown.layers if layer.family == "lookup" and layer.error is not None]
    if not errors:
        return []
    middle = sorted(errors)[len(errors) // 2]
    return [_tile("median error of a layer", number(middle), "squared error over variance, on samples held out")]


def _size_tiles(shown: View) -> list[str]:
    if shown.bytes is None:
        return []
    note = f"the model's constants in fp32: {size(shown.dense_bytes)}" if shown.dense_bytes else ""
    return [_tile("artifact", size(shown.bytes), note)]


# Sections


def _curve(shown: View) -> str:
    figure = pareto(shown)
    if not figure:
        return ""
    where = f", {text(shown.time_shape)}" if shown.time_shape else ""
    best = len(front(shown.points))
    beaten = (
        "one of them is best in both time and loss" if best == 1 else f"{best} of them, on the line, no other beats"
    )
    intro = (
        f"{len(shown.points)} ways to compile this model were weighed; {beaten}. Time of one inference on one "
        f"thread{where}."
    )
    head = "".join(element("th", name) for name in ("model", "time", text(shown.loss_name), ""))
    rows = [element("tr", head + element("th", "forms", class_="words"))]
    for point in shown.points:
        kind = "this artifact" if point.chosen else "measured" if point.measured else "predicted"
        cells = (text(point.name) or "\u2013", duration(point.us), number(point.loss), kind)
        line = "".join(element("td", cell) for cell in cells) + element("td", text(point.forms), class_="words")
        rows.append(element("tr", line, class_="chosen" if point.chosen else ""))
    table = element("div", element("table", "".join(rows)), class_="scroll")
    return f"<p>{intro}</p>{figure}<details><summary>As a table</summary>{table}</details>"


def _layers(shown: View) -> str:
    if not shown.layers:
        return ""
    words = []
    if any(layer.us_int8 is not None for layer in shown.layers):
        words.append("Time is that of one inference; the mark on a bar is the same layer in int8.")
    if any(layer.error for layer in shown.layers):
        words.append("Error is that of the layer's output: squared error over variance, on samples held out.")
    if any(layer.divergence for layer in shown.layers):
        words.append("Its effect on the output is what the model's outputs move by when this layer alone is replaced.")
    intro = f'<p class="soft">{" ".join(words)}</p>' if words else ""
    return intro + layer_section(shown)


def _keep(report: Mapping[str, Any], shown: View) -> str:
    """Flags that keep the costliest layers dense."""
    effects = {layer.name: layer.divergence for layer in shown.layers if layer.divergence is not None}
    rows = [{**row, "error": effects.get(str(row["name"]), row.get("error"))} for row in report.get("layers", ())]
    lines = keep_lines(rows)
    if not lines:
        return ""
    what = "move the output most" if effects else "have the largest error"
    intro = f"<p>These lookup layers {what}. Add one or more of the lines to the command to keep them dense.</p>"
    return intro + element("pre", "\n".join(text(line) for line in lines))


def _made(shown: View, report: Mapping[str, Any], facts: Facts) -> str:
    choice = {"forms chosen by": shown.how, "tables laid out for": shown.target, "seed": report.get("seed")}
    calibration = {**choice, **facts.calibration, "learning": _learned(report.get("learn"))}
    if facts.times:
        calibration["times measured at"] = f"{facts.times.shape}, one thread, CPU time"
    blocks = [_facts(calibration), _facts({**facts.machine, **facts.versions})]
    return element("div", "".join(f"<div>{block}</div>" for block in blocks if block), class_="columns")


def _learned(found: object) -> str:
    """What learning did, in words; empty where there was none."""
    if not isinstance(found, Mapping):
        return ""
    values = {name: found.get(name) for name in ("minutes", "steps", "before", "after")}
    if not all(isinstance(value, (int, float)) for value in values.values()):
        return ""
    shown = {name: number(float(str(value))) for name, value in values.items()}
    kept = "" if found.get("kept") else "; not kept"
    classes = found.get("classes")
    told = ""
    if isinstance(classes, list) and any(classes):
        told = " (of classes {} \u2192 {})".format(*map(number, classes))
    moved = f"divergence on samples held out {shown['before']} \u2192 {shown['after']}{told}{kept}"
    return f"{shown['minutes']} minutes, {values['steps']} steps: {moved}"


def _facts(pairs: Mapping[str, object]) -> str:
    rows = "".join(
        f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in pairs.items() if value not in ("", None)
    )
    return element("dl", rows, class_="facts") if rows else ""


def _commands(facts: Facts) -> str:
    if not facts.commands:
        return ""
    intro = "<p>The same model, samples, seed and version give the same artifact, byte for byte.</p>"
    return intro + "".join(element("pre", text(command)) for command in facts.commands)
