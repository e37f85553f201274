"""Stage 2: any supported ONNX graph into the one form that the later stages read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir
from onnx_ir.passes import common

from lutc.errors import LutcError, UnsupportedModelError
from lutc.ir.symbolic import SymbolicShapes, number
from lutc.passes.base import GraphPass
from lutc.passes.clean import Clean
from lutc.passes.convert_opset import ConvertOpset
from lutc.passes.fold_batch_normalization import FoldBatchNormalization
from lutc.passes.fold_constants import FoldConstants
from lutc.passes.fold_pad import FoldPad
from lutc.passes.fuse_activation import FuseActivation
from lutc.passes.fuse_attention import FuseAttention
from lutc.passes.fuse_gelu import FuseGelu
from lutc.passes.fuse_layer_normalization import FuseLayerNormalization
from lutc.passes.fuse_linear import FuseLinear
from lutc.passes.fuse_rms_normalization import FuseRmsNormalization
from lutc.passes.merge_linears import MergeLinears
from lutc.passes.merge_transposes import MergeTransposes
from lutc.passes.set_input_shapes import SetInputShapes
from lutc.passes.simplify_reshapes import SimplifyReshapes
from lutc.passes.split_packed_heads import SplitPackedHeads

MAX_ROUNDS = 4
IR_VERSION = 11  # of opset 23


def canonicalise(model: ir.Model, *, shapes: Mapping[str, Sequence[int | str]] | None = None) -> ir.Model:
    """Brings a loaded model into canonical form.

    Guarantees: opset 23; no functions but `ai.lutc`'s; constants folded; every dense layer a Linear or a Conv with
    explicit pads and no BatchNormalization beside it; one Linear and a Split where several read one tensor; Gelu,
    LayerNormalization, RMSNormalization and Attention recognised; value shapes filled in, with the inputs' symbolic
    names. Inputs and outputs keep names and order.

    Args:
        model: A model from `load_model`; it may be changed.
        shapes: For inputs by name: the shape to use instead of the model's, integers or symbolic names.

    Returns:
        The canonical model, valid ONNX that stock ONNX Runtime runs.

    Raises:
        UsageError: `shapes` names no input, or contradicts the model.
        UnsupportedModelError: the opset is newer than 23 or cannot be converted.
    """
    model = _run([SetInputShapes(shapes or {}), common.InlinePass(), ConvertOpset(), FoldConstants(), Clean()], model)
    for _ in range(MAX_ROUNDS):
        before = _fingerprint(model)
        model = _run(
            [
                SimplifyReshapes(),
                FoldConstants(),
                Clean(),
                MergeTransposes(),
                FoldPad(),
                FuseGelu(),
                FuseLayerNormalization(),
                FuseRmsNormalization(),
                FuseActivation(),
                FuseLinear(),
                FoldBatchNormalization(),
                SplitPackedHeads(),
                FuseAttention(),
            ],
            model,
        )
        if _fingerprint(model) == before:
            break
    last = [
        MergeLinears(),
        Clean(),
        common.RemoveUnusedFunctionsPass(),
        common.RemoveUnusedOpsetsPass(),
        RecordShapes(),
    ]
    model = _run(last, model)
    model.ir_version = max(model.ir_version, IR_VERSION)
    return model


def _run(passes: Sequence[ir.passes.PassBase], model: ir.Model) -> ir.Model:
    for each in passes:
        try:
            model = each(model).model
        except LutcError:
            raise
        except Exception as error:
            cause = error.__cause__ or error
            if isinstance(cause, LutcError):
                raise cause from None
            raise UnsupportedModelError(
                f"graph pass {type(each).__name__} cannot handle this model: {type(cause).__name__}: {cause}"
            ) from error
    return model


def _fingerprint(model: ir.Model) -> list[tuple[int, str]]:
    """Changes when any node does: the passes put a new node where they rewrite."""
    return [(id(node), node.op_type) for node in model.graph]


class RecordShapes(GraphPass):
    """Needs: nothing. Guarantees: value shapes as far as they are known; unknown dimensions have no name."""

    def rewrite(self, model: ir.Model) -> bool:
        """Writes the symbolic analysis into the graph."""
        shapes = SymbolicShapes(model.graph)
        names = {str(d.value) for v in model.graph.inputs for d in (v.shape or ()) if isinstance(d, ir.SymbolicDim)}
        for node in model.graph:
            for value in node.outputs:
                dims = shapes.dims(value)
                if dims is None or value.is_graph_output():
                    continue
                value.shape = ir.Shape([
                    number(d) if not d[1] else d[1][0] if d[0] == 1 and len(d[1]) == 1 and d[1][0] in names else None
                    for d in dims
                ])  # fmt: skip
        return False
