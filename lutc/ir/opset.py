"""The one table of operators that lutc compiles: ONNX operator (opset 23) -> step of the plan (docs/format.md).

Stages that only need to know whether an operator is supported ask `supported_ops()`; lowering reads the names.
"""

from __future__ import annotations

import re

from lutc.ir.graph import LUTC_DOMAIN

_STEPS = """
abs add and arg_max arg_min average_pool batch_normalization cast ceil clip concat constant_of_shape conv
conv_transpose cos cum_sum div equal erf exp expand flatten floor gather gather_elements gather_nd gelu gemm
global_average_pool global_max_pool greater greater_or_equal hard_sigmoid hard_swish identity
instance_normalization is_inf is_nan layer_normalization leaky_relu less less_or_equal log log_softmax mat_mul max
max_pool mean min mod mul neg not one_hot or p_relu pad pow range reciprocal reduce_l1 reduce_l2 reduce_max
reduce_mean reduce_min reduce_prod reduce_sum relu reshape resize rms_normalization round rotary_embedding
scatter_elements scatter_nd shape sigmoid sign sin size slice softmax softplus split sqrt squeeze sub sum tanh
tile top_k transpose trilu unsqueeze where xor
""".split()  # noqa: SIM905

_IRREGULAR = {
    "gather_nd": "GatherND", "is_inf": "IsInf", "is_nan": "IsNaN", "leaky_relu": "LeakyRelu", "p_relu": "PRelu",
    "reduce_l1": "ReduceL1", "reduce_l2": "ReduceL2", "rms_normalization": "RMSNormalization",
    "scatter_nd": "ScatterND",
}  # fmt: skip


def _onnx_name(step: str) -> str:
    return _IRREGULAR.get(step) or re.sub(r"(?:^|_)([a-z])", lambda match: match[1].upper(), step)


#: ONNX operator -> plan step, for every operator of the ONNX domain that the runtime executes.
ONNX_STEPS: dict[str, str] = {_onnx_name(step): step for step in _STEPS}

#: `ai.lutc` operator -> plan step. The lookup layers lower to an encode step and one or more of these.
LUTC_STEPS: dict[str, str] = {
    "Linear": "linear",
    "Silu": "silu",
    "Attention": "attention",
    "LutLinear": "lut_linear",
    "LutConv": "lut_conv",
    "Project": "lut_encode",
    "ExpandTable": "expand_table",
    "ExpandConvTable": "expand_table",
    "Int8Linear": "int8_linear",
    "Int8Conv": "int8_conv",
}

#: Operators that canonicalisation always removes (folded, inlined or turned into others).
COMPILED_AWAY: frozenset[str] = frozenset({"Constant", "Dropout"})


def supported_ops() -> frozenset[tuple[str, str]]:
    """Every (domain, operator) that lutc compiles; the domain of ONNX's own operators is ""."""
    return frozenset(
        {("", name) for name in ONNX_STEPS}
        | {("", name) for name in COMPILED_AWAY}
        | {(LUTC_DOMAIN, name) for name in LUTC_STEPS}
    )
