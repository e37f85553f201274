"""The compiler's report: one row for each linear and convolution layer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir

from lutc.forms import LayerChoice


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
        Dicts of name, op, form, why, group_sizes, codebooks, rank, bytes (of the layer's constants), bytes_dense, error
        (squared output error over variance on held-out samples; 0 for a dense layer, None where unknown).
    """
    rows = []
    for choice in choices:
        weights = [v.const_value for v in choice.node.inputs[1:3] if v is not None and v.const_value is not None]
        dense = sum(weight.nbytes for weight in weights)
        row: dict[str, Any] = {
            "name": choice.name,
            "op": choice.kind,
            "form": str(choice.form),
            "why": choice.why,
            "group_sizes": [],
            "codebooks": 0,
            "rank": 0,
            "bytes": dense if choice.form.dense else None,
            "bytes_dense": dense,
            "error": 0.0 if choice.form.dense else None,
        }
        row.update((results or {}).get(choice.name, {}))
        rows.append(row)
    return rows


def keep_lines(layers: Sequence[Mapping[str, Any]], count: int = 5) -> list[str]:
    """Ready to paste flags that keep the `count` lookup layers of largest error dense."""
    lookups = [layer for layer in layers if layer["form"] != "fp32"]
    worst = sorted(lookups, key=lambda layer: -(layer["error"] or 0.0))[:count]
    return [f"--keep '^{re.escape(layer['name'])}$=fp32'" for layer in worst]
