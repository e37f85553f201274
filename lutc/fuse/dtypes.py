"""Element types: ONNX's against the plan's, and what an operator's outputs are where shape inference said nothing."""

from __future__ import annotations

import onnx_ir as ir

_D = ir.DataType

_NAMES = {
    _D.FLOAT: "f32",
    _D.DOUBLE: "f64",
    _D.INT64: "i64",
    _D.INT32: "i32",
    _D.INT8: "i8",
    _D.UINT8: "u8",
    _D.BOOL: "bool",
}

_BOOL = {
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "And",
    "Or",
    "Xor",
    "Not",
    "IsNaN",
    "IsInf",
}
_INT64 = {"Shape", "Size", "ArgMax", "ArgMin", "NonZero"}
_DECISIVE_INPUT = {"Where": 1, "OneHot": 2}  # elsewhere the first


def plan_dtype(dtype: ir.DataType, what: str) -> str:
    """The plan's name of an element type.

    Raises:
        ValueError: the runtime has no such type; `what` says whose it is.
    """
    if dtype not in _NAMES:
        raise ValueError(f"{what} is {dtype.name.lower()}; supported: {', '.join(d.name.lower() for d in _NAMES)}")
    return _NAMES[dtype]


def output_dtype(node: ir.Node, index: int, inputs: list[str | None]) -> str:
    """The plan's dtype of a node's output: the graph's annotation, else the operator's rule.

    Args:
        node: the node.
        index: which output.
        inputs: plan dtypes of the node's inputs, None where omitted.
    """
    annotated = node.outputs[index].dtype
    if annotated is not None and annotated != _D.UNDEFINED:
        return plan_dtype(annotated, f"output '{node.outputs[index].name}'")
    op = node.op_type
    if op in _BOOL:
        return "bool"
    if op in _INT64 or (op == "TopK" and index == 1):
        return "i64"
    if op == "Cast":
        return plan_dtype(_D(node.attributes["to"].as_int()), "the target")
    if op == "ConstantOfShape":
        value = node.attributes.get("value")
        return "f32" if value is None else plan_dtype(value.as_tensor().dtype, "the value")
    if op == "CastLike":
        return inputs[1] or "f32"
    source = inputs[_DECISIVE_INPUT.get(op, 0)] if inputs else None
    return source or "f32"
