"""What a layer's steps do, counted: the amounts whose prices a cost model learns.

A layer of a form is one or two steps. Each step belongs to a *family* (steps of one kernel in one manner of working)
and has an amount of every *term* of it: multiply-adds, calls of the inner loop, rows times outputs ... Its time is the
sum of amounts times prices, but no less than its constants take to arrive (`lutc.cost.model`). Sizes are rounded up as
the kernels round them: a panel with one row takes as long as a full one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from lutc.cost.shape import LayerShape
from lutc.forms import Form


_TILE_POSITIONS, _TILE_COLUMNS = 512, 48  # of a convolution by lookups
_GROUP_TILES = 4  # calls of the lookups, in rows, that one pass over a table serves
_INT8_PASS = 512 << 10  # bytes of packed rows that one pass over an int8 weight serves


@dataclasses.dataclass(frozen=True)
class Kernels:
    """How an ISA's kernels cut their work.

    Attributes:
        panel: Rows of a panel of codes.
        unit: Codebooks of a step of the lookups.
        panels: Panels of a call of the lookups.
        columns: Columns of a call of the lookups.
        single: Up to this many rows are encoded one by one.
        gather: Up to this many rows whole rows of the table are read.
        lanes: Columns of a vector of the dense kernels.
        gemm_rows: Rows of a register block of the fp32 product.
        int8_rows: Likewise of the int8 product.
        conv_unit: Channels of a word of the int8 convolution.
        conv_lanes: Positions of its vectors.
        angle: Whether gain codebooks of two features are searched by angle.
        windows: Whether sums are 16 bits wide and end in windows that depend on the gain limit.
    """

    panel: int
    unit: int
    panels: int
    columns: int
    single: int
    gather: int
    lanes: int
    gemm_rows: int
    int8_rows: int
    conv_unit: int
    conv_lanes: int
    angle: bool
    windows: bool


KERNELS: Mapping[str, Kernels] = {
    "avx512": Kernels(16, 4, 4, 6, 5, 8, 16, 14, 16, 4, 16, True, False),
    "avx2": Kernels(32, 2, 2, 4, 0, 12, 8, 6, 6, 2, 8, False, True),
    "scalar": Kernels(16, 1, 4, 64, 0, 1 << 30, 4, 4, 1, 4, 4, False, False),
}
"""By ISA."""


@dataclasses.dataclass(frozen=True)
class Work:
    """One step of a layer.

    Attributes:
        family: Steps of one family share prices.
        terms: Amounts by name.
        constant_bytes: Of the weights or tables that it reads.
        passes: How often it reads them; they come from where they fit after the first time.
        part: "encode", or "main" for the step that writes the layer's outputs.
    """

    family: str
    terms: Mapping[str, float]
    constant_bytes: float
    passes: int = 1
    part: str = "main"


def works(shape: LayerShape, form: Form, isa: str) -> list[Work]:
    """The steps of a layer in a form, in order of execution."""
    kernels = KERNELS[isa]
    if shape.kind == "attention":
        return [_attention(shape, form)]
    if form.dense:
        if shape.kind == "linear":
            return [_dense_linear(shape, kernels) if form.kind == "fp32" else _int8_linear(shape, kernels)]
        return [_dense_conv(shape, kernels) if form.kind == "fp32" else _int8_conv(shape, kernels)]
    lookup = _lookup_linear if shape.kind == "linear" else _lookup_conv
    return [_encode(shape, form, kernels), lookup(shape, form, kernels)]


def codebooks(shape: LayerShape, form: Form) -> int:
    """Codebooks of a layer, all convolution groups together."""
    if form.projection != "none":
        return max(1, shape.D // form.width)
    return shape.group * _ceil(shape.D // shape.group, form.width)


def rank(shape: LayerShape, form: Form) -> int:
    """Coordinates behind a projection: about three quarters, as layers whose variances fall keep them."""
    return max(1, round(0.77 * shape.D)) if form.projection != "none" else 0


def _ceil(a: float, b: float) -> int:
    return math.ceil(a / b)


def _up(a: float, b: int) -> int:
    return math.ceil(a / b) * b


def _outputs(shape: LayerShape) -> dict[str, float]:
    """Terms of what is done to every output, whatever the family."""
    count = shape.rows * shape.N
    terms = {f"activation.{shape.activation}": float(count)} if shape.activation != "none" else {}
    return terms | ({"residual": float(count)} if shape.residual else {})


def _encode(shape: LayerShape, form: Form, k: Kernels) -> Work:
    rows, count = shape.in_rows, codebooks(shape, form)
    features, constants = float(shape.D), 0.0
    slots: float = _slots(form.width)
    if form.projection != "none":
        features = rank(shape, form)
        slots = 1.4
    constants += count * form.entries * slots * 4 + 8.0 * shape.D
    pixels = shape.kind == "conv"
    angle = k.angle and form.kind == "gain" and form.width == 2 and form.projection == "none"
    single = rows <= k.single and not angle and not pixels and form.entries == 16 and form.projection == "none"
    name = "angle" if angle else form.kind
    family = f"encode.{'pixels' if pixels else 'row' if single else 'rows'}.{name}"
    if single:
        terms = {"call": 1.0, "features": rows * features, "codebooks": rows * count, "slots": rows * count * slots}
        return Work(family, terms, constants, part="encode")
    panels = shape.batch * _ceil(rows / shape.batch, k.panel) if pixels else _ceil(rows, k.panel)
    terms = {
        "call": 1.0,
        "panels": panels,
        "features": panels * features,
        "codebooks": panels * count,
        "entries": panels * count * form.entries,
        "slots": panels * count * form.entries * slots,
    }
    if form.width % 4 and not angle and form.projection == "none":
        terms["odd"] = panels * count * slots
    if form.projection != "none":
        products: float = shape.D * rank(shape, form)
        if form.projection == "block":
            products = products / max(1, _ceil(shape.D, form.block))
        terms["inputs"] = panels * shape.D
        terms["products"] = panels * products
        constants += products
    return Work(family, terms, constants, part="encode")


def _slots(width: int) -> int:
    slots = _ceil(width, 4)
    return slots if slots <= 4 else 8


def _lookup_family(form: Form, k: Kernels) -> str:
    family = f"{form.kind}.k{form.entries}"
    if form.kind == "gain" and k.windows:
        family += f".g{15 if form.gain_limit <= 15 else 63 if form.gain_limit <= 63 else 127}"
    return family


def _lookup_linear(shape: LayerShape, form: Form, k: Kernels) -> Work:
    rows, outputs, count = shape.rows, shape.N, codebooks(shape, form)
    constants = float(count * form.entries * outputs)
    if rows <= k.gather:
        terms = {
            "call": 1.0,
            "codebooks": rows * count,
            "lookups": float(rows * count * outputs),
            "outputs": rows * outputs,
        } | _outputs(shape)
        hit = form.entries * (1 - (1 - 1 / form.entries) ** rows)  # table rows that are read
        return Work(f"gather.{form.kind}", terms, constants * hit / form.entries)
    units, panels = _ceil(count, k.unit), _ceil(rows, k.panel)
    calls = _ceil(panels, k.panels) * _ceil(outputs, k.columns)
    terms = {
        "call": 1.0,
        "calls": calls,
        "steps": calls * units,
        "lookups": panels * units * outputs,
        "outputs": _up(rows, k.panel) * outputs,
    } | _outputs(shape)
    return Work(f"lookup.{_lookup_family(form, k)}", terms, constants, _ceil(rows, _GROUP_TILES * k.panels * k.panel))


def _lookup_conv(shape: LayerShape, form: Form, k: Kernels) -> Work:
    out_height, out_width = shape.out_image
    group, outputs = shape.group, shape.N // shape.group
    count = _ceil(shape.D // group, form.width)
    units, images, pixels = _ceil(count, k.unit), shape.batch * group, math.prod(shape.image)
    plane_rows, plane_width = (
        _ceil(size + shape.pads[axis] + shape.pads[axis + 2], stride)
        for axis, (size, stride) in enumerate(zip(shape.image, shape.strides, strict=True))
    )
    tile_rows = min(max(_TILE_POSITIONS // plane_width, 1), max(out_height, 1))
    tiles, left = divmod(out_height, tile_rows)
    sizes = [(tiles, (tile_rows - 1) * plane_width + out_width), (int(left > 0), (left - 1) * plane_width + out_width)]
    panels = sum(number * _ceil(positions, k.panel) for number, positions in sizes if number)
    blocks = sum(number * _ceil(positions, k.panel * k.panels) for number, positions in sizes if number)
    calls = images * blocks * _ceil(outputs, k.columns)
    columns = _ceil(outputs, _TILE_COLUMNS)
    terms = {
        "call": 1.0,
        "calls": calls,
        "steps": calls * units * shape.taps,
        "lookups": images * panels * units * shape.taps * outputs,
        "outputs": shape.rows * shape.N,
        "lines": shape.batch * out_height * shape.N,
        "tiles": images * _ceil(out_height, tile_rows) * columns,
        "planes": images * plane_rows * plane_width * math.prod(shape.strides) * units,
        "starts": images * out_height * plane_width * shape.taps,
    }
    if group > 1:
        terms["regrouped"] = images * pixels * units * k.unit
    elif shape.strides[1] > 1:
        terms |= {"scattered": images * pixels, "scattered copies": images * pixels * units}
    else:
        terms["copies"] = images * (_ceil(pixels, k.panel) + shape.image[0]) * units
    constants = float(group * count * form.entries * outputs * shape.taps)
    passes = shape.batch * _ceil(out_height, tile_rows)
    return Work(f"conv.{_lookup_family(form, k)}", terms | _outputs(shape), constants, passes)


def _dense_linear(shape: LayerShape, k: Kernels) -> Work:
    rows, outputs = shape.rows, _up(shape.N, k.lanes)
    blocks = _ceil(rows, k.gemm_rows) * _ceil(outputs, 2 * k.lanes)
    terms = {
        "call": 1.0,
        "blocks": blocks,
        "steps": blocks * shape.D,
        "products": rows * outputs * shape.D,
        "outputs": rows * shape.N,
        "inputs": rows * shape.D,
    } | _outputs(shape)
    return Work("dense.linear", terms, 4.0 * shape.D * shape.N)


def _int8_linear(shape: LayerShape, k: Kernels) -> Work:
    rows, outputs = shape.rows, _up(shape.N, 16)
    blocks = _ceil(rows, k.int8_rows) * outputs / 16
    groups = _ceil(shape.D, 4)
    terms = {
        "call": 1.0,
        "blocks": blocks,
        "steps": blocks * groups,
        "products": rows * outputs * groups,
        "outputs": rows * shape.N,
        "inputs": rows * shape.D,
        "rows": rows,
    } | _outputs(shape)
    passes = _ceil(rows * groups * 4 * (1 if k.conv_unit == 4 else 2), _INT8_PASS)
    return Work("int8.linear", terms, float(shape.D * shape.N), passes)


def _dense_conv(shape: LayerShape, k: Kernels) -> Work:
    group, depth = shape.group, shape.D // shape.group * shape.taps
    out_height, out_width = shape.out_image
    per_group, channels = shape.N // group, shape.D // group
    terms: dict[str, float] = {"call": 1.0}
    constants = 4.0 * shape.weights
    if channels == 1 and per_group == 1:
        family = "depthwise" if shape.strides[1] == 1 else "depthwise_strided"
        lines = shape.batch * out_height * shape.N
        terms |= {"products": lines * _up(out_width, k.lanes) * shape.taps, "lines": lines, "planes": shape.N}
    elif (
        shape.kernel == (3, 3) and shape.strides == (1, 1) and shape.dilations == (1, 1)
        and min(channels, per_group) >= 8 and min(out_height, out_width) >= 4
    ):  # fmt: skip
        family = "winograd"
        tiles = shape.batch * _ceil(out_height, 2) * _ceil(out_width, 2)
        constants *= 16 / 9
        terms |= {
            "products": 16.0 * _up(tiles, k.lanes) * shape.N * channels,
            "inputs": 16.0 * tiles * shape.D,
            "outputs": 16.0 * tiles * shape.N,
        }
    else:
        family = "pointwise" if shape.taps == 1 and shape.strides == (1, 1) else "direct"
        positions = shape.batch * _up(math.prod(shape.out_image), k.lanes)
        terms |= {
            "products": float(positions * _up(per_group, 3) * group * depth),
            "steps": float(positions * group * depth),
            "outputs": float(positions * shape.N),
            "inputs": float(shape.in_rows * shape.D),
        }
    return Work(f"dense.{family}", terms | _outputs(shape), constants)


def _int8_conv(shape: LayerShape, k: Kernels) -> Work:
    group, out = shape.group, shape.out_image
    units = _ceil(shape.D // group, k.conv_unit)
    per_group = shape.N // group
    vectors = shape.batch * min(out[0] * _ceil(out[1], k.conv_lanes), _ceil(out[0] * (out[1] + 2), k.conv_lanes))
    steps = group * units * shape.taps
    terms = {
        "call": 1.0,
        "products": vectors * steps * per_group,
        "steps": vectors * steps * _ceil(per_group, 6),
        "blocks": vectors * _ceil(shape.N, 6),
        "outputs": shape.rows * shape.N,
        "inputs": shape.in_rows * _up(shape.D, k.conv_unit),
        "lines": shape.batch * shape.image[0] * _ceil(shape.D, k.conv_unit),
    } | _outputs(shape)
    return Work("int8.depthwise" if group == shape.D else "int8.conv", terms, float(shape.weights))


def _attention(shape: LayerShape, form: Form) -> Work:
    queries, keys = shape.image
    scores = shape.batch * shape.heads * queries * _up(keys, 16)
    terms = {
        "call": 1.0,
        "heads": shape.batch * shape.heads,
        "products": shape.batch * queries * keys * (shape.D + shape.N),
        "scores": scores,
        "inputs": shape.batch * (queries * shape.D + keys * (shape.D + shape.N)),
        "outputs": shape.batch * queries * shape.N,
    }
    return Work(f"attention.{form.kind}", terms, 0.0)
