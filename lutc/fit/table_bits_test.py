"""Tables of fewer bits: chosen where they are free, kept wherever a table is made or made again."""

from __future__ import annotations

import numpy as np
import pytest

from lutc import _runtime
from lutc.build import Builder
from lutc.fit.checkpoint import Checkpoints
from lutc.fit.conv import Geometry, fit_conv
from lutc.fit.convolve import Convolution, dense_convolution
from lutc.fit.factored import round_factors
from lutc.fit.linear import fit_linear, run_linear
from lutc.fit.table_bits import LARGEST, as_fitted, choose_limit
from lutc.fit.tables import round_table, rounding_noise
from lutc.forms import Form
from lutc.ir.expand import expanded

RNG = np.random.default_rng(0)
KERNELS = _runtime.kernels


def rows(count, features, outputs):
    x = (RNG.normal(size=(count, 8)) @ RNG.normal(size=(8, features)) + RNG.normal(size=(count, features))).astype("f4")
    weight = (RNG.normal(size=(features, outputs)) * features**-0.5).astype(np.float32)
    return x, weight, (x @ weight + 3).astype(np.float32)


def largest(table):
    return int(np.abs(table.astype(int)).max())


def error(got, want):
    return float(((got - want) ** 2).sum() / ((want - want.mean()) ** 2).sum())


@pytest.mark.parametrize(("noise", "limit"), [((1, 1.0, 10.9), 31), ((1, 2.0, 11.1), 63), ((1, 11.1, 20), 127)])
def test_the_fewest_bits_that_are_free(noise, limit):
    made = dict(zip((127, 63, 31), noise, strict=True))
    form = Form.parse("gain-v4")
    assert choose_limit(form, 1000, made.__getitem__, narrow=True) == limit
    assert choose_limit(form, 1000, made.__getitem__, narrow=False) == 127
    assert choose_limit(Form.parse("plain-v4"), 1000, made.__getitem__, narrow=True) == 127
    for bits, named in LARGEST.items():
        assert choose_limit(Form.parse(f"gain-v4t{bits}"), 1000, made.__getitem__, narrow=True) == named
    assert str(as_fitted(form, limit)) == {127: "gain-v4", 63: "gain-v4t7", 31: "gain-v4t6"}[limit]


def test_noise_is_what_rounding_adds():
    table, usage = RNG.normal(size=(64, 9)).astype(np.float32), RNG.uniform(0.1, 2, 64)
    gains = RNG.normal(size=(20000, 64)) * np.sqrt(usage)
    for limit in LARGEST.values():
        integers, scale = round_table(table, usage, limit)
        assert largest(integers) == limit
        added = ((gains @ (integers * scale - table)) ** 2).sum() / len(gains)
        assert rounding_noise(table, usage, limit) == pytest.approx(added, rel=0.05)


@pytest.mark.parametrize("size", ["small", "fast"])
@pytest.mark.parametrize("bits", [7, 6])
def test_a_form_names_its_bits(size, bits):
    x, weight, y = rows(3000, 30, 44)
    eight, fewer = (fit_linear(x, y, weight, Form.parse(f"gain-v4t{n}"), seed=0, size=size) for n in (8, bits))
    assert (largest(eight.lookup.table), largest(fewer.lookup.table)) == (127, LARGEST[bits])
    assert fewer.factors.limit == LARGEST[bits]
    assert error(run_linear(x, fewer), y) < 1.02 * error(run_linear(x, eight), y)
    if fewer.expand is not None:
        np.testing.assert_array_equal(fewer.lookup.table, expanded(fewer.expand))


@pytest.mark.parametrize(("form", "bits"), [("gain-v2", 8), ("gain-v10", 6), ("gain-v10t8", 8), ("plain-v4", 8)])
def test_targets_that_want_them_get_fewer_bits_where_free(form, bits):
    x, weight, y = rows(3000, 30, 44)
    layer = fit_linear(x, y, weight, Form.parse(form), seed=0, narrow=True)
    assert largest(layer.lookup.table) == layer.factors.limit == LARGEST[bits]
    assert largest(fit_linear(x, y, weight, Form.parse(form), seed=0).lookup.table) == 127


@pytest.mark.parametrize("size", ["small", "fast"])
def test_convolutions(size):
    images = [RNG.normal(size=(4, 16, 9, 9)).astype(np.float32) for _ in range(3)]
    weight = (RNG.normal(size=(12, 8, 3, 3)) * 0.1).astype(np.float32)
    geometry = Geometry((3, 3), pads=(1, 1, 1, 1), group=2)
    targets = [dense_convolution(weight, None, geometry)(x) for x in images]
    errors = []
    for text, limit in (("gain-v4t8", 127), ("gain-v4t7", 63)):
        layer = fit_conv(images, targets, weight, geometry, Form.parse(text), seed=0, size=size)
        assert largest(layer.lookup.table) == limit
        errors.append(error(np.concatenate([Convolution(layer.lookup)(x) for x in images]), np.concatenate(targets)))
    assert errors[1] < 1.01 * errors[0]
    narrow = fit_conv(images, targets, weight, geometry, Form.parse("gain-v8"), seed=0, size=size, narrow=True)
    assert largest(narrow.lookup.table) < 127


@pytest.mark.parametrize("isa", KERNELS.isas())
@pytest.mark.parametrize("limit", [63, 31])
def test_factors_make_no_larger_entry_on_any_isa(isa, limit):
    groups = np.arange(33, dtype=np.int32).reshape(11, 3)
    atoms, weight = (RNG.standard_t(2, shape).astype(np.float32) for shape in ((11, 16, 3), (33, 101)))
    factors = round_factors(atoms, weight, groups, RNG.uniform(0.1, 1, (1, 176)), limit=limit).factors
    table = np.empty(11 * 16 * 101, np.uint8)
    KERNELS.expand_table(isa, *factors.arrays().values(), layout="ckn", group=1, threads=1, table=table)
    np.testing.assert_array_equal(table.view(np.int8).reshape(11, 16, 101), expanded(factors))
    np.testing.assert_array_equal(np.abs(expanded(factors).astype(int)).max(axis=(0, 1)), limit)  # of every column


def test_checkpoints_keep_the_limit(tmp_path):
    x, weight, y = rows(400, 9, 12)
    checkpoints = Checkpoints(tmp_path, "key", ["a"])
    checkpoints.save(0, fit_linear(x, y, weight, Form.parse("gain-v3t7"), seed=0))
    loaded = checkpoints.load(0)
    assert loaded is not None and loaded.factors.limit == 63


def test_builders_ask_for_them_by_target(monkeypatch):
    asked = {}
    monkeypatch.setattr("lutc.build.fit_model", lambda *_, narrow, **__: asked.update({target: narrow}))
    for target in ("x86-64-v3", "x86-64-v4", "aarch64", "scalar"):
        Builder(None, target).fit([], None)  # type: ignore[arg-type]
    assert asked == {"x86-64-v3": True, "x86-64-v4": False, "aarch64": False, "scalar": False}
