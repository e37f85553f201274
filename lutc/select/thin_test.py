"""Thinning: never the ends of a layer's curve, never dense forms, and no more than is needed."""

import numpy as np
import onnx_ir as ir
import pytest

from lutc.canonicalise import canonicalise
from lutc.forms import Form, choose_layers
from lutc.load import load_model
from lutc.select import thin
from lutc.select.candidates import Priced
from lutc.select.network import Network
from tests.small_models import deep_mlp

FORMS = ("fp32", "int8", "gain-v2", "gain-v3", "gain-v4", "gain-v6", "gain-v8", "plain-v8")


@pytest.fixture(scope="module")
def opened():
    model = canonicalise(load_model(deep_mlp(2, 128)))
    layers = {str(choice.node.outputs[0].name): choice for choice in choose_layers(model)}
    network = Network(ir.to_proto(model), layers, 1)
    seconds = dict(zip(FORMS, (9.0, 4.0, 3.5, 2.6, 2.0, 1.5, 1.2, 1.1), strict=True))
    priced = {
        output: (choice, [Priced(Form.parse(form), seconds[form], 0) for form in FORMS])
        for output, choice in layers.items()
    }
    return network, priced, [{"x": np.random.default_rng(0).normal(size=(400, 128)).astype(np.float32)}]


def names(left):
    return [[str(item.form) for item in items] for _, items in left.values()]


def test_nothing_is_left_out_of_what_takes_little(opened):
    network, priced, train = opened
    left, fewer = thin.thinned(network, priced, train)
    assert not fewer
    assert names(left) == [list(FORMS)] * len(priced)


def test_no_more_is_left_out_than_needed(opened, monkeypatch):
    network, priced, train = opened
    rows = thin.layer_rows(network, train)
    work = [
        thin.candidate_units(choice, item.form, count)
        for count, (choice, items) in zip(rows, priced.values(), strict=True)
        for item in items
        if not item.form.dense
    ]
    monkeypatch.setattr(thin, "LONGEST", sum(work) * 0.999)
    left, fewer = thin.thinned(network, priced, train)
    assert fewer
    assert [len(forms) for forms in names(left)] == [len(FORMS) - 1] * len(priced)  # one round
    assert names(priced) == [list(FORMS)] * len(priced)  # what came in stays as it was


def test_dense_forms_and_the_ends_stay(opened, monkeypatch):
    monkeypatch.setattr(thin, "LONGEST", 0.0)
    left, fewer = thin.thinned(*opened)
    assert fewer
    assert names(left) == [["fp32", "int8", "gain-v2", "plain-v8"]] * len(opened[1])
