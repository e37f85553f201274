"""Some layers of a compressed model are the original's again."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

pytest.importorskip("torch")

from lutc._ort import ort_session
from lutc.fit.session import LookupSession
from lutc.forms import choose_layers
from lutc.ir.graph import LUTC_DOMAIN, is_op
from lutc.learn.dense_again import dense_again
from lutc.learn.graph_test import compressed


def lookups(model: ir.Model) -> set[str]:
    return {str(n.outputs[0].name) for n in model.graph if is_op(n, "LutLinear", "LutConv", domain=LUTC_DOMAIN)}


def outputs(model: ir.Model, feeds):
    return LookupSession(model).run(None, feeds)[0]


@pytest.mark.parametrize(("kind", "form"), [("conv", "gain-v4"), ("tokens", "gain-v4"), ("tokens", "gain-v4-proj")])
def test_all_layers_back_is_the_original(kind, form):
    dense, fitted, data = compressed(kind, form)
    choices = [c for c in choose_layers(dense, form) if not c.form.dense]
    back = dense_again(fitted, dense, choices)
    assert not lookups(back.model) and not back.factors and not back.layers
    expected = ort_session(ir.to_proto(dense).SerializeToString()).run(None, data[0])[0]
    np.testing.assert_allclose(outputs(back.model, data[0]), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["conv", "tokens"])
def test_the_others_keep_what_they_have(kind):
    dense, fitted, data = compressed(kind, "gain-v8")
    choices = [c for c in choose_layers(dense, "gain-v8") if not c.form.dense]
    before = ir.to_proto(fitted.model).SerializeToString(deterministic=True)
    back = dense_again(fitted, dense, choices[:2])
    gone = {str(c.node.outputs[0].name) for c in choices[:2]}
    assert lookups(back.model) == lookups(fitted.model) - gone == set(back.factors)
    assert [layer.name for layer in back.layers] == [c.name for c in choices[2:]]
    expected = ort_session(ir.to_proto(dense).SerializeToString()).run(None, data[0])[0]
    assert (
        0
        < np.square(outputs(back.model, data[0]) - expected).sum()
        < np.square(outputs(fitted.model, data[0]) - expected).sum()
    )
    assert ir.to_proto(fitted.model).SerializeToString(deterministic=True) == before
