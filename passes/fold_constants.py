"""Everything that depends on constants alone is computed now, in bounded size."""

from __future__ import annotations

import logging

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript.optimizer import fold_constants

from lutc.ir.graph import is_op

MAX_ELEMENTS = 1 << 16
MAX_WEIGHT_ELEMENTS = 1 << 26  # a transposed or cast weight replaces the weight
_GROWING = ("Expand", "ConstantOfShape", "Tile", "Range", "OneHot", "EyeLike", "Pad", "Resize", "Upsample")
_SAME_SIZE = ("Transpose", "Cast", "Reshape", "Unsqueeze", "Squeeze", "Identity", "Mul", "Div", "Neg", "Sqrt")


class FoldConstants(ir.passes.InPlacePass):
    """Needs: opset 23. Guarantees: no node of small constants remains, save those that would grow them.

    Nodes that can make large tensors out of small ones (Expand, ConstantOfShape ...) are folded only when shape
    inference already knows that their result is small. If with a constant condition is inlined, Constant nodes
    become initialisers, Dropout goes.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Runs onnxscript's folder with our limits."""
        logging.getLogger("onnxscript.optimizer._constant_folding").setLevel(logging.ERROR)
        result = fold_constants(
            model, onnx_shape_inference=True, input_size_limit=MAX_ELEMENTS,
            output_size_limit=MAX_WEIGHT_ELEMENTS, should_fold=_should_fold,
        )  # fmt: skip
        lifted = common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        return ir.passes.PassResult(model, bool(result.modified) or lifted.modified)


def _should_fold(node: ir.Node) -> bool | None:
    if is_op(node, *_GROWING):
        shape = node.outputs[0].shape
        if shape is None or not shape.is_static():
            return False
        size = 1
        for dim in shape.numpy():
            size *= dim
        return size <= MAX_ELEMENTS
    if is_op(node, *_SAME_SIZE):
        sizes = [v.const_value.size for v in node.inputs if v is not None and v.const_value is not None]
        large = [v for v in node.inputs if v is not None and v.const_value is not None
                 and v.const_value.size > MAX_ELEMENTS]  # fmt: skip
        if large and max(sizes) <= MAX_WEIGHT_ELEMENTS and all(len(v.uses()) == 1 for v in large):
            return True
    return None
