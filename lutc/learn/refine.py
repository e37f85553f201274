"""Learning as a step of the compiler: between a fit and the quantisation of its dense layers."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from lutc.build import Builder
from lutc.fit import FitResult
from lutc.forms import INT8, LayerChoice
from lutc.learn import learn_model
from lutc.observe import CalibrationSource


def _simulated(choice: LayerChoice) -> bool:
    """Whether learning rounds as the layer will; attention stays in float."""
    return choice.form == INT8 and choice.kind != "attention"


@dataclasses.dataclass
class Refiner:
    """Learns what `Builder.fit` made, before `Builder.finish`.

    Attributes:
        builder: Of the model's artifacts: says which model, method, tables, seed, threads and checkpoints.
        choices: What its layers became: int8 ones are simulated.
        source: Unlabelled samples.
        minutes: To spend.
        report: What the last call did, JSON-serialisable.
    """

    builder: Builder
    choices: Sequence[LayerChoice]
    source: CalibrationSource
    minutes: float
    report: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __call__(self, fitted: FitResult) -> FitResult:
        """The fit with what was learned, or unchanged where that is no better on held-out samples.

        Raises:
            SystemExit: In all processes of torchrun but the first, which alone goes on to write the artifact.
        """
        result = learn_model(
            self.builder.graph,
            fitted,
            self.source,
            minutes=self.minutes,
            method=self.builder.method,
            size=self.builder.size,
            integer=[str(choice.node.outputs[0].name) for choice in self.choices if _simulated(choice)],
            seed=self.builder.seed,
            threads=self.builder.threads,
            progress=self.builder.progress,
            checkpoint_dir=self.builder.checkpoints,
        )
        if int(os.environ.get("RANK", "0")) > 0:
            raise SystemExit(0)
        self.report = {
            "minutes": self.minutes,
            "steps": result.steps,
            "samples": result.samples,
            "held_out": result.held_out,
            "before": result.before,
            "after": result.after,
            "classes": list(result.classes),
            "kept": result.kept,
            "curve": [[round(p.minutes, 3), p.step, p.divergence] for p in result.curve],
        }
        outputs = {choice.name: str(choice.node.outputs[0].name) for choice in self.choices}
        layers = []
        for layer in fitted.layers:
            stored, whole = result.nbytes.get(outputs[layer.name], (layer.bytes, layer.bytes_expanded))
            projected = layer.rank and outputs[layer.name] in result.nbytes
            layers.append(layer if projected else dataclasses.replace(layer, bytes=stored, bytes_expanded=whole))
        return dataclasses.replace(fitted, model=result.model, factors=result.factors, layers=layers)
