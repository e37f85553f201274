"""Node by node: an onnx-ir graph becomes steps, one for each node save constants and lookup layers.

Lookup layers become an encode step and a lookup step; `rewrites/` then shares encodes and folds projections into them.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lutc.errors import UnsupportedModelError
from lutc.fuse.attributes import plan_attributes
from lutc.fuse.dtypes import output_dtype, plan_dtype
from lutc.fuse.quad16 import quad16
from lutc.ir.graph import LUTC_DOMAIN
from lutc.ir.opset import LUTC_STEPS, ONNX_STEPS
from lutc.plan import OMITTED, Attribute, Dim, Plan, Port, Step

PROJECT_STEP = "project"  # only between lowering and the rewrite that folds it into lut_encode


def lower(model: ir.Model) -> Plan:
    """Lowers every node of a model; see `lutc.fuse.fuse` for what may be raised."""
    return _Lowering(model).run()


class _Lowering:
    """State of one lowering: the plan so far, where each onnx-ir value went, and what could not be lowered."""

    def __init__(self, model: ir.Model) -> None:
        self.graph = model.graph
        self.opset = model.opset_imports.get("", 0)
        self.plan = Plan()
        self.index: dict[ir.Value, int] = {}
        self.problems: list[str] = []

    def run(self) -> Plan:
        self._inputs()
        for node in self.graph:
            try:
                self._node(node)
            except ValueError as error:
                self._problem(node, str(error))
                for output in node.outputs:
                    self.index.setdefault(output, self.plan.add_value("f32"))
        if self.problems:
            raise UnsupportedModelError(
                f"{len(self.problems)} node(s) cannot be compiled:\n  " + "\n  ".join(self.problems)
            )
        self._outputs()
        return self.plan

    def _inputs(self) -> None:
        for value in self.graph.inputs:
            if value.name in self.graph.initializers:
                continue  # an input with a default is a constant here
            try:
                dtype = plan_dtype(value.dtype or ir.DataType.FLOAT, f"input '{value.name}'")
            except ValueError as error:
                self.problems.append(str(error))
                dtype = "f32"
            shape = _dims(value)
            index = self.plan.add_value(dtype, shape)
            self.index[value] = index
            names = [f"{value.name}.{axis}" if dim is None else dim for axis, dim in enumerate(shape or ())]
            self.plan.inputs.append(Port(value.name or "", index, dtype, tuple(names)))

    def _outputs(self) -> None:
        produced = {value for step in self.plan.steps for value in step.outputs}
        for value in self.graph.outputs:
            index = self._value(value)
            if index not in produced:  # an input or a constant that leaves the model as it came
                copy = self.plan.add_value(self.plan.values[index].dtype, self.plan.values[index].shape)
                self.plan.steps.append(Step("identity", f"output/{value.name}", [index], [copy]))
                index = copy
            shape = _dims(value) or ()
            names = [f"{value.name}.{axis}" if dim is None else dim for axis, dim in enumerate(shape)]
            self.plan.outputs.append(Port(value.name or "", index, self.plan.values[index].dtype, tuple(names)))

    def _value(self, value: ir.Value | None) -> int:
        """The plan's index of an onnx-ir value; constants enter the plan at their first use."""
        if value is None:
            return OMITTED
        if value not in self.index:
            if value.const_value is None:
                raise ValueError(f"input '{value.name}' has no producer")
            plan_dtype(value.const_value.dtype, f"constant '{value.name}'")
            self.index[value] = self.plan.add_constant(value.name or "constant", value.const_value.numpy())
        return self.index[value]

    def _node(self, node: ir.Node) -> None:
        if node.domain == LUTC_DOMAIN and node.op_type in _OWN:
            _OWN[node.op_type](self, node)
            return
        if node.domain == "" and node.op_type == "Constant":
            self._constant(node)
            return
        steps = {"": ONNX_STEPS, LUTC_DOMAIN: LUTC_STEPS}.get(node.domain, {})
        op = steps.get(node.op_type)
        if op is None:
            raise ValueError("the runtime has no such operator")
        self.emit(op, node, plan_attributes(node))

    def emit(self, op: str, node: ir.Node, attrs: dict) -> Step:
        """Appends the step `op` with the node's own inputs and outputs."""
        inputs = [self._value(value) for value in node.inputs]
        while inputs and inputs[-1] == OMITTED:
            inputs.pop()
        outputs = list(node.outputs)
        while len(outputs) > 1 and not outputs[-1].uses() and not outputs[-1].is_graph_output():
            outputs.pop()
        dtypes = [None if i == OMITTED else self.plan.values[i].dtype for i in inputs]
        step = Step(op, node.name or node.outputs[0].name or op, inputs, [], attrs)
        for position, value in enumerate(outputs):
            self.index[value] = self.plan.add_value(output_dtype(node, position, dtypes), _dims(value))
            step.outputs.append(self.index[value])
        self.plan.steps.append(step)
        return step

    def _constant(self, node: ir.Node) -> None:
        output = node.outputs[0]
        (attr,) = node.attributes.values()
        if attr.name == "value":
            array = attr.as_tensor().numpy()
        elif attr.name in ("value_float", "value_floats"):
            array = np.asarray(attr.value, dtype=np.float32)
        elif attr.name in ("value_int", "value_ints"):
            array = np.asarray(attr.value, dtype=np.int64)
        else:
            raise ValueError(f"constants of kind '{attr.name}' are not supported")
        self.index[output] = self.plan.add_constant(output.name or "constant", array)

    def lookup(self, node: ir.Node, op: str, axis: int) -> None:
        """LutLinear or LutConv: an encode step and a lookup step."""
        x, offset, inv_scale, groups, directions, code_bias, gain_mul, table, scale, bias = map(
            self._value, node.inputs
        )
        entries = self.plan.constant(directions)
        columns = self.plan.constant(scale)
        made = any(table in step.outputs for step in self.plan.init)
        if entries is None or columns is None or (self.plan.constant(table) is None and not made):
            raise ValueError("its directions, scale and table must be constants; an ExpandTable may make the table")
        attrs = plan_attributes(node)
        gain_limit = attrs["gain_limit"]
        codes = self.plan.add_value("u8")
        name = node.name or node.outputs[0].name or op
        self.plan.steps.append(
            Step(
                "lut_encode",
                f"{name}/encode",
                [x, offset, inv_scale, groups, directions, code_bias, gain_mul],
                [codes],
                {"gain_limit": gain_limit, "axis": axis},
            )
        )
        attrs.update(
            codebooks=entries.shape[0],
            entries=entries.shape[1],
            outputs=columns.shape[0],
            layout="ckn",
            activation="none",
        )
        result = self.plan.add_value("f32", _dims(node.outputs[0]))
        self.index[node.outputs[0]] = result
        self.plan.steps.append(Step(op, name, [codes, table, scale, bias], [result], attrs))

    def expand_table(self, node: ir.Node) -> None:
        """ExpandTable or ExpandConvTable: a step that runs when the plan is loaded."""
        inputs = [self._value(value) for value in node.inputs]
        if any(self.plan.constant(value) is None for value in inputs):
            raise ValueError("all its inputs must be constants")
        table = self.plan.add_value("i8", _dims(node.outputs[0]))
        self.index[node.outputs[0]] = table
        attrs: dict[str, Attribute] = {"layout": "ckn", **plan_attributes(node)}
        self.plan.init.append(Step("expand_table", node.name or node.outputs[0].name or "", inputs, [table], attrs))

    def int8_linear(self, node: ir.Node) -> None:
        """Int8Linear: its weight in the layout that every ISA reads."""
        weight = self.plan.constant(self._value(node.inputs[1]))
        if weight is None or weight.ndim != 2 or weight.dtype != np.int8:
            raise ValueError("its weight must be a constant int8 matrix")
        features, outputs = weight.shape
        attrs = {"features": features, "outputs": outputs, "activation": "none"}
        step = self.emit("int8_linear", node, attrs)
        source = self.plan.values[step.inputs[1]].tensor
        step.inputs[1] = self.plan.add_constant(f"{source}.quad16", quad16(weight))

    def _problem(self, node: ir.Node, why: str) -> None:
        operator = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        shapes = ", ".join(f"{v.name}: {v.shape if v.shape is not None else '?'}" for v in node.outputs)
        self.problems.append(f"node '{node.name}' ({operator}, opset {self.opset}; output {shapes}): {why}")


def _dims(value: ir.Value) -> tuple[Dim | None, ...] | None:
    """Shape of an onnx-ir value: ints and names, None for a dim that has neither; None if the rank is unknown."""
    if value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)


# Operators of `ai.lutc` that are more than their name in the table.
_OWN = {
    "LutLinear": lambda lowering, node: lowering.lookup(node, "lut_linear", -1),
    "LutConv": lambda lowering, node: lowering.lookup(node, "lut_conv", 1),
    "ExpandTable": lambda lowering, node: lowering.expand_table(node),
    "ExpandConvTable": lambda lowering, node: lowering.expand_table(node),
    "Project": lambda lowering, node: lowering.emit(PROJECT_STEP, node, plan_attributes(node)),
    "Linear": lambda lowering, node: lowering.emit("linear", node, {"activation": "none"}),
    "Int8Linear": lambda lowering, node: lowering.int8_linear(node),
    "Int8Conv": lambda lowering, node: lowering.emit(
        "int8_conv", node, {**plan_attributes(node), "activation": "none"}
    ),
}
