"""The compiler's report: one row for each linear, convolution and attention."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir

from lutc.forms import FP32, INT8, Form, LayerChoice


def dense_bytes(model: ir.Model) -> int:
    """Bytes of all constants of a model."""
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)


def layer_rows(
    choices: Sequence[LayerChoice], results: Mapping[str, Mapping[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """Rows of the report, in graph order.

    Args:
        choices: what was chosen for each layer.
        results: by layer name, what fitting found: group_sizes, codebooks, rank, bytes, error.

    Returns:
        Dicts of name, op, form, why, group_sizes, codebooks, rank, bytes (of the layer's constants as stored),
        bytes_expanded (the same with its table made at load), bytes_dense, error (squared output error over variance on
        held-out samples; 0 for an fp32 layer, None where unknown).
    """
    rows = []
    for choice in choices:
        constants = choice.node.inputs[1:3] if choice.kind != "attention" else ()
        weights = [v.const_value for v in constants if v is not None and v.const_value is not None]
        dense = sum(weight.nbytes for weight in weights)
        row: dict[str, Any] = {
            "name": choice.name,
            "op": choice.kind,
            "form": str(choice.form),
            "why": choice.why,
            "group_sizes": [],
            "codebooks": 0,
            "rank": 0,
            "bytes": _bytes(choice, dense),
            "bytes_expanded": _bytes(choice, dense),
            "bytes_dense": dense,
            "error": 0.0 if choice.form == FP32 else None,
        }
        row.update((results or {}).get(choice.name, {}))
        rows.append(row)
    return rows


def _bytes(choice: LayerChoice, dense: int) -> int | None:
    """Bytes of a layer's constants where its form alone tells them; `dense` in float32."""
    if choice.form == INT8:
        weight = choice.node.inputs[1]
        size = weight.const_value.size if weight is not None and weight.const_value is not None else 0
        return size + 8 * choice.N  # scale and bias
    return dense if choice.form.dense else None


def keep_lines(layers: Sequence[Mapping[str, Any]], count: int = 5) -> list[str]:
    """Ready to paste flags that keep dense the `count` lookup layers that cost most."""
    lookups = [layer for layer in layers if not Form.parse(layer["form"]).dense]
    worst = worst_first(lookups)[:count]
    return [f"--keep '^{re.escape(layer['name'])}$=fp32'" for layer in worst]


def worst_first(layers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Layers by falling cost: what they do to the model's outputs, or where that is unknown their own error."""
    return [dict(layer) for layer in sorted(layers, key=lambda x: -(x.get("divergence") or x.get("error") or 0.0))]
