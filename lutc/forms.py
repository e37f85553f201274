"""The forms a layer can take, and which layer takes which.

fp32                the dense layer
gain-v3             gain-shape lookups, sub-vectors of 3 features, 16 directions
gain-v4k8-g15       sub-vectors of 4, 8 directions, gains within +-15
plain-v8            the nearest of 16 centroids per 8 features, no gain
gain-v4-proj        as many lookups as gain-v4, behind a full output-aware projection with bit allocation
gain-v4-block64     the same behind a block-diagonal projection, 64 features a block
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir

from lutc.errors import UsageError

_PATTERN = re.compile(r"(gain|plain)-v(\d+)(?:k(4|8|16))?(?:-g(\d+))?(?:-(proj|block(\d+)))?")

GAIN_LIMIT = 63
"""Gain limit unless a form names one: AVX2 takes a slower path above it."""

PRESETS = {"accurate": "gain-v3", "balanced": "gain-v4", "fast": "plain-v8"}


@dataclasses.dataclass(frozen=True)
class Form:
    """How a layer is computed.

    Attributes:
        kind: "fp32", "gain" or "plain".
        width: V, features per codebook (with a projection: D / V codebooks).
        entries: K, entries per codebook.
        gain_limit: G; 0 in the plain form.
        projection: "none", "full" or "block".
        block: Features per block of a block-diagonal projection.
    """

    kind: str = "fp32"
    width: int = 0
    entries: int = 16
    gain_limit: int = 0
    projection: str = "none"
    block: int = 0

    @classmethod
    def parse(cls, text: str) -> Form:
        """Read a form as this module's docstring writes it.

        Raises:
            UsageError: It is none.
        """
        if text == "fp32":
            return cls()
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise UsageError(
                f"{text!r} is no form; try fp32, gain-v3, gain-v4k8, gain-v3-g15, plain-v8, gain-v4-proj, "
                "gain-v4-block64"
            )
        kind, width, entries, limit, projection, block = match.groups()
        widest = 16 if kind == "gain" else 32
        if not 2 <= int(width) <= widest:
            raise UsageError(f"form {text!r}: a {kind} codebook holds 2 to {widest} features, not {width}")
        if limit is not None and (kind == "plain" or not 1 <= int(limit) <= 127):
            raise UsageError(f"form {text!r}: a gain limit is 1 to 127 and belongs to the gain form")
        if block is not None and int(block) < 2:
            raise UsageError(f"form {text!r}: a block holds at least 2 features")
        return cls(
            kind=kind,
            width=int(width),
            entries=int(entries or 16),
            gain_limit=0 if kind == "plain" else int(limit or GAIN_LIMIT),
            projection="none" if projection is None else "block" if block else "full",
            block=int(block or 0),
        )

    def __str__(self) -> str:
        """The text that `parse` reads."""
        if self.kind == "fp32":
            return "fp32"
        text = f"{self.kind}-v{self.width}"
        if self.entries != 16:
            text += f"k{self.entries}"
        if self.kind == "gain" and self.gain_limit != GAIN_LIMIT:
            text += f"-g{self.gain_limit}"
        return text + {"none": "", "full": "-proj", "block": f"-block{self.block}"}[self.projection]

    @property
    def dense(self) -> bool:
        """Whether the layer is left as it is."""
        return self.kind == "fp32"


FP32 = Form()


@dataclasses.dataclass(frozen=True)
class LayerChoice:
    """What becomes of one layer.

    Attributes:
        name: Unique among the model's layers.
        node: The layer's node: `ai.lutc::Linear` or `Conv`.
        kind: "linear" or "conv".
        D: Input features (of a convolution: input channels).
        N: Outputs (of a convolution: output channels).
        form: The form chosen.
        why: The reason, for people.
    """

    name: str
    node: ir.Node
    kind: str
    D: int
    N: int
    form: Form
    why: str


def _weight(node: ir.Node) -> np.ndarray | None:
    if len(node.inputs) < 2 or node.inputs[1] is None or node.inputs[1].const_value is None:
        return None
    return node.inputs[1].const_value.numpy()


def _layers(model: ir.Model) -> list[tuple[ir.Node, str, tuple[int, ...]]]:
    """Linears and convolutions with constant weights, in graph order: node, kind, weight shape."""
    found = []
    for node in model.graph:
        weight = _weight(node)
        if weight is None:
            continue
        if node.domain == "ai.lutc" and node.op_type == "Linear" and weight.ndim == 2:
            found.append((node, "linear", weight.shape))
        elif node.domain == "" and node.op_type == "Conv" and weight.ndim == 4:
            found.append((node, "conv", weight.shape))
    return found


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


def _reason_to_stay_dense(node: ir.Node, kind: str, shape: tuple[int, ...], first_conv: bool, last: bool) -> str:
    """Why a layer stays dense whatever the preset, or an empty string."""
    if kind == "linear":
        features, outputs = shape
        if outputs < 32 or features < 16:
            return f"tiny: {features} features to {outputs} outputs (at least 16 and 32 pay)"
        return "classifier of a convolutional network" if last else ""
    outputs, per_group = shape[:2]
    group = node.attributes["group"].as_int() if "group" in node.attributes else 1
    if first_conv:
        return "first convolution"
    if per_group == 1:
        return "depthwise"
    if per_group < 8 or outputs // group < 8:
        return f"tiny: {per_group} channels to {outputs // group} outputs a group (at least 8 and 8 pay)"
    if last:
        return "classifier of a convolutional network"
    auto_pad = node.attributes["auto_pad"].as_string() if "auto_pad" in node.attributes else "NOTSET"
    return "" if auto_pad in ("NOTSET", "") else f"auto_pad {auto_pad} is not canonical"


def _impossible(kind: str, node: ir.Node, shape: tuple[int, ...], form: Form) -> str:
    if kind == "conv":
        if form.projection != "none":
            return "a convolution takes no projection"
        if shape[1] == 1:
            return "a depthwise convolution has nothing to group"
        if "auto_pad" in node.attributes and node.attributes["auto_pad"].as_string() not in ("NOTSET", ""):
            return "auto_pad is not canonical"
    return ""


def _matching(names: Sequence[str], rules: Iterable[tuple[str, Form]], flag: str) -> dict[str, tuple[str, Form]]:
    chosen: dict[str, tuple[str, Form]] = {}
    for pattern, form in rules:
        try:
            regex = re.compile(pattern)
        except re.error as error:
            raise UsageError(f"{flag} {pattern}: not a regular expression: {error}") from error
        hits = [name for name in names if regex.search(name)]
        if not hits:
            listing = "\n  ".join(names) or "(none)"
            raise UsageError(f"{flag} {pattern}={form} matches no layer; the layers are:\n  {listing}")
        chosen.update((name, (pattern, form)) for name in hits)
    return chosen


def choose_layers(
    model: ir.Model,
    preset: str = "balanced",
    keep: Iterable[tuple[str, Form | str]] = (),
    form: Iterable[tuple[str, Form | str]] = (),
) -> list[LayerChoice]:
    """Decide the form of every linear and convolution of a canonical model.

    By default the first convolution, depthwise convolutions, tiny layers (linears below 16 features or 32 outputs,
    convolutions below 8 channels or 8 outputs a group) and the classifier that ends a convolutional network
    stay dense; everything else takes the preset's form. `form` overrides that, and `keep` overrides both; later
    rules override earlier ones.

    Args:
        model: A canonical model; not changed.
        preset: "accurate", "balanced" or "fast".
        keep: (regular expression over names, dense form).
        form: (regular expression over names, form).

    Returns:
        One choice per layer in graph order.

    Raises:
        UsageError: An unknown preset or form, an expression that matches no layer, or a form the layer cannot
            take.
    """
    if preset not in PRESETS:
        raise UsageError(f"{preset!r} is no preset; choose from {', '.join(PRESETS)}")
    default = Form.parse(PRESETS[preset])
    layers = _layers(model)
    names = _names([node for node, _, _ in layers])

    def parsed(rules: Iterable[tuple[str, Form | str]]) -> list[tuple[str, Form]]:
        return [(regex, Form.parse(text) if isinstance(text, str) else text) for regex, text in rules]

    kept = _matching(names, parsed(keep), "--keep")
    formed = _matching(names, parsed(form), "--form")
    convolutional = any(kind == "conv" for _, kind, _ in layers)
    first_conv = next((node for node, kind, _ in layers if kind == "conv"), None)
    choices = []
    for index, ((node, kind, shape), name) in enumerate(zip(layers, names, strict=True)):
        last = convolutional and index == len(layers) - 1
        reason = _reason_to_stay_dense(node, kind, shape, node is first_conv, last)
        chosen, why = (FP32, reason) if reason else (default, f"preset {preset}")
        if name in formed:
            chosen, why = formed[name][1], f"--form {formed[name][0]}"
            problem = "" if chosen.dense else _impossible(kind, node, shape, chosen)
            if problem:
                raise UsageError(f"{name}: {chosen} is impossible: {problem}")
        if name in kept:
            chosen, why = kept[name][1], f"--keep {kept[name][0]}"
            if not chosen.dense:
                raise UsageError(f"--keep {kept[name][0]}={chosen}: only dense forms can be kept; use --form")
        group = node.attributes["group"].as_int() if "group" in node.attributes else 1
        features, outputs = shape if kind == "linear" else (shape[1] * group, shape[0])
        choices.append(LayerChoice(name, node, kind, features, outputs, chosen, why))
    return choices
