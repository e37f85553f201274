"""Fitted linear layers: error falls with narrower groups, refits never harm, projections pay."""

from __future__ import annotations

import numpy as np
import pytest

from lutc.fit import tables
from lutc.fit.linear import fit_linear, run_linear
from lutc.fit.projection import allocate, apply_projection, group_distortion
from lutc.forms import Form
from lutc.ir import reference


def samples(rows=3000, features=48, outputs=40, seed=0):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(features, features)) * np.exp(-np.arange(features) / 12)[:, None]
    x = rng.normal(size=(rows, features)) @ mixing + rng.normal(size=features)
    weight = rng.normal(size=(features, outputs))
    return x.astype(np.float32), (x @ weight + 3).astype(np.float32), weight.astype(np.float32)


def error(layer, x, y):
    return float(((run_linear(x, layer) - y) ** 2).sum() / ((y - y.mean(axis=0)) ** 2).sum())


@pytest.fixture(scope="module")
def data():
    x, y, weight = samples(5000)
    return x[:4000], y[:4000], weight, x[4000:], y[4000:]


def fit_error(data, text):
    x, y, weight, x_test, y_test = data
    layer = fit_linear(x, y, weight, Form.parse(text), seed=0)
    layer.lookup.check()
    return layer, error(layer, x_test, y_test)


def test_error_grows_with_the_group_size(data):
    errors = [fit_error(data, f"gain-v{width}")[1] for width in (2, 3, 4, 6, 8, 12)]
    assert errors == sorted(errors)
    assert errors[0] < 0.005
    plain = [fit_error(data, f"plain-v{width}")[1] for width in (2, 4, 8)]
    assert plain == sorted(plain)
    assert all(gain < other for gain, other in zip((errors[0], errors[2], errors[4]), plain, strict=True))


def test_fewer_entries_cost_error(data):
    errors = [fit_error(data, f"gain-v3k{entries}")[1] for entries in (16, 8, 4)]
    assert errors == sorted(errors)


def test_reported_error_is_honest(data):
    layer, measured = fit_error(data, "gain-v4")
    assert abs(layer.error - measured) < 0.3 * measured


def test_projection_beats_none_and_obeys_its_limits(data):
    _, none = fit_error(data, "gain-v4")
    layer, full = fit_error(data, "gain-v4-proj")
    layer.projection.check()
    assert full < none
    assert layer.lookup.codebooks <= 12
    block_layer, _ = fit_error(data, "gain-v4-block16")
    block_layer.projection.check()
    assert len(block_layer.projection.blocks) == 6
    x = data[3][:20]
    np.testing.assert_array_equal(apply_projection(x, layer.projection), reference.project(x, layer.projection))
    # Only the last multiply-add may be rounded differently.
    expected = reference.lut_linear(reference.project(x, layer.projection), layer.lookup)
    np.testing.assert_allclose(run_linear(x, layer), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("rows", [60, 400, 3000])
@pytest.mark.parametrize("free", [True, False])
def test_refits_are_never_worse_on_held_out_rows(rows, free):
    rng = np.random.default_rng(rows)
    a = rng.normal(size=(rows, 30)).astype(np.float32)
    start = rng.normal(size=(30, 8))
    y = (a @ start + rng.normal(size=(rows, 8)) * 5).astype(np.float32)
    cut = rows * 5 // 6
    train = tables.Moments.collect([(a[:cut], y[:cut])], 30, 8)
    held_out = tables.Moments.collect([(a[cut:], y[cut:])], 30, 8)
    fitted = tables.fit_table(train, held_out, np.eye(30, dtype=np.float32), start, free=free)
    analytic = held_out.centred().error(start).sum() / held_out.centred().yy.sum()
    assert fitted.error <= analytic + 1e-6


def test_moments_do_not_depend_on_chunks():
    rng = np.random.default_rng(0)
    a, y = rng.normal(size=(900, 5)).astype(np.float32), rng.normal(size=(900, 3)).astype(np.float32)
    whole = tables.Moments.collect([(a, y)], 5, 3)
    parts = tables.Moments.collect([(a[s : s + 100], y[s : s + 100]) for s in range(0, 900, 100)], 5, 3)
    np.testing.assert_allclose(whole.aa, parts.aa, rtol=1e-4)
    weights = rng.normal(size=(5, 3))
    residual = (a @ weights - y) - (a @ weights - y).mean(axis=0)
    np.testing.assert_allclose(whole.centred().error(weights), (residual**2).sum(axis=0), rtol=1e-3)


def test_round_table_clips_only_where_it_pays():
    table = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
    integers, scale = tables.round_table(table, np.ones(64))
    assert np.abs(integers * scale - table).max() < np.abs(table).max() / 60
    zeros, scale = tables.round_table(np.zeros((4, 2), np.float32), np.ones(4))
    assert not zeros.any()
    assert not scale.any()


@pytest.mark.parametrize("rows", [1, 2, 20])
def test_very_few_rows_still_fit(rows):
    x, y, weight = samples(rows)
    layer = fit_linear(x, y, weight, Form.parse("gain-v3"), seed=0)
    layer.lookup.check()
    assert np.isfinite(run_linear(x, layer)).all()


def test_constant_inputs_still_fit():
    x = np.ones((50, 12), np.float32)
    weight = np.ones((12, 40), np.float32)
    layer = fit_linear(x, x @ weight, weight, Form.parse("gain-v3"), seed=0)
    layer.lookup.check()
    np.testing.assert_allclose(run_linear(x, layer), x @ weight, rtol=1e-5)


def test_bits_go_where_the_variance_is():
    variances = np.array([100.0, 50, 20, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.1, 0.1])
    sizes = allocate(variances, 5, Form.parse("gain-v4-proj"))
    assert len(sizes) <= 5
    assert sizes == sorted(sizes)
    assert group_distortion(np.ones(4), 0.2) == pytest.approx(0.8)
    assert group_distortion(np.array([1.0, 0.0]), 0.5) == pytest.approx(0.25)


@pytest.mark.parametrize(("form", "exact"), [("gain-v3", True), ("gain-v3-proj", True), ("plain-v4", False)])
def test_factors_make_the_table(data, form, exact):
    x, y, weight, *_ = data
    layer = fit_linear(x, y, weight, Form.parse(form), seed=0)
    parameters, factors = layer.lookup, layer.factors
    padded = np.concatenate([factors.weight, np.zeros((1, factors.weight.shape[1]), np.float32)])
    table = np.matmul(factors.atoms, padded[parameters.groups])
    gap = np.abs(np.clip(table / parameters.scale, -127, 127) - parameters.table)
    assert factors.exact == exact
    assert (gap.max() <= 0.51) == exact
