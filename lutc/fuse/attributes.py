"""ONNX attributes to plan attributes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lutc.fuse.dtypes import plan_dtype
from lutc.plan import Attribute

_A = ir.AttributeType

# Attributes that say something about how the graph was written, not about what is computed.
_IGNORED = {("Cast", "saturate"), ("Cast", "round_mode"), ("CastLike", "saturate"), ("Dropout", "seed")}


def plan_attributes(node: ir.Node) -> dict[str, Attribute]:
    """The plan's attributes of a node, under their ONNX names; absent ones stay absent: the runtime knows the defaults.

    Raises:
        ValueError: an attribute that a plan cannot hold (a graph, a tensor with several elements, a reference ...).
    """
    attrs: dict[str, Attribute] = {}
    for name, attr in node.attributes.items():
        if (node.op_type, name) in _IGNORED:
            continue
        if attr.is_ref():
            raise ValueError(f"attribute '{name}' refers to a function's attribute")
        if attr.type in (_A.GRAPH, _A.GRAPHS):
            raise ValueError("control flow that depends on the data is not supported")
        if node.op_type == "Cast" and name == "to":
            attrs[name] = plan_dtype(ir.DataType(attr.as_int()), "the target")
        else:
            attrs[name] = _value(name, attr)
    return attrs


def _value(name: str, attr: ir.Attr) -> Attribute:
    if attr.type == _A.INT:
        return int(attr.as_int())
    if attr.type == _A.FLOAT:
        return _finite(name, attr.as_float())
    if attr.type == _A.STRING:
        return attr.as_string()
    if attr.type == _A.INTS:
        return [int(v) for v in attr.as_ints()]
    if attr.type == _A.FLOATS:
        return [_finite(name, v) for v in attr.as_floats()]
    if attr.type == _A.TENSOR:
        array = attr.as_tensor().numpy()
        if array.size == 1:
            item = array.reshape(()).item()
            return _finite(name, item) if np.issubdtype(array.dtype, np.floating) else int(item)
    raise ValueError(f"attribute '{name}' of kind {attr.type} is not supported")


def _finite(name: str, value: float) -> float:
    if not np.isfinite(value):
        raise ValueError(f"attribute '{name}' is {value}")
    return float(value)
