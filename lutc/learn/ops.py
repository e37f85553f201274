"""One table: operator of the canonical graph -> PyTorch function of its attributes and inputs.

Inputs are tensors, None where an optional one is absent. Small integers that steer shapes stay on the CPU; a tensor
of the other device is moved where the two meet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Attributes = Mapping[str, Any]
Op = Callable[..., Any]

_DTYPES = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64, 9: torch.bool,
    10: torch.float16, 11: torch.float64,
}  # fmt: skip


def _ints(value: Tensor) -> list[int]:
    return [int(i) for i in value.reshape(-1).tolist()]


def together(*values: Tensor) -> tuple[Tensor, ...]:
    """The tensors on one device: that of the first which is not on the CPU."""
    device = next((v.device for v in values if v.device.type != "cpu"), values[0].device)
    return tuple(v if v.device == device else v.to(device) for v in values)


def _unary(function: Callable[[Tensor], Tensor]) -> Op:
    return lambda a, x: function(x)


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Op:
    return lambda a, x, y: function(*together(x, y))


def _variadic(function: Callable[[Tensor, Tensor], Tensor]) -> Op:
    def run(a: Attributes, *values: Tensor) -> Tensor:
        result = values[0]
        for value in values[1:]:
            result = function(*together(result, value))
        return result

    return run


def _div(x: Tensor, y: Tensor) -> Tensor:
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def _axes(a: Attributes, axes: Tensor | None, rank: int) -> tuple[int, ...]:
    given = _ints(axes) if axes is not None else list(a.get("axes", ()))
    return tuple(axis % rank for axis in given)


def _reduction(function: Callable[..., Tensor]) -> Op:
    def run(a: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
        dims = _axes(a, axes, x.dim())
        if not dims:
            if a.get("noop_with_empty_axes", 0):
                return x
            dims = tuple(range(x.dim()))
        return function(x, dims, bool(a.get("keepdims", 1)))

    return run


def _product(x: Tensor, dims: tuple[int, ...], keep: bool) -> Tensor:
    for dim in sorted(dims, reverse=True):
        x = x.prod(dim, keepdim=keep)
    return x


def _shape(a: Attributes, x: Tensor) -> Tensor:
    return torch.tensor(list(x.shape)[a.get("start", 0) : a.get("end")], dtype=torch.int64)


def _reshape(a: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    target = _ints(shape)
    if not a.get("allowzero", 0):
        target = [x.shape[i] if size == 0 else size for i, size in enumerate(target)]
    return x.reshape(target)


def _flatten(a: Attributes, x: Tensor) -> Tensor:
    axis = a.get("axis", 1)
    return x.reshape(math.prod(x.shape[: axis % x.dim() if axis < 0 else axis]), -1)


def _unsqueeze(a: Attributes, x: Tensor, axes: Tensor) -> Tensor:
    given = _ints(axes)
    for axis in sorted(axis % (x.dim() + len(given)) for axis in given):
        x = x.unsqueeze(axis)
    return x


def _squeeze(a: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(_axes(a, axes, x.dim()))


def _gather(a: Attributes, x: Tensor, indices: Tensor) -> Tensor:
    x, indices = together(x, indices)
    axis = a.get("axis", 0) % x.dim()
    index = indices.reshape(-1).long()
    taken = x.index_select(axis, torch.where(index < 0, index + x.shape[axis], index))
    return taken.reshape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])


def _gather_elements(a: Attributes, x: Tensor, indices: Tensor) -> Tensor:
    x, indices = together(x, indices)
    axis = a.get("axis", 0)
    return torch.gather(x, axis, torch.where(indices < 0, indices + x.shape[axis], indices).long())


def _slice(
    a: Attributes, x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None
) -> Tensor:
    first, last = _ints(starts), _ints(ends)
    dims = _ints(axes) if axes is not None else list(range(len(first)))
    strides = _ints(steps) if steps is not None else [1] * len(first)
    for begin, end, dim, step in zip(first, last, dims, strides, strict=True):
        chosen = range(*slice(begin, end if step > 0 or end >= -x.shape[dim] else None, step).indices(x.shape[dim]))
        if step > 0:
            index = [slice(None)] * x.dim()
            index[dim] = slice(chosen.start, max(chosen.stop, chosen.start), step)
            x = x[tuple(index)]
        else:
            x = x.index_select(dim, torch.tensor(list(chosen), dtype=torch.int64, device=x.device))
    return x


def _split(a: Attributes, x: Tensor, sizes: Tensor | None = None) -> Sequence[Tensor]:
    axis = a.get("axis", 0)
    if sizes is not None:
        return torch.split(x, _ints(sizes), dim=axis)
    count = a["num_outputs"]
    return torch.split(x, -(-x.shape[axis] // count), dim=axis)


def _pad(a: Attributes, x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
    amounts = _ints(pads)
    dims = _ints(axes) if axes is not None else list(range(x.dim()))
    both = [(0, 0)] * x.dim()
    for place, dim in enumerate(dims):
        both[dim] = (amounts[place], amounts[place + len(dims)])
    flat = [amount for pair in reversed(both) for amount in pair]
    mode = a.get("mode", "constant")
    if mode == "constant":
        return F.pad(x, flat, value=0.0 if value is None else value.item())
    while len(flat) > 2 and flat[-2:] == [0, 0]:
        flat = flat[:-2]
    return F.pad(x, flat, mode="replicate" if mode == "edge" else mode)


def refusal(op: str, a: Attributes) -> str:
    """Which attribute of an operator of `OPS` is not followed; empty where all are."""
    if a.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID", ""):
        return f"auto_pad {a['auto_pad']}"
    if op == "AveragePool" and a.get("ceil_mode", 0):
        return "ceil_mode"
    if op == "Resize":
        chosen = a.get("mode", "nearest"), a.get("coordinate_transformation_mode", "half_pixel")
        if chosen not in _RESIZES:
            return f"mode {chosen[0]} and coordinate_transformation_mode {chosen[1]}"
        if chosen[0] == "nearest" and a.get("nearest_mode", "round_prefer_floor") != "floor":
            return f"nearest_mode {a.get('nearest_mode', 'round_prefer_floor')}"
        return next((name for name in ("antialias", "exclude_outside", "axes") if a.get(name)), "")
    return ""


def _window(a: Attributes, x: Tensor, value: float) -> tuple[Tensor, list[int], list[int]]:
    """X padded as a pooling asks for, and the kernel and strides."""
    kernel = list(a["kernel_shape"])
    strides = list(a.get("strides", [1] * len(kernel)))
    pads = list(a.get("pads", [0] * 2 * len(kernel)))
    pairs = list(zip(pads[: len(kernel)], pads[len(kernel) :], strict=True))
    flat = [amount for pair in reversed(pairs) for amount in pair]
    return (F.pad(x, flat, value=value) if any(flat) else x), kernel, strides


_MAX_POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def _max_pool(a: Attributes, x: Tensor) -> Tensor:
    padded, kernel, strides = _window(a, x, -math.inf)
    pool = _MAX_POOLS[len(kernel)]
    dilation = list(a.get("dilations", [1] * len(kernel)))
    return pool(padded, kernel, strides, dilation=dilation, ceil_mode=bool(a.get("ceil_mode", 0)))


def _average_pool(a: Attributes, x: Tensor) -> Tensor:
    padded, kernel, strides = _window(a, x, 0.0)
    pools = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
    pool = pools[len(kernel)]
    mean = pool(padded, kernel, strides)
    if padded is x or a.get("count_include_pad", 0):
        return mean
    ones = _window(a, torch.ones_like(x[:1, :1]), 0.0)[0]
    return mean / pool(ones, kernel, strides)


def _conv(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rank = weight.dim() - 2
    padded, _, strides = _window({**a, "kernel_shape": weight.shape[2:]}, x, 0.0)
    pads = list(a.get("pads", [0] * 2 * rank))
    padding: list[int] = [0] * rank
    if pads[:rank] == pads[rank:]:
        padded, padding = x, pads[:rank]
    dilations = list(a.get("dilations", [1] * rank))
    return _CONVOLUTIONS[rank](padded, weight, bias, strides, padding, dilations, a.get("group", 1))


_RESIZES = {("nearest", "asymmetric"): None, ("linear", "half_pixel"): False, ("linear", "align_corners"): True}
"""What is followed -> PyTorch's `align_corners`."""


