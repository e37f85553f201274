"""A float16 or bfloat16 model becomes float32."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lutc.passes.base import GraphPass

_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


class ToFloat32(GraphPass):
    """Needs: nothing. Guarantees: no float16 or bfloat16 tensor, value, Cast or attribute anywhere.

    Model inputs and outputs change their type as well: feed float32.
    """

    def rewrite(self, model: ir.Model) -> bool:
        """Converts the main graph, its subgraphs and the model's functions."""
        graphs = [model.graph, *model.graph.subgraphs()]
        for function in model.functions.values():
            graphs += [function.graph, *function.graph.subgraphs()]
        return any([_convert(graph) for graph in graphs])


def _convert(graph: ir.Graph) -> bool:
    modified = False
    for value in (*graph.inputs, *graph.initializers.values()):
        modified |= _retype(value)
    for node in graph:
        for value in node.outputs:
            modified |= _retype(value)
        for name, attribute in list(node.attributes.items()):
            if attribute.is_ref():
                continue
            if attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype in _HALF:
                node.attributes[name] = ir.AttrTensor(name, _widen(attribute.value))
                modified = True
            elif name in ("to", "dtype") and attribute.type == ir.AttributeType.INT and attribute.value in _HALF:
                node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))
                modified = True
    return modified


def _retype(value: ir.Value) -> bool:
    if value.const_value is not None and value.const_value.dtype in _HALF:
        value.const_value = _widen(value.const_value)
        value.type = ir.TensorType(ir.DataType.FLOAT)
        return True
    if value.dtype in _HALF:
        value.type = ir.TensorType(ir.DataType.FLOAT)
        return True
    return False


def _widen(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.tensor(tensor.numpy().astype(np.float32), name=tensor.name)
