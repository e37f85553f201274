"""Learning as a step of the compiler: between a fit and the quantisation of its dense layers."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir

from lutc.fit import FitResult
from lutc.forms import INT8, LayerChoice
from lutc.learn import learn_model
from lutc.observe import CalibrationSource


@dataclasses.dataclass
class Refiner:
    """Learns what a fit made; calling it is a step of `lutc.build.Builder`.

    Attributes:
        original: The canonical model.
        choices: What its layers became: int8 ones are simulated.
        source: Unlabelled samples.
        minutes: To spend.
        method: "lutc" or "lutnn".
        size: How tables are stored, see `lutc.fit.factored`.
        seed: Of the minibatches.
        threads: CPU threads; None: PyTorch's choice.
        progress: Receives progress.
        checkpoint_dir: Folder of checkpoints, if any.
        report: What the last call did, JSON-serialisable.
    """

    original: ir.Model
    choices: Sequence[LayerChoice]
    source: CalibrationSource
    minutes: float
    method: str = "lutc"
    size: str = "fast"
    seed: int = 0
    threads: int | None = None
    progress: Callable[[str, int, int, str], Any] | None = None
    checkpoint_dir: str | os.PathLike[str] | None = None
    report: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __call__(self, fitted: FitResult) -> FitResult:
        """The fit with what was learned, or unchanged where that is no better on held-out samples.

        Raises:
            SystemExit: In all processes of torchrun but the first, which alone goes on to write the artifact.
        """
        result = learn_model(
            self.original,
            fitted,
            self.source,
            minutes=self.minutes,
            method=self.method,
            size=self.size,
            integer=[str(choice.node.outputs[0].name) for choice in self.choices if choice.form == INT8],
            seed=self.seed,
            threads=self.threads,
            progress=self.progress,
            checkpoint_dir=self.checkpoint_dir,
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
