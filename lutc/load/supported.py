"""`check_supported`: every node that lutc cannot compile, listed at once."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from lutc.errors import UnsupportedModelError

_DTYPES = {
    ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.INT64, ir.DataType.INT32, ir.DataType.INT8,
    ir.DataType.UINT8, ir.DataType.BOOL,
}  # fmt: skip
MAX_LISTED = 200


def check_supported(model: ir.Model, supported_ops: Collection[tuple[str, str]]) -> None:
    """Raises unless every node of a (canonical) model is one that the runtime executes.

    Args:
        model: The model; the main graph is checked, a node with a subgraph fails as a whole.
        supported_ops: (domain, operator) pairs, ONNX's own domain being "": lutc.ir.opset.supported_ops().

    Raises:
        UnsupportedModelError: one line for every failing node: name, operator, domain, opset, input shapes, and the
            module in the original program where the exporter noted it.
    """
    lines = []
    for node in model.graph:
        reason = _reason(node, supported_ops)
        if reason is not None:
            lines.append(_line(node, model, reason))
    if not lines:
        return
    shown = lines[:MAX_LISTED]
    more = [f"  ... and {len(lines) - len(shown)} more"] if len(lines) > len(shown) else []
    count = f"{len(lines)} node{'s' if len(lines) != 1 else ''}"
    raise UnsupportedModelError(f"the model has {count} that lutc cannot compile:\n" + "\n".join(shown + more))


def _reason(node: ir.Node, supported_ops: Collection[tuple[str, str]]) -> str | None:
    domain = "" if node.domain == "ai.onnx" else node.domain
    if (domain, node.op_type) not in supported_ops:
        return "operator not supported"
    if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()):
        return "subgraphs are not supported"
    for value in node.outputs:
        if value.dtype is not None and value.dtype not in _DTYPES:
            return f"element type {value.dtype.name} not supported"
    return None


def _line(node: ir.Node, model: ir.Model, reason: str) -> str:
    domain = node.domain or "ai.onnx"
    version = model.opset_imports.get(node.domain, "?")
    shapes = ", ".join("-" if v is None else "?" if v.shape is None else str(v.shape) for v in node.inputs)
    scope = node.metadata_props.get("pkg.torch.onnx.name_scopes") or node.metadata_props.get("namespace")
    where = f"; in {scope}" if scope else ""
    name = node.name or (node.outputs[0].name if node.outputs else "?")
    return f"  {name}: {domain}::{node.op_type} (opset {version}), inputs {shapes}: {reason}{where}"
