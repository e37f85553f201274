"""MatMul, MatMul + Add and Gemm with a constant weight become one Linear."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lutc.ir.graph import (
    LUTC_DOMAIN,
    add_constant,
    add_function_if_called,
    array,
    attribute,
    is_op,
    layer_name,
    new_node,
    only_reader,
    other_input,
    rank,
    replace,
)
from lutc.ir.linear import linear_function
from lutc.passes.base import NodePass


class FuseLinear(NodePass):
    """Needs: folded constants. Guarantees: every product with a constant float32 [D, N] weight is a Linear.

    Weight is stored [D, N] (transA/transB/alpha/beta of a Gemm are absorbed) and the bias is always there, zeros when
    the layer had none. A constant on the left of a MatMul, or one with batch dimensions, stays a MatMul. A Gemm
    whose operands are not constant becomes MatMul and Add.
    """

    def rewrite(self, model: ir.Model) -> bool:
        """Registers the function once a Linear exists."""
        modified = super().rewrite(model)
        add_function_if_called(model, linear_function())
        return modified

    def rewrite_node(self, graph: ir.Graph, node: ir.Node) -> bool:
        """Handles MatMul and Gemm."""
        if is_op(node, "MatMul"):
            return self._matmul(graph, node)
        return is_op(node, "Gemm") and self._gemm(graph, node)

    def _matmul(self, graph: ir.Graph, node: ir.Node) -> bool:
        x, w = node.inputs
        weight = array(w)
        if w is None or weight is None or weight.ndim != 2 or weight.dtype != np.float32 or not (rank(x) or 0) >= 2:
            return False
        outputs, bias, bias_name = weight.shape[1], None, None
        last, product = node, node.outputs[0]
        add = only_reader(product)
        if is_op(add, "Add"):
            other = other_input(add, product)
            data = array(other)
            if data is not None and data.size in (1, outputs) and _is_row(data.shape, outputs, rank(x) or 0):
                bias = np.broadcast_to(data.reshape(-1), (outputs,))
                bias_name, last = other.name if other is not None else None, add
        name = layer_name(node)
        if bias is None:
            bias, bias_name = np.zeros(outputs, np.float32), f"{name}.bias"
        _emit(graph, last, node, x, w, bias, bias_name)
        return True

    def _gemm(self, graph: ir.Graph, node: ir.Node) -> bool:
        a, b = node.inputs[0], node.inputs[1]
        c = node.inputs[2] if len(node.inputs) > 2 else None
        alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
        weight, bias = array(b), array(c)
        new: list[ir.Node] = []
        if attribute(node, "transA", 0):
            flip = new_node("Transpose", [a], node, attributes={"perm": [1, 0]}, name=f"{node.name}/transpose")
            flip.outputs[0].type = a.type if a is not None else None
            new.append(flip)
            a = flip.outputs[0]
        constant_bias = c is None or (bias is not None and _is_row(bias.shape, bias.size, 2))
        if weight is not None and weight.dtype == np.float32 and constant_bias:
            transposed = attribute(node, "transB", 0)
            data = weight.T if transposed else weight
            if transposed or alpha != 1.0:
                b = add_constant(graph, f"{b.name}_transposed" if b is not None else "weight", data * np.float32(alpha))
            outputs = data.shape[1]
            row = np.zeros(outputs, np.float32) if bias is None else bias.reshape(-1) * np.float32(beta)
            row = np.broadcast_to(row, (outputs,)).astype(np.float32)
            name = c.name if c is not None else f"{layer_name(node)}.bias"
            for extra in new:
                graph.insert_before(node, extra)
            _emit(graph, node, node, a, b, row, name)
            return True
        return self._generic_gemm(graph, node, new, a, b, c, alpha, beta)

    @staticmethod
    def _generic_gemm(
        graph: ir.Graph, node: ir.Node, new: list[ir.Node], a: ir.Value | None, b: ir.Value | None,
        c: ir.Value | None, alpha: float, beta: float,
    ) -> bool:  # fmt: skip
        def emit(op: str, inputs: list[ir.Value | None], suffix: str, **attributes: object) -> ir.Value:
            made = new_node(op, inputs, node, attributes=attributes, name=f"{node.name}/{suffix}" if suffix else None)
            made.outputs[0].type = node.outputs[0].type
            new.append(made)
            return made.outputs[0]

        if attribute(node, "transB", 0):
            b = emit("Transpose", [b], "transpose_b", perm=[1, 0])
        y = emit("MatMul", [a, b], "")
        if alpha != 1.0:
            y = emit("Mul", [y, add_constant(graph, f"{node.name}.alpha", np.float32(alpha))], "alpha")
        if c is not None:
            if beta != 1.0:
                c = emit("Mul", [c, add_constant(graph, f"{node.name}.beta", np.float32(beta))], "beta")
            y = emit("Add", [y, c], "add")
        replace(graph, node, new, [y])
        return True


def _is_row(shape: tuple[int, ...], size: int, max_rank: int) -> bool:
    """Whether a constant of this shape adds one number per output column and no new dimensions."""
    return len(shape) <= max_rank and all(d == 1 for d in shape[:-1]) and (not shape or shape[-1] in (1, size))


def _emit(
    graph: ir.Graph, last: ir.Node, source: ir.Node, x: ir.Value | None, weight: ir.Value | None,
    bias: np.ndarray, bias_name: str | None,
) -> None:  # fmt: skip
    existing = graph.initializers.get(bias_name or "")
    if existing is not None and existing.const_value is not None and existing.const_value.shape == bias.shape:
        data = existing.const_value.numpy()
        row = existing if data.dtype == bias.dtype and np.array_equal(data, bias) else None
    else:
        row = None
    if row is None:
        row = add_constant(graph, bias_name or "bias", bias)
    linear = new_node("Linear", [x, weight, row], source, domain=LUTC_DOMAIN, name=layer_name(source))
    replace(graph, last, [linear])
