# ruff: noqa: E402
"""The baseline: initialised, run, trained and exported as the paper says."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lutc.errors import UsageError
from lutc.fit.lutnn import fit_lutnn
from lutc.fit.session import LookupSession
from lutc.forms import choose_layers
from lutc.learn import learn_model
from lutc.learn.graph import GraphModule
from lutc.learn.graph_test import NETWORKS, distance, run
from lutc.learn.lutnn import LutnnLayer
from lutc.observe import open_source


def initialised(kind, form="plain-v4", samples=192):
    build, make = NETWORKS[kind]
    data, dense = make(samples), build()
    choices = choose_layers(dense, form)
    return build(), fit_lutnn(dense, choices, open_source(data), threads=1), data


@pytest.mark.parametrize("kind", NETWORKS)
def test_module_is_what_the_artifact_computes(kind):
    dense, fitted, data = initialised(kind)
    module = GraphModule(fitted.model, fitted.factors, layer=LutnnLayer)
    reference = LookupSession(dense).run(None, data[0])[0]
    ours, artifact = run(module, data[0]), LookupSession(fitted.model).run(None, data[0])[0]
    assert distance(ours, artifact) < 0.25 * distance(reference, ours)  # int8 inputs and directions lie between them


def test_every_table_has_one_scale():
    _, fitted, _ = initialised("tokens")
    for node in fitted.model.graph:
        if node.op_type == "LutLinear":
            scale, table = node.inputs[8].const_value.numpy(), node.inputs[7].const_value.numpy()
            assert len(np.unique(scale)) == 1 and np.abs(table).max() == 127


@pytest.mark.parametrize("kind", NETWORKS)
def test_training_improves_it(kind):
    dense, fitted, data = initialised(kind)
    result = learn_model(dense, fitted, open_source(data), minutes=0, steps=40, batch=16, threads=1, method="lutnn")
    assert result.kept and result.after < result.before
    assert all(factor.exact for factor in result.factors.values())


def test_other_forms_are_refused():
    with pytest.raises(UsageError, match="plain-v8"):
        initialised("conv", "gain-v4")


def test_gradients_are_soft_and_values_hard():
    _, fitted, _ = initialised("tokens")
    module = GraphModule(fitted.model, fitted.factors, layer=LutnnLayer)
    layer = next(iter(module.lookups.values()))
    x = torch.randn(5, len(layer.parameters_before.offset), requires_grad=True)
    y = layer(x)
    table = layer.table().detach()
    scale = table.abs().amax() / 127
    codebooks, entries, width = layer.atoms.shape
    parts = x.detach().reshape(5, codebooks, 1, width)
    codes = ((parts - layer.atoms.detach()) ** 2).sum(3).argmin(2)
    rounded = ((table / scale).round() * scale).reshape(codebooks, entries, -1)
    by_hand = rounded[torch.arange(codebooks), codes].sum(1) + layer.bias
    torch.testing.assert_close(y, by_hand, rtol=1e-4, atol=1e-4)
    y.sum().backward()
    assert x.grad.abs().sum() > 0 and layer.theta.grad != 0
