"""The forms a layer can take, and which layer takes which.

fp32                the dense layer
int8                the dense layer, or attention, with products of 8-bit integers: one scale a column of weights,
                    inputs quantised as they come
gain-v3             gain-shape lookups, sub-vectors of 3 features, 16 directions
gain-v4k8-g15       sub-vectors of 4, 8 directions, gains within +-15
gain-v4t7           tables of 7 bits (t8: of 8, t6: of 6), which AVX2 sums faster; without, the compiler's choice
plain-v8            the nearest of 16 centroids per 8 features, no gain
gain-v4-proj        as many lookups as gain-v4, behind a full output-aware projection with bit allocation
gain-v4-block64     the same behind a block-diagonal projection, 64 features a block
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir

from lutc.errors import UsageError
from lutc.ir.graph import LUTC_DOMAIN, attribute, is_op, static_dim

_PATTERN = re.compile(r"(gain|plain)-v(\d+)(?:k(4|8|16))?(?:t([678]))?(?:-g(\d+))?(?:-(proj|block(\d+)))?")

GAIN_LIMIT = 63
"""Gain limit unless a form names one: AVX2 takes a slower path above it."""

SELECTIONS = ("accurate", "balanced", "fast")
"""Presets that are budgets, for `lutc.select` to spend; every other preset is a form for all layers alike."""

DENSE_FORMS = ("fp32", "int8")
"""Forms without lookups: nothing to fit, no samples needed."""

INTEGER_ATTENTION = True
"""Whether attention is int8 by default in a model of which any layer is not fp32."""

_MOST_PRODUCTS = (2**31 - 1) // (127 * 127)  # that an int8 sum holds
_WIDEST_HEAD = 65536  # features whose products of 8-bit integers an int32 holds


@dataclasses.dataclass(frozen=True)
class Form:
    """How a layer is computed.

    Attributes:
        kind: "fp32", "int8", "gain" or "plain".
        width: V, features per codebook (with a projection: D / V codebooks).
        entries: K, entries per codebook.
        gain_limit: G; 0 in the plain form.
        table_bits: Of a table's entries: 8, 7 or 6; 0: the compiler's choice (`lutc.fit.table_bits`).
        projection: "none", "full" or "block".
        block: Features per block of a block-diagonal projection.
    """

    kind: str = "fp32"
    width: int = 0
    entries: int = 16
    gain_limit: int = 0
    table_bits: int = 0
    projection: str = "none"
    block: int = 0

    @classmethod
    def parse(cls, text: str) -> Form:
        """Read a form as this module's docstring writes it.

        Raises:
            UsageError: It is none.
        """
        if text in DENSE_FORMS:
            return cls(kind=text)
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise UsageError(
                f"{text!r} is no form; try fp32, int8, gain-v3, gain-v4k8, gain-v4t7, gain-v3-g15, plain-v8, "
                "gain-v4-proj, gain-v4-block64"
            )
        kind, width, entries, bits, limit, projection, block = match.groups()
        widest = 16 if kind == "gain" else 32
        if not 2 <= int(width) <= widest:
            raise UsageError(f"form {text!r}: a {kind} codebook holds 2 to {widest} features, not {width}")
        if limit is not None and (kind == "plain" or not 1 <= int(limit) <= 127):
            raise UsageError(f"form {text!r}: a gain limit is 1 to 127 and belongs to the gain form")
        if bits is not None and kind == "plain":
            raise UsageError(f"form {text!r}: bits of tables belong to the gain form; plain tables have 8")
        if block is not None and int(block) < 2:
            raise UsageError(f"form {text!r}: a block holds at least 2 features")
        return cls(
            kind=kind,
            width=int(width),
            entries=int(entries or 16),
            gain_limit=0 if kind == "plain" else int(limit or GAIN_LIMIT),
            table_bits=int(bits or 0),
            projection="none" if projection is None else "block" if block else "full",
            block=int(block or 0),
        )

    def __str__(self) -> str:
        """The text that `parse` reads."""
        if self.dense:
            return self.kind
        text = f"{self.kind}-v{self.width}"
        if self.entries != 16:
            text += f"k{self.entries}"
        if self.table_bits:
            text += f"t{self.table_bits}"
        if self.kind == "gain" and self.gain_limit != GAIN_LIMIT:
            text += f"-g{self.gain_limit}"
        return text + {"none": "", "full": "-proj", "block": f"-block{self.block}"}[self.projection]

    @property
    def dense(self) -> bool:
        """Whether the layer has no lookups: nothing to fit, no samples needed."""
        return self.kind in DENSE_FORMS

    def fits(self, layer: str) -> bool:
        """Whether a layer of this kind ("linear", "conv" or "attention") can take the form."""
        return self.dense or layer != "attention"


FP32 = Form()
INT8 = Form("int8")


@dataclasses.dataclass(frozen=True)
class LayerChoice:
    """What becomes of one layer.

    Attributes:
        name: Unique among the model's layers.
        node: The layer's node: `ai.lutc::Linear`, `Conv` or `ai.lutc::Attention`.
        kind: "linear", "conv" or "attention".
        D: Input features (of a convolution: input channels; of attention: all heads of a query; 0 where unknown).
        N: Outputs (of a convolution: output channels; of attention: all heads of a value; 0 where unknown).
        form: The form chosen.
        why: The reason, for people.
        fixed: Whether the user named the form.
    """

    name: str
    node: ir.Node
    kind: str
    D: int
    N: int
    form: Form
    why: str
    fixed: bool = False


def _weight(node: ir.Node) -> np.ndarray | None:
    if len(node.inputs) < 2 or node.inputs[1] is None or node.inputs[1].const_value is None:
        return None
    return node.inputs[1].const_value.numpy()


def _layers(model: ir.Model) -> list[tuple[ir.Node, str, tuple[int, ...]]]:
    """Linears and convolutions with constant weights, and attention, in graph order: node, kind, weight shape."""
    found: list[tuple[ir.Node, str, tuple[int, ...]]] = []
    for node in model.graph:
        if is_op(node, "Attention", domain=LUTC_DOMAIN):
            found.append((node, "attention", ()))
        weight = _weight(node)
        if weight is None:
            continue
        if is_op(node, "Linear", domain=LUTC_DOMAIN) and weight.ndim == 2:
            found.append((node, "linear", weight.shape))
        elif is_op(node, "Conv") and weight.ndim == 4:
            found.append((node, "conv", weight.shape))
    return found


def _size(node: ir.Node, kind: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """D and N of `LayerChoice`."""
    if kind == "attention":
        return static_dim(node.inputs[0], -1) or 0, static_dim(node.outputs[0], -1) or 0
    return (shape[0], shape[1]) if kind == "linear" else (shape[1] * attribute(node, "group", 1), shape[0])


def _names(nodes: Sequence[ir.Node]) -> list[str]:
    names: list[str] = []
    for node in nodes:
        base = node.name or node.outputs[0].name or node.op_type
        name, count = base, 1
        while name in names:
            count += 1
            name = f"{base}_{count}"
        names.append(name)
    return names


def _reason_to_stay_fp32(node: ir.Node, kind: str, shape: tuple[int, ...]) -> str:
    """Why a linear or convolution stays fp32 where the preset is int8, or an empty string.

    Measured: everything gains speed but the smallest linears and depthwise convolutions, and these, whose channels are
    far apart in size, would lose more accuracy than all others together.
    """
    if kind == "linear" and (shape[0] < 16 or shape[1] < 16):
        return f"tiny: {shape[0]} features to {shape[1]} outputs (at least 16 and 16 pay)"
    if kind == "conv" and _is_depthwise(node, shape):
        return "depthwise: int8 costs accuracy and gains no speed"
    return _impossible(kind, node, shape, INT8)


def _reason_for_no_lookups(node: ir.Node, kind: str, shape: tuple[int, ...], first_conv: bool, last: bool) -> str:
    """Why a linear or convolution stays fp32 whatever the form of lookups, or an empty string."""
    if kind == "linear":
        features, outputs = shape
        if outputs < 32 or features < 16:
            return f"tiny: {features} features to {outputs} outputs (at least 16 and 32 pay)"
        return "classifier of a convolutional network" if last else ""
    outputs, per_group = shape[:2]
    group = attribute(node, "group", 1)
    if first_conv:
        return "first convolution"
    if _is_depthwise(node, shape):
        return "depthwise"
    if per_group < 8 or outputs // group < 8:
        return f"tiny: {per_group} channels to {outputs // group} outputs a group (at least 8 and 8 pay)"
    if last:
        return "classifier of a convolutional network"
    return "" if _canonical_pads(node) else f"auto_pad {attribute(node, 'auto_pad')} is not canonical"


def _is_depthwise(node: ir.Node, shape: tuple[int, ...]) -> bool:
    """Whether each channel has filters of its own; the stem of a model of one channel (speech, grey images) has not."""
    return shape[1] == 1 and attribute(node, "group", 1) > 1


def _canonical_pads(node: ir.Node) -> bool:
    return attribute(node, "auto_pad", "NOTSET") in ("NOTSET", "")


def _impossible(kind: str, node: ir.Node, shape: tuple[int, ...], form: Form) -> str:
    """Why a layer cannot take a form other than fp32, or an empty string."""
    if kind == "attention":
        width = (static_dim(node.inputs[0], -1) or 0) // attribute(node, "num_heads", 1)
        return "" if 1 <= width <= _WIDEST_HEAD else f"the size of a head must be known and at most {_WIDEST_HEAD}"
    if form == INT8:
        products = shape[0] if kind == "linear" else math.prod(shape[1:])
        if products > _MOST_PRODUCTS:
            return f"sums of {products} products may leave int32"
    elif kind == "conv" and form.projection != "none":
        return "a convolution takes no projection"
    elif kind == "conv" and shape[1] == 1:
        return "of one channel a group there is nothing to group"
    return "" if kind == "linear" or _canonical_pads(node) else "auto_pad is not canonical"


def _matching(
    layers: Sequence[tuple[str, str]], rules: Iterable[tuple[str, Form]], flag: str
) -> dict[str, tuple[str, Form]]:
    """The last rule that matches, by layer name; `layers` are names and kinds. A rule sees layers its form fits."""
    chosen: dict[str, tuple[str, Form]] = {}
    for pattern, form in rules:
        try:
            regex = re.compile(pattern)
        except re.error as error:
            raise UsageError(f"{flag} {pattern}: not a regular expression: {error}") from error
        names = [name for name, kind in layers if form.fits(kind)]
        hits = [name for name in names if regex.search(name)]
        if not hits:
            listing = "\n  ".join(names) or "(none)"
            raise UsageError(f"{flag} {pattern}={form} matches no layer; layers that can be {form}:\n  {listing}")
        chosen.update((name, (pattern, form)) for name in hits)
    return chosen


def uniform_form(preset: str) -> Form | None:
    """The form that a preset gives to all layers alike; None where it is a budget of `SELECTIONS`.

    Raises:
        UsageError: Neither a budget nor a form of linears and convolutions.
    """
    if preset in SELECTIONS:
        return None
    try:
        return Form.parse(preset)
    except UsageError:
        raise UsageError(
            f"{preset!r} is no preset; choose from {', '.join(SELECTIONS)} (budgets), or a form for all layers alike: "
            "int8, fp32, gain-v3, gain-v4, plain-v8 ..."
        ) from None


def choose_layers(
    model: ir.Model,
    preset: str = "gain-v4",
    keep: Iterable[tuple[str, Form | str]] = (),
    form: Iterable[tuple[str, Form | str]] = (),
) -> list[LayerChoice]:
    """Decide the form of every linear, convolution and attention of a canonical model.

    By default the first convolution, depthwise convolutions, tiny layers (linears below 16 features or 32 outputs,
    convolutions below 8 channels or 8 outputs a group) and the classifier that ends a convolutional network
    stay fp32, and everything else takes the preset's form; the preset int8 leaves depthwise convolutions and tiny
    linears alone. Attention takes integers when any layer is not fp32. `form` overrides that, and `keep` overrides
    both; later rules override earlier ones.

    Args:
        model: A canonical model; not changed.
        preset: A form ("gain-v3", "int8", "fp32").
        keep: (regular expression over names, dense form).
        form: (regular expression over names, form).

    Returns:
        One choice per layer in graph order.

    Raises:
        UsageError: No form, an expression that matches no layer, or a form the layer cannot
            take.
    """
    default = uniform_form(preset)
    if default is None:
        raise ValueError(f"{preset} is a budget: lutc.select chooses")
    layers = _layers(model)
    names = _names([node for node, _, _ in layers])
    kinds = [kind for _, kind, _ in layers]

    def rules(given: Iterable[tuple[str, Form | str]], flag: str) -> dict[str, tuple[str, Form]]:
        parsed = [(regex, Form.parse(text) if isinstance(text, str) else text) for regex, text in given]
        return _matching(list(zip(names, kinds, strict=True)), parsed, flag)

    kept, formed = rules(keep, "--keep"), rules(form, "--form")
    first_conv = next((node for node, kind, _ in layers if kind == "conv"), None)
    last = next((node for node, kind, _ in reversed(layers) if kind != "attention"), None) if first_conv else None
    choices = []
    for (node, kind, shape), name in zip(layers, names, strict=True):
        if kind == "attention":
            reason = "no layer is replaced"
        elif default == INT8:
            reason = _reason_to_stay_fp32(node, kind, shape)
        elif kind == "conv" and default.projection != "none":
            reason = _impossible(kind, node, shape, default)
        else:
            reason = _reason_for_no_lookups(node, kind, shape, node is first_conv, node is last)
        chosen, why = (FP32, reason) if reason else (default, f"preset {preset}")
        if name in formed:
            chosen, why = formed[name][1], f"--form {formed[name][0]}"
        if name in kept:
            chosen, why = kept[name][1], f"--keep {kept[name][0]}"
            if not chosen.dense:
                raise UsageError(f"--keep {kept[name][0]}={chosen}: only dense forms can be kept; use --form")
        if name in {*kept, *formed} and chosen != FP32 and (problem := _impossible(kind, node, shape, chosen)):
            raise UsageError(f"{name}: {chosen} is impossible: {problem}")
        fixed = name in formed or name in kept
        choices.append(LayerChoice(name, node, kind, *_size(node, kind, shape), chosen, why, fixed))
    return with_attention(choices)


def with_attention(choices: list[LayerChoice]) -> list[LayerChoice]:
    """Attention that no rule names is int8 where any other layer is not fp32."""
    if not INTEGER_ATTENTION or all(choice.form == FP32 for choice in choices if choice.kind != "attention"):
        return choices

    def free(choice: LayerChoice) -> bool:
        return choice.kind == "attention" and not choice.fixed

    return [
        dataclasses.replace(choice, form=INT8, why="other layers are replaced")
        if free(choice) and not _impossible("attention", choice.node, (), INT8)
        else choice
        for choice in choices
    ]
