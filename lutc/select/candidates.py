"""Which forms are worth trying for each layer, on one machine and at one input shape."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from lutc.cost import CostModel, LayerShape
from lutc.errors import UsageError
from lutc.fit.linear import FREE_LIMIT
from lutc.forms import FP32, INT8, Form, LayerChoice

EXPECTED = {
    "gain-v2": 0.0033,
    "gain-v3": 0.061,
    "gain-v3k8": 0.125,
    "gain-v4-proj": 0.05,
    "gain-v4-block64": 0.13,
    "gain-v4": 0.166,
    "gain-v6-proj": 0.11,
    "gain-v4k8": 0.26,
    "gain-v8-proj": 0.19,
    "gain-v6": 0.35,
    "plain-v4": 0.344,
    "gain-v8": 0.48,
    "plain-v8": 0.60,
    "plain-v16": 0.72,
}
"""Lookups, with the distortion of Gaussian features (behind a projection, of real ones): a rough ranking."""

EXPECTED_INT8 = 0.003
"""The distortion of int8, likewise."""

MOVES = 2.0
"""A layer's share of the whole model's distortion times this is about what it moves the outputs."""

_CLEARLY = 0.85
"""Another form's expected distortion is clearly less where it is less than this part of a form's own."""

_AS_GOOD = 1.05
"""It is about as good where it is less than this part."""

_NOTICEABLE = 1.1
"""A clearly coarser form must save at least this factor of time."""

_GAIN = 0.95
"""Lookups are tried where they take less than this part of the best dense form's time."""


@dataclasses.dataclass(frozen=True)
class Priced:
    """A form of a layer and its predicted time."""

    form: Form
    seconds: float
    bytes: int


Layers = Mapping[str, tuple[LayerChoice, Sequence[Priced]]]
"""The choice and the candidates of each layer, by the name of its first output."""


def allowed_forms(as_int8: LayerChoice, as_lookups: LayerChoice) -> list[Form]:
    """The forms that a layer may take.

    Args:
        as_int8: What `choose_layers` makes of it where all layers are to be int8.
        as_lookups: Likewise for lookups.

    Returns:
        One form where the user named it; else fp32, int8 and lookups as far as they pay in layers of its kind.
    """
    if as_int8.fixed:
        return [as_int8.form]
    if as_int8.kind == "attention":
        return [FP32] if as_int8.form == FP32 else [FP32, INT8]
    forms = [FP32]
    if as_int8.form == INT8:
        forms.append(INT8)
    if not as_lookups.form.dense:
        forms += [form for form in map(Form.parse, EXPECTED) if _sensible(form, as_lookups)]
    return forms


def _sensible(form: Form, layer: LayerChoice) -> bool:
    if form.projection != "none":
        # The projection costs D r: only where N is much larger than D do fewer lookups pay for it.
        return layer.kind == "linear" and layer.N >= 2 * layer.D and layer.D >= 64
    if form.kind == "plain":
        # Without gains single entries have to be fitted one by one.
        return lookups_columns(form, layer) <= FREE_LIMIT
    return True


def lookups_columns(form: Form, layer: LayerChoice) -> int:
    """Entries of all codebooks and taps of one group of a layer: C * K * taps."""
    _, per_group, taps = _weight_sizes(layer)
    return -(-per_group // form.width) * form.entries * taps


def constant_bytes(form: Form, layer: LayerChoice) -> int:
    """Bytes of a layer's weights or tables, roughly: without the small constants of an encode."""
    if layer.kind == "attention":
        return 0
    outputs, per_group, taps = _weight_sizes(layer)
    if form.dense:
        return outputs * per_group * taps * (4 if form == FP32 else 1)
    projection = layer.D * min(layer.D, 2 * layer.D // form.width) if form.projection == "full" else 0
    return lookups_columns(form, layer) * outputs + projection


def _weight_sizes(layer: LayerChoice) -> tuple[int, int, int]:
    """Outputs, inputs of a group, taps."""
    weight = layer.node.inputs[1]
    assert weight is not None and weight.const_value is not None
    shape = tuple(weight.const_value.numpy().shape)
    if layer.kind == "linear":
        return shape[1], shape[0], 1
    return shape[0], shape[1], shape[2] * shape[3]


def priced_candidates(
    layer: LayerChoice, forms: Sequence[Form], shape: LayerShape | None, cost: CostModel, total_bytes: float
) -> list[Priced]:
    """The forms worth a fit, dense ones first, lookups by rising expected distortion.

    Args:
        layer: The layer.
        forms: That it may take.
        shape: At the input shapes for which time counts; None where no run executes it.
        cost: Prices of the target.
        total_bytes: Of the constants of the whole model.
    """
    priced = []
    for form in forms:
        try:
            priced.append(Priced(form, seconds_of(form, shape, cost, total_bytes), constant_bytes(form, layer)))
        except UsageError:  # a form that this cost model has no price for is not tried
            if form.dense or len(forms) == 1:
                raise
    dense = [item for item in priced if item.form.dense]
    if not dense:
        return priced
    limit = min(item.seconds for item in dense) * _GAIN
    lookups = [item for item in priced if not item.form.dense and item.seconds < limit]
    lookups.sort(key=lambda item: (EXPECTED[str(item.form)], item.seconds))
    return dense + [item for item in lookups if not any(_beats(other, item) for other in lookups)]


def _beats(other: Priced, item: Priced) -> bool:
    """Whether a form is not worth a fit beside another one."""
    if other is item:
        return False
    ratio = EXPECTED[str(other.form)] / EXPECTED[str(item.form)]
    if other.seconds < item.seconds and ratio < _AS_GOOD:
        return True
    return other.seconds <= item.seconds * _NOTICEABLE and ratio < _CLEARLY


def seconds_of(form: Form, shape: LayerShape | None, cost: CostModel, total_bytes: float) -> float:
    """Predicted time of a form; 0 where no run executes the layer."""
    return 0.0 if shape is None else cost.seconds(shape, form, constant_bytes=total_bytes)
