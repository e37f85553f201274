"""Running a compressed model fast, before there is an artifact: dense parts in ONNX Runtime, lookups in numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from lutc.fit.convolve import Convolution
from lutc.fit.encode import lookup_linear
from lutc.fit.executor import CutModel, Tensors
from lutc.fit.parallel import use_threads
from lutc.fit.projection import apply_projection
from lutc.ir.expand import with_tables
from lutc.ir.lookup import DOMAIN
from lutc.ir.parameters import INPUTS, ConvParameters, LookupParameters, ProjectParameters

LOOKUP_OPS = ("LutLinear", "LutConv", "Project")


class LookupSession:
    """ONNX Runtime's `run`, `get_inputs` and `get_outputs` for a model with `ai.lutc` lookups.

    The same integers as the operators' function bodies, many times faster: the quickest judge of a fit.

    Args:
        model: With LutLinear, LutConv and Project nodes.
        threads: CPU threads.
    """

    def __init__(self, model: ir.Model | onnx.ModelProto, threads: int = 1) -> None:
        proto = ir.to_proto(with_tables(model if isinstance(model, ir.Model) else ir.from_proto(model)))
        nodes = [node for node in proto.graph.node if node.domain == DOMAIN and node.op_type in LOOKUP_OPS]
        self._cut = CutModel(proto, [node.output[0] for node in nodes], threads)
        self._layers = [_layer(self._cut, node, threads) for node in self._cut.sites]
        self._threads = threads
        constants = {tensor.name for tensor in proto.graph.initializer}
        self._inputs = [value for value in proto.graph.input if value.name not in constants]
        self._outputs = list(proto.graph.output)

    def get_inputs(self) -> Sequence[Any]:
        """The model's inputs, each with a `name`."""
        return self._inputs

    def get_outputs(self) -> Sequence[Any]:
        """The model's outputs, likewise."""
        return self._outputs

    def run(self, output_names: Sequence[str] | None, feeds: Mapping[str, npt.NDArray]) -> list[npt.NDArray]:
        """The named outputs (None: all) for the given inputs."""
        tensors: Tensors = {name: np.ascontiguousarray(value) for name, value in feeds.items()}
        with use_threads(self._threads):
            for index in range(len(self._cut)):
                self._cut.run_clean(index, tensors)
                if index < len(self._layers):
                    site = self._cut.sites[index]
                    tensors[site.output[0]] = self._layers[index](tensors[site.input[0]])
        return [tensors[name] for name in output_names or self._cut.outputs]


def _layer(cut: CutModel, node: onnx.NodeProto, threads: int) -> Any:
    values = [cut.constant(name) for name in node.input[1:]]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Project":
        projection = ProjectParameters(values[0], values[1], values[2], values[3])
        return lambda x: apply_projection(x, projection)
    constants: dict[str, Any] = dict(zip(INPUTS, values, strict=True))
    if node.op_type == "LutConv":
        return Convolution(ConvParameters(**constants, **attributes), threads)
    parameters = LookupParameters(**constants, **attributes)
    return lambda x: lookup_linear(x, parameters)
