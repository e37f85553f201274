"""The model is brought to opset 23."""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import version_converter

from lutc.errors import UnsupportedModelError
from lutc.ir.graph import OPSET
from lutc.ir.isolated import convert_with_onnx

_NATIVE_FROM = 18  # onnxscript converts the graph in place from here on, keeping every name


class ConvertOpset(ir.passes.FunctionalPass):
    """Needs: nothing. Guarantees: ONNX's own operators at opset 23, value and node names kept.

    Raises:
        UnsupportedModelError: newer than opset 23, or an operator that no converter knows.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Uses onnxscript's converter from opset 18, ONNX's (in a child process) below."""
        version = model.opset_imports.get("", OPSET)
        if version == OPSET:
            return ir.passes.PassResult(model.clone(), False)
        if version > OPSET:
            raise UnsupportedModelError(
                f"the model uses opset {version}; lutc reads up to opset {OPSET}. Export it with opset_version={OPSET}."
            )
        if version < _NATIVE_FROM:
            model = convert_with_onnx(model, OPSET)
        else:
            model = model.clone()
            version_converter.convert_version(model, OPSET, fallback=False)
            model.opset_imports[""] = OPSET
        return ir.passes.PassResult(model, True)
