"""Predicted against measured time of layers inside whole models: `python -m benchmarks.cost`.

    python -m benchmarks.cost [--isa native,avx2] [--measure] [--only REGEX] [--forms ...] [--every-model] [--json]

Every model is compiled with all layers in one form (random tables), run with profiling, and each layer's least time is
held against the cost model's prediction. None of these layers is among those that the cost model was fitted to. Takes
the cost model in force, or with --measure one of this moment, which becomes the one that lutc is shipped with. Rows,
one a model, form and ISA, go to benchmarks/results/cost.json.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import command, variants
from benchmarks.artifacts import Artifacts, bound_call, open_artifact
from benchmarks.networks import Network, minilm, resnet20, ultraface
from benchmarks.onnx_pack import every_model
from benchmarks.random_layers import choose
from lutc import cost
from lutc.canonicalise import canonicalise
from lutc.cost import CostModel, LayerShape, layer_shapes
from lutc.cost.measure import measure as measure_prices
from lutc.cost.store import shipped_target
from lutc.errors import LutcError
from lutc.forms import LayerChoice, choose_layers
from lutc.inputs import requested_shapes
from lutc.load import load_model
from lutc.progress import default_progress
from lutc.roofline import constant_bytes

FORMS = ("fp32", "int8", "gain-v3", "gain-v4", "gain-v6", "plain-v8", "plain-v16", "gain-v4-proj")
_NOTE = "least wall time of each step over profiled runs; errors are of layers, encode and projection included"


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer as predicted and as measured, seconds."""

    name: str
    form: str
    shape: LayerShape
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """Of the prediction, relative."""
        return self.predicted / self.measured - 1


def least_times(session: Any, feed: dict[str, np.ndarray], seconds: float) -> tuple[dict[str, float], float]:
    """Least seconds by step name over runs of about so many seconds in all, and the bytes of all constants."""
    call = bound_call(session, feed)
    call()
    least: dict[str, float] = {}
    stop, runs = time.perf_counter() + seconds, 0
    while runs < 10 or (runs < 2000 and time.perf_counter() < stop):
        with session.profiling():
            call()
        steps = session.profile()
        for step in steps:
            least[step["name"]] = min(least.get(step["name"], np.inf), step["microseconds"] * 1e-6)
        runs += 1
    return least, constant_bytes(steps)


def compare(
    choices: Sequence[LayerChoice],
    shapes: dict[str, LayerShape],
    least: dict[str, float],
    constants: float,
    model: CostModel,
) -> Iterator[Layer]:
    """The layers of a session whose steps can be told apart by name."""
    for choice in choices:
        if choice.name not in shapes or choice.name not in least:
            continue
        measured = least[choice.name] + least.get(f"{choice.name}/encode", 0.0)
        predicted = model.seconds(shapes[choice.name], choice.form, constant_bytes=constants)
        if measured > 0:
            yield Layer(choice.name, str(choice.form), shapes[choice.name], predicted, measured)


def measure(
    network: Network, forms: Sequence[str], model: CostModel, seconds: float
) -> Iterator[tuple[str, list[Layer]]]:
    """The layers of one network by form."""
    path, isa = network.find(), model.isa
    shapes = {name: list(array.shape) for name, array in network.feed.items()}
    loaded = load_model(path)
    canonical = canonicalise(loaded, shapes=requested_shapes(loaded, shapes))
    found = layer_shapes(canonical, choose_layers(canonical), feeds=network.feed, isa=isa)
    artifacts = Artifacts(path, f"{network.name}-{network.shape}", isa, shapes)
    for form in forms:
        choices = choose(canonical, form) if form != "fp32" else choose_layers(canonical, keep=[(".*", "fp32")])
        if form not in ("fp32", "int8") and all(choice.form.dense for choice in choices):
            continue
        session = open_artifact(artifacts.build(form), 1, isa)
        least, constants = least_times(session, network.feed, seconds)
        layers = list(compare(choices, dict(found.layers), least, constants, model))
        if layers:
            yield form, layers


