"""The lookup layers of an artifact, read back, and how far each is from the dense layer on other samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from safetensors import safe_open

from lutc import _runtime
from lutc.fit.encode import lookup_linear
from lutc.fit.executor import CutModel
from lutc.fit.sites import dense_layer, token_mask
from lutc.forms import LayerChoice
from lutc.inspect import read_artifact
from lutc.ir.expand import INPUTS, TableFactors, expanded
from lutc.ir.parameters import LookupParameters

_ENCODE = ("offset", "inv_scale", "groups", "directions", "code_bias", "gain_mul")


def linear_layers(path: Path) -> dict[str, LookupParameters]:
    """Constants of every linear lookup layer without projection, by name; tables are made or unpacked."""
    plan = read_artifact(path).plan
    with safe_open(path, "np") as file:

        def constant(value: int) -> NDArray:
            return file.get_tensor(plan["values"][value]["tensor"])

        makers = {step["outputs"][0]: step for step in plan.get("init", [])}
        encodes = {step["outputs"][0]: step for step in plan["steps"] if step["op"] == "lut_encode"}
        layers = {}
        for step in plan["steps"]:
            if step["op"] != "lut_linear":
                continue
            codes, table_value, scale, bias = step["inputs"][:4]
            encode = encodes[codes]
            constants: dict[str, Any] = dict(zip(_ENCODE, map(constant, encode["inputs"][1:7]), strict=True))
            if table_value in makers:
                made = makers[table_value]
                table = expanded(TableFactors(**dict(zip(INPUTS, map(constant, made["inputs"]), strict=True))))
            else:
                attrs = step["attrs"]
                shape = [attrs["codebooks"], attrs["entries"], attrs["outputs"]]
                table = constant(table_value)
                if attrs["layout"] != "ckn":
                    table = _runtime.kernels.unpack_table(table, attrs["layout"], shape)
            layers[step["name"]] = LookupParameters(
                **constants,
                table=table,
                scale=constant(scale),
                bias=constant(bias),
                gain_limit=encode["attrs"]["gain_limit"],
            )
    return layers


def layer_errors(
    model: ir.Model, choices: Iterable[LayerChoice], path: Path, feeds: Iterable[Mapping[str, NDArray]]
) -> dict[str, float]:
    """Squared error over variance of each linear layer's output, where it reads what it reads in the original model.

    Args:
        model: The original, canonical.
        choices: Its layers.
        path: An artifact of it.
        feeds: Samples; rows of masked tokens do not count.

    Returns:
        By layer name, in the order of the model.
    """
    layers = linear_layers(path)
    wanted = {str(c.node.outputs[0].name): c.name for c in choices if c.kind == "linear" and c.name in layers}
    cut = CutModel(ir.to_proto(model), wanted, 1)
    sums = {name: np.zeros(2) for name in wanted.values()}  # squared error, squared deviation from the batch's mean
    for feed in feeds:
        tensors = dict(feed)
        mask = token_mask(tensors)
        for index, site in enumerate(cut.sites):
            cut.run_clean(index, tensors)
            x = tensors[site.input[0]]
            y = dense_layer(site, cut)(x)
            tensors[site.output[0]] = y
            rows = mask if mask is not None and mask.shape == x.shape[:-1] else np.ones(x.shape[:-1], bool)
            name = wanted[site.output[0]]
            gap = lookup_linear(x[rows], layers[name]) - y[rows]
            centred = y[rows] - y[rows].mean(axis=0)
            sums[name] += np.square(gap, dtype=np.float64).sum(), np.square(centred, dtype=np.float64).sum()
    return {name: float(error / max(square, 1e-30)) for name, (error, square) in sums.items()}
