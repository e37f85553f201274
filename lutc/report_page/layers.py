"""The table of layers: form and why, bars of time and error, every candidate; sorted by clicks without a script."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lutc.report_page.markup import breakable, duration, element, number, size, text
from lutc.report_page.view import Candidate, Layer, View

_ORDERS: tuple[tuple[str, str, Callable[[Layer], float | None]], ...] = (
    ("time", "time", lambda layer: layer.us),
    ("output", "effect on the output", lambda layer: layer.divergence),
    ("error", "error", lambda layer: layer.error),
    ("size", "size", lambda layer: layer.bytes),
)


def layer_section(view: View) -> str:
    """The section; a column for which no layer has a value is left out."""
    layers = view.layers
    if not layers:
        return ""
    shown = [order for order in _ORDERS if any(order[2](layer) for layer in layers)]
    names = [key for key, _, _ in shown]
    bars = sum(key != "size" for key in names)
    sorts = [element("span", "Sort by", class_="by")]
    rules = []
    for key, label, _ in [("graph", "graph order", None), *shown]:
        checked = " checked" if key == "graph" else ""
        sorts.append(f'<input class="sort" type="radio" name="sort" id="sort-{key}"{checked}>')
        sorts.append(f'<label for="sort-{key}">{label}</label>')
        if key != "graph":
            rules.append(f"#sort-{key}:checked~.layers .row.l{{order:var(--{key})}}")
    ranks = {key: _ranks([value(layer) for layer in layers]) for key, _, value in shown}
    most = {key: max([value(layer) or 0.0 for layer in layers]) for key, _, value in shown}
    rows = [_head(names)]
    for i, layer in enumerate(layers):
        order = ";".join(f"--{key}:{ranks[key][i]}" for key in names)
        rows.append(_row(layer, names, most, order))
    table = element("div", "".join(rows), class_="rows card layers", role="table", style=f"--bars:{bars}")
    return f"<style>{''.join(rules)}</style>{''.join(sorts)}{table}"


def _head(names: Sequence[str]) -> str:
    words = {"time": "time", "output": "effect on the output", "error": "error of the layer", "size": "size"}
    cells = [_cell("layer", "layer", header=True), _cell("", "form", header=True)]
    cells += [_cell("right" if key == "size" else "bar", words[key], header=True) for key in names]
    return element("div", "".join(cells), class_="row head", role="row")


def _cell(kind: str, content: str, header: bool = False) -> str:
    return element("div", content, class_=kind, role="columnheader" if header else "cell")


def _row(layer: Layer, names: Sequence[str], most: dict[str, float], order: str) -> str:
    name = element("span", breakable(layer.name), class_="mono")
    why = element("div", f"{text(layer.op)} \u00b7 {text(layer.why)}" if layer.why else text(layer.op), class_="why")
    cells = [_cell("layer", name + why), _cell("", form_badge(layer.form))]
    for key in names:
        if key == "time":
            cells.append(_cell("bar", _time(layer, most["time"])))
        elif key == "size":
            held = "\u2013" if layer.bytes is None else size(layer.bytes)
            cells.append(_cell("right", f'<span class="what">size </span>{held}'))
        else:
            value = layer.divergence if key == "output" else layer.error
            label = "output" if key == "output" else "error"
            cells.append(_cell("bar", _loss(value, most[key], label)))
    if len(layer.candidates) > 1:
        cells.append(_candidates(layer))
    return element("div", "".join(cells), class_="row l", role="row", style=order)


def form_badge(form: str) -> str:
    """A form as a coloured word."""
    kind = {"fp32": "form fp32", "int8": "form int"}.get(form, "form")
    return element("span", text(form), class_=kind)


def _time(layer: Layer, most: float) -> str:
    if layer.us is None:
        return '<span class="soft">\u2013</span>'
    note, mark = "", ""
    longest = max(most, layer.us, 1e-9)
    if layer.us_int8 is not None:
        note = f' <span class="soft whole">int8 {duration(layer.us_int8)}</span>'
        if layer.us_int8 <= longest:
            mark = f'<b style="left:calc({100 * layer.us_int8 / longest:.2f}% - 1px)" title="int8"></b>'
    kind = "track" if layer.family == "lookup" else f"track {layer.family}"
    bar = element("div", f'<i style="width:{100 * layer.us / longest:.2f}%"></i>{mark}', class_=kind)
    return f'<span class="what">time </span>{duration(layer.us)}{note}{bar}'


def _loss(value: float | None, most: float, label: str) -> str:
    if value is None:
        return f'<span class="what">{label} </span><span class="soft">not measured</span>'
    width = 100 * max(value, 0.0) / most if most > 0 else 0.0
    bar = element("div", f'<i style="width:{width:.2f}%"></i>' if width else "", class_="track loss")
    return f'<span class="what">{label} </span>{number(value)}{bar}'


def _candidates(layer: Layer) -> str:
    """Every form that was weighed, fastest first."""
    fields: list[tuple[str, Callable[[Candidate], float | None], Callable[[float], str]]] = [
        ("time", lambda c: c.us, duration),
        ("size", lambda c: c.bytes, size),
        ("error", lambda c: c.error, number),
        ("effect on the output", lambda c: c.divergence, number),
    ]
    fields = [field for field in fields if any(field[1](c) is not None for c in layer.candidates)]
    head = "".join(element("th", name, scope="col") for name in ("form", *(name for name, _, _ in fields)))
    rows = [element("tr", head)]
    for c in sorted(layer.candidates, key=lambda c: (c.us is None, c.us or 0.0, c.form)):
        values = [get(c) for _, get, _ in fields]
        shown = ["\u2013" if v is None else f[2](v) for v, f in zip(values, fields, strict=True)]
        cells = "".join(element("td", cell) for cell in (text(c.form), *shown))
        rows.append(element("tr", cells, class_="chosen" if c.form == layer.form else ""))
    summary = element("summary", f"{len(layer.candidates)} forms weighed")
    return element("details", summary + element("div", element("table", "".join(rows)), class_="scroll"))


def _ranks(values: Sequence[float | None]) -> list[int]:
    """Position of each value by falling size; missing ones last."""
    order = sorted(range(len(values)), key=lambda i: (values[i] is None, -(values[i] or 0.0), i))
    ranks = [0] * len(values)
    for rank, i in enumerate(order):
        ranks[i] = rank
    return ranks