def row(network: Network, form: str, isa: str, layers: Sequence[Layer], source: str) -> dict[str, Any]:
    """One row of the result file."""
    errors = np.abs([layer.error for layer in layers])
    worst = sorted(layers, key=lambda layer: -abs(layer.error))[:3]
    return {
        "bench": "cost", "model": network.name, "shape": network.shape, "form": form, "isa": isa, "threads": 1,
        "cost_model": source, "layers": len(layers), "median_error": round(float(np.median(errors)), 4),
        "p90_error": round(float(np.quantile(errors, 0.9)), 4),
        "predicted_us": round(sum(layer.predicted for layer in layers) * 1e6, 1),
        "measured_us": round(sum(layer.measured for layer in layers) * 1e6, 1),
        "worst": [{"layer": x.name, "error": round(x.error, 3), "us": round(x.measured * 1e6, 1)} for x in worst],
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = command.parser("cost", __doc__, only="the models' names")
    parser.add_argument("--measure", action="store_true", help="measure the model first and ship it")
    parser.add_argument("--forms", default=",".join(FORMS), help="separated by commas")
    parser.add_argument("--every-model", action="store_true", help="those of the data folder that compile, too")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each model and form")
    parser.add_argument("--worst", type=int, default=0, help="print so many of the worst predictions of all")
    options = parser.parse_args(arguments)
    variant = variants.child()
    if variant is None:
        return variants.run_children("benchmarks.cost", options.isa, options.threads, arguments)
    isa, _ = variant
    networks = [minilm(128), minilm(16), resnet20(), ultraface()]
    if options.every_model:
        networks += list(every_model(options.only))
    model = cost.load(isa, functools.partial(print, file=sys.stderr))
    if options.measure:
        model = measure_prices(isa, default_progress())
        path = Path(cost.__file__).with_name("defaults") / f"{shipped_target(isa)}.json"
        path.write_text(model.to_json(), encoding="utf-8")
    everything: list[tuple[Network, Layer]] = []
    for network in networks:
        if not re.search(options.only, network.name):
            continue
        rows = []
        try:
            for form, layers in measure(network, options.forms.split(","), model, options.seconds):
                rows.append(row(network, form, isa, layers, model.source))
                everything += [(network, layer) for layer in layers]
                command.say(options, _line(rows[-1]))
        except (LutcError, FileNotFoundError) as error:
            print(f"{network.name}: skipped, {str(error)[:200]}", file=sys.stderr)
        command.store(options, rows, notes={"cost": _NOTE})
    if not everything:
        return 1
    errors = np.abs([layer.error for _, layer in everything])
    middle, p90 = float(np.median(errors)), float(np.quantile(errors, 0.9))
    command.say(options, f"{isa}: {len(errors)} layers, median error {middle:.1%}, p90 {p90:.1%}")
    for network, layer in sorted(everything, key=lambda pair: -abs(pair[1].error))[: options.worst]:
        found = f"{network.name} {layer.form} {layer.measured * 1e6:.1f} us {layer.shape}"
        command.say(options, f"{layer.error:+.2f} {found}")
    summary = {
        "bench": "cost", "model": "all", "shape": "", "form": "all", "isa": isa, "threads": 1,
        "cost_model": model.source, "layers": len(errors), "median_error": round(middle, 4), "p90_error": round(p90, 4),
    }  # fmt: skip
    if not options.only:
        command.store(options, [summary])
    return 0


def _line(found: dict[str, Any]) -> str:
    return (
        f"{found['model']:24} {found['shape']:12} {found['form']:13} {found['isa']:7} {found['layers']:3} layers  "
        f"median {found['median_error']:6.1%}  p90 {found['p90_error']:6.1%}  "
        f"predicted {found['predicted_us']:10.1f} us  measured {found['measured_us']:10.1f} us"
    )


if __name__ == "__main__":
    sys.exit(main())
