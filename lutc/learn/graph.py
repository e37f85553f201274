"""The compressed graph itself as a PyTorch module: nodes in order, lookups and integer layers as modules."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from lutc.errors import UnsupportedModelError
from lutc.fit.linear import Factors
from lutc.ir.expand import EXPAND_OPS
from lutc.ir.graph import LUTC_DOMAIN, array, is_op
from lutc.ir.int8 import quantise_weight
from lutc.ir.lookup import lookup_parameters, project_parameters
from lutc.ir.parameters import LookupParameters
from lutc.learn.layers import LookupLayer, ProjectLayer, fake_quantise, fast_products
from lutc.learn.lutnn import LutnnLayer
from lutc.learn.ops import OPS, Op, refusal

_NORMALISATIONS = ("LayerNormalization", "RMSNormalization", "BatchNormalization")


LayerMaker = Callable[[LookupParameters, Factors], LookupLayer | LutnnLayer]


def _key(node: ir.Node) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type


def _attributes(node: ir.Node) -> dict[str, Any]:
    return {name: attribute.value for name, attribute in node.attributes.items()}


def check_learnable(model: ir.Model) -> None:
    """Raise UnsupportedModelError naming every node that the interpreter does not know, and which attribute of it."""
    known = {*OPS, *(f"{LUTC_DOMAIN}::{name}" for name in ("LutLinear", "LutConv", "Project", *EXPAND_OPS))}
    lines = []
    for node in model.graph:
        reason = refusal(node.op_type, _attributes(node)) if _key(node) in known else ""
        if _key(node) not in known or reason:
            lines.append(f"  {node.name or node.outputs[0].name}: {_key(node)}" + (f" with {reason}" if reason else ""))
    if lines:
        raise UnsupportedModelError(
            f"--learn cannot follow {len(lines)} nodes of this model (compile it without --learn):\n" + "\n".join(lines)
        )


class GraphModule(nn.Module):
    """A canonical graph, lookups included, as a function of its inputs.

    Args:
        model: The graph; kept, not changed.
        factors: Of every LutLinear and LutConv, by the name of its output.
        layer: Makes the module of a lookup layer.
        integer: Outputs of dense Linear and Conv nodes that are computed in int8: simulated, fixed.

    Attributes:
        lookups: Lookup layers by output name.
        normalisations: Trainable initialisers (scale and bias of normalisations) by name.
        factors: As given.
        outputs: Names of the graph's outputs.
        products: Element type of products with weights.
    """

    def __init__(
        self,
        model: ir.Model,
        factors: Mapping[str, Factors] | None = None,
        integer: Collection[str] = (),
        layer: LayerMaker = LookupLayer,
    ) -> None:
        super().__init__()
        check_learnable(model)
        self.model, self.factors, self._maker = model, dict(factors or {}), layer
        self.products = torch.float32
        self.outputs = [str(value.name) for value in model.graph.outputs]
        self.lookups: dict[str, LookupLayer | LutnnLayer] = {}
        self.normalisations: dict[str, nn.Parameter] = {}
        self._layers = nn.ModuleList()
        self._constants: dict[str, str] = {}
        self._known: dict[str, nn.Parameter] = {}
        self._steps: list[tuple[Callable[..., Any], list[str], list[str], str]] = []
        for node in model.graph:
            self._add(node, set(integer))
        last: dict[str, int] = {}
        for position, (_, inputs, _, _) in enumerate(self._steps):
            last.update(dict.fromkeys(inputs, position))
        self._dead = [[n for n in set(i) if last[n] == p] for p, (_, i, _, _) in enumerate(self._steps)]

    def _constant(self, value: ir.Value, *, trainable: bool = False) -> str:
        name = str(value.name)
        if name in self._constants or name in self._known:
            return name
        data = array(value)
        assert data is not None
        tensor = torch.from_numpy(np.array(data))
        if trainable:
            parameter = nn.Parameter(tensor)
            self.register_parameter(f"norm{len(self._known)}", parameter)
            self.normalisations[name] = self._known[name] = parameter
            return name
        buffer = f"constant{len(self._constants)}"
        self._constants[name] = buffer
        if tensor.is_floating_point():
            self.register_buffer(buffer, tensor, persistent=False)
        else:
            setattr(self, buffer, tensor)  # integers steer shapes: they stay on the CPU
        return name

    def _add(self, node: ir.Node, integer: set[str]) -> None:
        output = str(node.outputs[0].name)
        x = str(node.inputs[0].name) if node.inputs and node.inputs[0] is not None else ""
        label = f"{_key(node)} '{node.name or output}'"
        if is_op(node, *EXPAND_OPS, domain=LUTC_DOMAIN):
            return
        if is_op(node, "LutLinear", "LutConv", domain=LUTC_DOMAIN):
            layer = self._maker(lookup_parameters(node), self.factors[output])
            self.lookups[output] = layer
            self._layers.append(layer)
            self._steps.append((layer, [x], [output], label))
            return
        if is_op(node, "Project", domain=LUTC_DOMAIN):
            projection = ProjectLayer(project_parameters(node))
            self._layers.append(projection)
            self._steps.append((projection, [x], [output], label))
            return
        names = []
        for position, value in enumerate(node.inputs):
            if value is None:
                names.append("")
            elif array(value) is not None:
                names.append(self._constant(value, trainable=node.op_type in _NORMALISATIONS and position in (1, 2)))
            else:
                names.append(str(value.name))
        attributes = _attributes(node)
        if node.op_type == "Split":
            attributes["num_outputs"] = len(node.outputs)
        if output in integer and node.op_type in ("Linear", "Conv"):
            names[1] = self._quantised(names[1], node.op_type)
        function = OPS[_key(node)]
        if node.op_type in ("Linear", "Conv"):
            function = self._product(function, output in integer)
        function = partial(function, attributes)
        self._steps.append((function, names, [str(value.name) for value in node.outputs], label))

    def _quantised(self, name: str, op: str) -> str:
        """A dense weight rounded to int8, as another constant."""
        weight = getattr(self, self._constants[name]).numpy()
        axis = 1 if op == "Linear" else 0
        integers, scale = quantise_weight(weight, axis)
        shape = [1] * weight.ndim
        shape[axis] = -1
        rounded = f"{name}.int8"
        self._constants[rounded] = f"constant{len(self._constants)}"
        data = torch.from_numpy(integers.astype(np.float32) * scale.reshape(shape))
        self.register_buffer(self._constants[rounded], data, persistent=False)
        return rounded

    def _product(self, op: Op, integer: bool) -> Op:
        """A dense layer in the element type of products, its input rounded to int8 where that is simulated."""

        def run(attributes: Mapping[str, Any], x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
            if integer:
                x = fake_quantise(x, (-1,) if weight.dim() == 2 else (1, 2, 3))
            if self.products == torch.float32:
                return op(attributes, x, weight, bias)
            y = op(attributes, x.to(self.products), weight.to(self.products), None).float()
            if bias is None:
                return y
            return y + (bias if weight.dim() == 2 else bias.reshape(-1, *[1] * (weight.dim() - 2)))

        return run

    def fast(self, device: torch.device) -> GraphModule:
        """Move to a device and multiply in its fastest element type."""
        self.products = fast_products(device)
        for layer in self.lookups.values():
            layer.products = self.products
        return self.to(device)

    def forward(self, feeds: Mapping[str, Tensor], taps: Collection[str] = ()) -> dict[str, Tensor]:
        """The graph's outputs and the tapped values, by name.

        Args:
            feeds: Inputs by name.
            taps: Names of further values to return.
        """
        wanted = {*taps, *self.outputs}
        values: dict[str, Tensor] = dict(feeds)
        for position, (function, inputs, outputs, label) in enumerate(self._steps):
            arguments = [self._value(name, values) for name in inputs]
            try:
                result = function(*arguments)
            except (RuntimeError, ValueError, IndexError, TypeError) as error:
                raise UnsupportedModelError(f"--learn cannot follow node {label}: {error}") from error
            values.update(zip(outputs, result if isinstance(result, tuple | list) else (result,), strict=False))
            for name in self._dead[position]:
                if name not in wanted:
                    values.pop(name, None)
        return {name: self._value(name, values) for name in wanted if name in values or name in self._constants}  # type: ignore[misc]

    def _value(self, name: str, values: Mapping[str, Tensor]) -> Tensor | None:
        if not name:
            return None
        if name in values:
            return values[name]
        if name in self._constants:
            return getattr(self, self._constants[name])
        return self._known[name]
