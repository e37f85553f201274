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

_ALWAYS = 1 << 30  # rows: whole rows of tables are read however many there are
_TILE_POSITIONS = 512  # of a convolution by lookups
_TILE_COLUMNS = 48  # of lookups
_NEAR_BYTES = 512 << 10  # activations that are still in a level 2 cache when a step reads or writes them
_GROUP_TILES = 4  # calls of the lookups, in rows, that one pass over a table serves
_INT8_PASS = 512 << 10  # bytes of packed rows that one pass over an int8 weight serves


@dataclasses.dataclass(frozen=True)
class Kernels:
    """How an ISA's kernels cut their work.

    Attributes:
        panel: Rows of a panel of codes.
        encoded: Rows that are encoded at once.
        unit: Codebooks of a step of the lookups.
        panels: Panels of a call of the lookups.
        columns: Columns of a call of the lookups.
        single: Up to this many rows are encoded one by one.
        gather: Up to this many rows whole rows of the table are read.
        lanes: Columns of a vector of the dense kernels.
        gemm_rows: Rows of a register block of the fp32 product.
        int8_rows: Likewise of the int8 product.
        conv_unit: Channels of a word of the int8 convolution.
        unsigned_unit: Likewise of the kernel for images without negative numbers; 0: there is none.
        conv_lanes: Positions of its vectors.
        conv_vectors: Vectors whose sums are made at once.
        angle: Whether gain codebooks of two features are searched by angle.
        dense_planes: Whether convolutions read codes of images without a border.
        windows: Whether sums are 16 bits wide and end in windows that depend on the gain limit.
    """

    panel: int
    encoded: int
    unit: int
    panels: int
    columns: int
    single: int
    gather: int
    lanes: int
    gemm_rows: int
    int8_rows: int
    conv_unit: int
    unsigned_unit: int
    conv_lanes: int
    conv_vectors: int
    angle: bool
    dense_planes: bool
    windows: bool


