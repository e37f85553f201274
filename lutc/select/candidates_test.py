"""Which forms are tried."""

import numpy as np
import onnx_ir as ir
import pytest

from lutc.cost import LayerShape
from lutc.errors import UsageError
from lutc.forms import FP32, INT8, Form, LayerChoice
from lutc.select.candidates import allowed_forms, constant_bytes, priced_candidates


def layer(kind="linear", shape=(128, 256), form=INT8, fixed=False):
    weight = ir.Value(name="w", const_value=ir.tensor(np.zeros(shape, np.float32)))
    node = ir.node("Linear", [ir.Value(name="x"), weight], domain="ai.lutc")
    size = shape if kind == "linear" else (shape[1], shape[0])
    return LayerChoice("layer", node, kind, *size, form, "", fixed)


class Prices:
    """Seconds by form; forms without an entry have no price."""

    def __init__(self, **seconds):
        self._seconds = {name.replace("_", "-"): value for name, value in seconds.items()}

    def seconds(self, shape, form, *, constant_bytes):
        if str(form) not in self._seconds:
            raise UsageError("no price")
        return self._seconds[str(form)]


def tried(prices, forms=None, **more):
    forms = forms or allowed_forms(layer(**more), layer(form=Form.parse("gain-v3"), **more))
    priced = priced_candidates(layer(**more), forms, LayerShape.linear(8, 128, 256), prices, 1e6)
    return [str(item.form) for item in priced]


def test_dense_forms_are_always_there_and_slower_lookups_never():
    prices = Prices(fp32=10, int8=5, gain_v2=5.5, gain_v3=4.9, gain_v4=3, gain_v8=2)
    assert tried(prices) == ["fp32", "int8", "gain-v4", "gain-v8"]  # gain-v3 saves too little


def test_a_form_that_a_finer_one_nearly_undercuts_is_not_tried():
    assert tried(Prices(fp32=10, int8=5, gain_v3=2.1, gain_v4=2.0, gain_v8=1.0)) == [
        "fp32", "int8", "gain-v3", "gain-v8",
    ]  # fmt: skip


def test_projections_where_outputs_are_many():
    names = [str(form) for form in allowed_forms(layer(), layer(form=Form.parse("gain-v3")))]
    assert "gain-v4-proj" in names
    names = [
        str(form)
        for form in allowed_forms(layer(shape=(128, 128)), layer(shape=(128, 128), form=Form.parse("gain-v3")))
    ]
    assert "gain-v4" in names and not any("-proj" in name for name in names)


def test_plain_forms_where_entries_can_be_fitted_one_by_one():
    wide = [
        str(form)
        for form in allowed_forms(layer(shape=(1536, 384)), layer(shape=(1536, 384), form=Form.parse("gain-v3")))
    ]
    assert "plain-v4" not in wide and "plain-v8" in wide


def test_what_the_user_named_is_the_only_form():
    named = layer(form=Form.parse("plain-v8"), fixed=True)
    assert allowed_forms(named, named) == [Form.parse("plain-v8")]


def test_layers_without_lookups_or_int8():
    assert allowed_forms(layer(form=INT8), layer(form=FP32)) == [FP32, INT8]
    assert allowed_forms(layer(form=FP32), layer(form=FP32)) == [FP32]


@pytest.mark.parametrize(
    ("form", "size"),
    [("fp32", 4 * 128 * 256), ("int8", 128 * 256), ("gain-v4", 32 * 16 * 256), ("gain-v3", 43 * 16 * 256)],
)
def test_bytes(form, size):
    assert constant_bytes(Form.parse(form), layer()) == size


def test_bytes_of_a_grouped_convolution():
    assert constant_bytes(Form.parse("gain-v4"), layer("conv", (64, 8, 3, 3))) == 64 * 2 * 16 * 9