def _resize(
    a: Attributes, x: Tensor, roi: Tensor | None = None, scales: Tensor | None = None, sizes: Tensor | None = None
) -> Tensor:
    if sizes is not None and sizes.numel():
        target = _ints(sizes)[2:]
    else:
        assert scales is not None
        target = [math.floor(size * scale) for size, scale in zip(x.shape[2:], scales.tolist()[2:], strict=True)]
    mode = a.get("mode", "nearest")
    if mode == "linear":
        mode = {3: "linear", 4: "bilinear", 5: "trilinear"}[x.dim()]
    corners = _RESIZES[a.get("mode", "nearest"), a.get("coordinate_transformation_mode", "half_pixel")]
    return F.interpolate(x, size=target, mode=mode, align_corners=corners)


def _batch_normalization(a: Attributes, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    return F.batch_norm(x, mean, var, scale, bias, False, 0.0, a.get("epsilon", 1e-5))


def _layer_normalization(a: Attributes, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    axis = a.get("axis", -1) % x.dim()
    shape = list(x.shape[axis:])
    epsilon = a.get("epsilon", 1e-5)
    if list(scale.shape) == shape and (bias is None or list(bias.shape) == shape):
        return F.layer_norm(x, shape, scale, bias, epsilon)
    y = F.layer_norm(x, shape, None, None, epsilon) * scale
    return y if bias is None else y + bias


def _rms_normalization(a: Attributes, x: Tensor, scale: Tensor) -> Tensor:
    dims = tuple(range(a.get("axis", -1) % x.dim(), x.dim()))
    return x * torch.rsqrt((x * x).mean(dim=dims, keepdim=True) + a.get("epsilon", 1e-5)) * scale


def _clip(a: Attributes, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    return torch.clamp(x, None if low is None else low.item(), None if high is None else high.item())


def _range(a: Attributes, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


def _expand(a: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(torch.broadcast_shapes(tuple(x.shape), tuple(_ints(shape))))


def _constant_of_shape(a: Attributes, shape: Tensor) -> Tensor:
    value = a.get("value")
    fill = torch.zeros(1) if value is None else torch.from_numpy(value.numpy().copy())
    return torch.full(_ints(shape), fill.reshape(-1)[0].item(), dtype=fill.dtype)


def _softmax(a: Attributes, x: Tensor) -> Tensor:
    return torch.softmax(x, a.get("axis", -1))


def _linear(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x @ weight if bias is None else x @ weight + bias


def _attention(a: Attributes, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    heads, kv_heads = a["num_heads"], a["kv_num_heads"]

    def split(x: Tensor, count: int) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], count, -1).transpose(1, 2)

    q, mask = together(q, mask)
    query, key, value = split(q, heads), split(k, kv_heads), split(v, kv_heads)
    if heads != kv_heads:
        key, value = (x.repeat_interleave(heads // kv_heads, dim=1) for x in (key, value))
    scores = torch.matmul(query * a["scale"], key.transpose(2, 3)) + mask
    mixed = torch.matmul(torch.softmax(scores, dim=-1), value)
    return mixed.transpose(1, 2).reshape(q.shape[0], q.shape[1], -1)


def _gemm(a: Attributes, x: Tensor, y: Tensor, c: Tensor | None = None) -> Tensor:
    x = x.T if a.get("transA", 0) else x
    y = y.T if a.get("transB", 0) else y
    product = (x @ y) * a.get("alpha", 1.0)
    return product if c is None else product + c * a.get("beta", 1.0)


def _global_pool(reduce: Callable[..., Tensor]) -> Op:
    return lambda a, x: reduce(x, tuple(range(2, x.dim())), True)


def _p_relu(a: Attributes, x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, x * slope, x)


def _arg(function: Callable[..., Tensor]) -> Op:
    return lambda a, x: function(x, dim=a.get("axis", 0), keepdim=bool(a.get("keepdims", 1)))


OPS: dict[str, Op] = {
    "Abs": _unary(torch.abs),
    "Add": _binary(torch.add),
    "And": _binary(torch.logical_and),
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_normalization,
    "Cast": lambda a, x: x.to(_DTYPES[int(a["to"])]),
    "Ceil": _unary(torch.ceil),
    "Clip": _clip,
    "Concat": lambda a, *xs: torch.cat(together(*xs), dim=a["axis"]),
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv,
    "Cos": _unary(torch.cos),
    "Div": _binary(_div),
    "Equal": _binary(torch.eq),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Floor": _unary(torch.floor),
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Gelu": lambda a, x: F.gelu(x, approximate=a.get("approximate", "none")),
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool(torch.mean),
    "GlobalMaxPool": _global_pool(torch.amax),
    "Greater": _binary(torch.gt),
    "GreaterOrEqual": _binary(torch.ge),
    "HardSigmoid": lambda a, x: (x * a.get("alpha", 0.2) + a.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": _unary(F.hardswish),
    "Identity": _unary(lambda x: x),
    "IsInf": _unary(torch.isinf),
    "IsNaN": _unary(torch.isnan),
    "LayerNormalization": _layer_normalization,
    "LeakyRelu": lambda a, x: F.leaky_relu(x, a.get("alpha", 0.01)),
    "Less": _binary(torch.lt),
    "LessOrEqual": _binary(torch.le),
    "Log": _unary(torch.log),
    "LogSoftmax": lambda a, x: torch.log_softmax(x, a.get("axis", -1)),
    "MatMul": _binary(torch.matmul),
    "Max": _variadic(torch.maximum),
    "MaxPool": _max_pool,
    "Mean": lambda a, *xs: sum(xs) / len(xs),
    "Min": _variadic(torch.minimum),
    "Mul": _binary(torch.mul),
    "Neg": _unary(torch.neg),
    "Not": _unary(torch.logical_not),
    "Or": _binary(torch.logical_or),
    "PRelu": _p_relu,
    "Pad": _pad,
    "Pow": _binary(lambda x, y: torch.pow(x, y).to(x.dtype)),
    "RMSNormalization": _rms_normalization,
    "Range": _range,
    "Reciprocal": _unary(torch.reciprocal),
    "ReduceL1": _reduction(lambda x, d, k: x.abs().sum(d, keepdim=k)),
    "ReduceL2": _reduction(lambda x, d, k: torch.linalg.vector_norm(x, dim=d, keepdim=k)),
    "ReduceMax": _reduction(lambda x, d, k: x.amax(d, keepdim=k)),
    "ReduceMean": _reduction(lambda x, d, k: x.mean(d, keepdim=k)),
    "ReduceMin": _reduction(lambda x, d, k: x.amin(d, keepdim=k)),
    "ReduceProd": _reduction(_product),
    "ReduceSum": _reduction(lambda x, d, k: x.sum(d, keepdim=k)),
    "Relu": _unary(torch.relu),
    "Reshape": _reshape,
    "Resize": _resize,
    "Round": _unary(torch.round),
    "Shape": _shape,
    "Sigmoid": _unary(torch.sigmoid),
    "Sign": _unary(torch.sign),
    "Sin": _unary(torch.sin),
    "Size": lambda a, x: torch.tensor(x.numel(), dtype=torch.int64),
    "Slice": _slice,
    "Softmax": _softmax,
    "Softplus": _unary(F.softplus),
    "Split": _split,
    "Sqrt": _unary(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _binary(torch.sub),
    "Sum": _variadic(torch.add),
    "Tanh": _unary(torch.tanh),
    "Tile": lambda a, x, repeats: x.repeat(_ints(repeats)),
    "Transpose": lambda a, x: x.permute(a.get("perm", tuple(reversed(range(x.dim()))))),
    "Unsqueeze": _unsqueeze,
    "Where": lambda a, c, x, y: torch.where(*together(c, x, y)),
    "Xor": _binary(torch.logical_xor),
    "ai.lutc::Attention": _attention,
    "ai.lutc::Linear": _linear,
    "ai.lutc::Silu": _unary(F.silu),
}  # fmt: skip