KERNELS: Mapping[str, Kernels] = {
    "avx512": Kernels(16, 16, 4, 4, 6, 5, 8, 16, 14, 16, 4, 0, 16, 4, True, True, False),
    "avxvnni": Kernels(32, 32, 2, 2, 4, 0, 12, 8, 6, 6, 4, 0, 8, 2, False, False, True),
    "avx2": Kernels(32, 32, 2, 2, 4, 0, 12, 8, 6, 6, 2, 4, 8, 2, False, False, True),
    "scalar": Kernels(16, 1, 1, 4, 64, 0, _ALWAYS, 4, 4, 1, 2, 0, 8, 1, False, False, False),
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
        output_bytes: That it writes: their lines come from where constants come from.
    """

    family: str
    terms: Mapping[str, float]
    constant_bytes: float
    passes: int = 1
    part: str = "main"
    output_bytes: float = 0.0


def works(shape: LayerShape, form: Form, isa: str) -> list[Work]:
    """The steps of a layer in a form, in order of execution."""
    kernels = KERNELS[isa]
    if shape.kind == "attention":
        return [_attention(shape, form)]
    linear = shape.kind == "linear"
    if form.kind == "fp32":
        steps = [(_dense_linear if linear else _dense_conv)(shape, kernels)]
    elif form.kind == "int8":
        steps = [(_int8_linear if linear else _int8_conv)(shape, kernels)]
    else:
        steps = [_encode(shape, form, kernels), (_lookup_linear if linear else _lookup_conv)(shape, form, kernels)]
    return [*steps[:-1], dataclasses.replace(steps[-1], output_bytes=4.0 * shape.rows * shape.N)]


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


def _epilogue(shape: LayerShape, calls: float = 0, lanes: float = 0) -> dict[str, float]:
    """Terms of an activation and a residual that cost the same behind every kernel of rows.

    Args:
        shape: The layer.
        calls: Of the activation's function; 0 where the kernel computes it in registers.
        lanes: Elements of a call.
    """
    count = shape.rows * shape.N
    terms: dict[str, float] = {}
    if shape.activation != "none":
        terms[f"activation.{shape.activation}"] = max(calls * lanes, float(count))
        if calls and shape.activation != "relu":
            terms["activation.calls"] = calls
    if shape.residual:
        terms["residual"] = float(count)
    return terms


def _image_epilogue(shape: LayerShape, k: Kernels) -> dict[str, float]:
    """Likewise of convolutions, whose outputs are finished line by line."""
    count, lines = float(shape.rows * shape.N), float(shape.batch * shape.out_image[0] * shape.N)
    terms: dict[str, float] = {}
    if shape.activation == "relu" or shape.residual:
        terms |= {"finished": count, "finished lines": lines}
    if shape.residual:
        terms["added"] = count
        if shape.out_image[1] % k.lanes:  # masked stores of a line, into the residual itself, stall the next line
            terms["added tails"] = lines
    if shape.activation not in ("none", "relu"):
        terms |= {f"activation.{shape.activation}": count, "activation.calls": lines}
    return terms


def _far(shape: LayerShape, *, reads: bool = True, writes: bool = True) -> dict[str, float]:
    """Bytes of activations that a level 2 cache does not hold."""
    inputs, outputs = 4.0 * shape.in_rows * shape.D, 4.0 * shape.rows * shape.N
    far = max(0.0, inputs * reads + outputs * writes - _NEAR_BYTES)
    return {"far": far} if far else {}


def _encode(shape: LayerShape, form: Form, k: Kernels) -> Work:
    rows, count = shape.in_rows, codebooks(shape, form)
    pixels = shape.kind == "conv"
    panels = shape.batch * _ceil(rows / shape.batch, k.encoded) if pixels else _ceil(rows, k.encoded)
    if form.projection != "none":
        return _projected_encode(shape, form, panels)
    slots = _slots(form.width)
    constants = count * form.entries * slots * 4 + 8.0 * shape.D
    angle = k.angle and form.kind == "gain" and form.width == 2
    name = "angle" if angle else form.kind
    if rows <= k.single and not angle and not pixels and form.entries == 16:
        terms = {"call": 1.0, "features": rows * shape.D, "codebooks": rows * count, "slots": rows * count * slots}
        return Work(f"encode.row.{name}", terms, constants, part="encode")
    terms = {
        "call": 1.0,
        "panels": panels,
        "features": panels * shape.D,
        "codebooks": panels * count,
        "entries": panels * count * form.entries,
        "slots": panels * count * form.entries * slots,
    }
    if form.width % 4 and not angle:
        terms["odd"] = panels * count * slots
    terms |= _far(shape, writes=False)
    return Work(f"encode.{'pixels' if pixels else 'rows'}.{name}", terms, constants, part="encode")


def _projected_encode(shape: LayerShape, form: Form, panels: int) -> Work:
    """Codebooks behind a projection read coordinates from anywhere, few or many of them."""
    count, features = codebooks(shape, form), rank(shape, form)
    blocks = _ceil(shape.D, form.block) if form.projection == "block" else 1
    products = shape.D * features / blocks
    terms = {
        "call": 1.0,
        "panels": panels,
        "inputs": panels * shape.D,
        "features": panels * features,
        "products": panels * products,
        "blocks": panels * blocks,
        "entries": panels * count * form.entries,
        "codebooks": panels * count,
    }
    constants = products + count * form.entries * 6 + 8.0 * shape.D
    return Work(f"encode.projected.{form.kind}", terms, constants, part="encode")


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
    if rows <= k.gather and not (shape.open_rows and k.gather < _ALWAYS):
        terms = {
            "call": 1.0,
            "codebooks": rows * count,
            "lookups": float(rows * count * outputs),
            "outputs": rows * outputs,
        } | _epilogue(shape, rows * _ceil(outputs, _TILE_COLUMNS), min(outputs, _TILE_COLUMNS))
        hit = form.entries * (1 - (1 - 1 / form.entries) ** rows)  # table rows that are read
        return Work(f"gather.{form.kind}", terms, constants * hit / form.entries)
    units, panels = _ceil(count, k.unit), _ceil(rows, k.panel)
    calls = _ceil(panels, k.panels) * _ceil(outputs, k.columns)
    passes = _ceil(rows, _GROUP_TILES * k.panels * k.panel)
    terms = {
        "call": 1.0,
        "calls": calls,
        "steps": calls * units,
        "lookups": panels * units * outputs,
        "outputs": _up(rows, k.panel) * outputs,
    } | _far(shape, reads=False)
    # The activation runs over whole tiles, or over each column of one that is not full.
    full = panels % k.panels == 0
    terms |= _epilogue(
        shape, passes * (_ceil(outputs, _TILE_COLUMNS) if full else outputs),
        panels * k.panel / passes * (min(outputs, _TILE_COLUMNS) if full else 1),
    )  # fmt: skip
    return Work(f"lookup.{_lookup_family(form, k)}", terms, constants, passes)


def _lookup_conv(shape: LayerShape, form: Form, k: Kernels) -> Work:
    out_height, out_width = shape.out_image
    group, outputs = shape.group, shape.N // shape.group
    count = _ceil(shape.D // group, form.width)
    units, images = _ceil(count, k.unit), shape.batch * group
    dense = k.dense_planes and shape.strides == (1, 1) and out_width == shape.image[1]
    plane_width = out_width if dense else _ceil(shape.image[1] + shape.pads[1] + shape.pads[3], shape.strides[1])
    positions = max((out_height - 1) * plane_width + out_width, 1)
    block = k.panel * k.panels
    grain = block if plane_width == out_width else plane_width
    tiles = _ceil(_ceil(positions, grain), max(1, _TILE_POSITIONS // grain))
    panels = max(_ceil(positions, k.panel), tiles)
    calls = images * tiles * _ceil(outputs, k.columns)
    terms = {
        "call": 1.0,
        "calls": calls,
        "steps": images * max(_ceil(positions, block), tiles) * _ceil(outputs, k.columns) * units * shape.taps,
        "lookups": images * panels * units * shape.taps * outputs,
        "outputs": shape.rows * shape.N,
        "lines": shape.batch * out_height * shape.N,
    }
    terms |= _spread(shape, form, k, units, dense=dense, plane_width=plane_width)
    terms |= _far(shape, reads=False) | _image_epilogue(shape, k)
    constants = float(group * count * form.entries * outputs * shape.taps)
    return Work(f"conv.{_lookup_family(form, k)}", terms, constants, shape.batch * tiles)


def _spread(
    shape: LayerShape, form: Form, k: Kernels, units: int, *, dense: bool, plane_width: int
) -> dict[str, float]:
    """Terms of laying codes and gains out for the taps, with or without a border."""
    height, width = shape.image
    images, pixels = shape.batch * shape.group, height * width
    varied = form.kind == "gain" or shape.group > 1  # else gains are constant
    panels = _ceil(pixels, k.panel)
    terms: dict[str, float] = {}
    if shape.group > 1:
        terms["regrouped"] = images * pixels * units * k.unit
    if dense:
        copies = units * (1 + shape.kernel[1]) if varied else units
        terms["copies"] = images * panels * copies
        terms["cleared"] = images * height * shape.kernel[1] * (units if varied else 1)
        terms["starts"] = images * pixels * (sum(shape.kernel) if varied else 1)
        return terms
    streams = units * 2 if varied else units
    plane_rows = _ceil(height + shape.pads[0] + shape.pads[2], shape.strides[0])
    terms["planes"] = images * plane_rows * plane_width * math.prod(shape.strides) * streams
    if shape.strides[1] > 1:
        terms["strided"] = images * pixels * streams
    else:
        terms["copies"] = images * panels * streams
    terms["bordered"] = images * height * shape.strides[1] * streams
    terms["starts"] = images * shape.out_image[0] * plane_width * shape.taps
    return terms


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
    }
    terms |= _far(shape) | _epilogue(shape)
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
    }
    terms |= _far(shape) | _epilogue(shape, rows * _ceil(shape.N, 64), min(shape.N, 64))
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
            "lines": float(shape.batch * _ceil(out_height, 2) * (shape.D + shape.N)),
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
        if family == "direct":
            terms["expanded lines"] = float(shape.batch * group * depth * out_height)
    terms |= _far(shape) | _image_epilogue(shape, k)
    return Work(f"dense.{family}", terms, constants)


def _int8_conv(shape: LayerShape, k: Kernels) -> Work:
    group, out = shape.group, shape.out_image
    unsigned = shape.nonnegative and k.unsigned_unit > 0
    unit = k.unsigned_unit if unsigned else k.conv_unit
    units = _ceil(shape.D // group, unit)
    per_group = shape.N // group
    vectors = shape.batch * min(out[0] * _ceil(out[1], k.conv_lanes), _ceil(out[0] * (out[1] + 2), k.conv_lanes))
    steps = group * units * shape.taps
    terms = {
        "call": 1.0,
        "products": vectors * steps * per_group,
        "steps": _ceil(vectors, k.conv_vectors) * steps * _ceil(per_group, 6),
        "blocks": _ceil(vectors, k.conv_vectors) * _ceil(shape.N, 6),
        "outputs": shape.rows * shape.N,
        "inputs": shape.in_rows * _up(shape.D, unit),
        "lines": shape.batch * shape.image[0] * _ceil(shape.D, unit),
    }
    if not shape.follows_conv:
        terms["searched"] = float(shape.in_rows * shape.D)
    terms |= _far(shape) | _image_epilogue(shape, k)
    family = "int8.depthwise" if group == shape.D else "int8.conv"
    return Work(f"{family}.unsigned" if unsigned else family, terms, float(shape.weights))


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
