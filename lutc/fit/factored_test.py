"""Rounded factors make nearly the table that was fitted; what is stored is what was measured."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lutc.errors import UsageError
from lutc.fit.checkpoint import Checkpoints
from lutc.fit.conv import Geometry, fit_conv
from lutc.fit.convolve import Convolution, dense_convolution
from lutc.fit.factored import check_size, round_factors, stays_tied
from lutc.fit.linear import fit_linear, run_linear
from lutc.fit.tables import FittedTable
from lutc.forms import Form
from lutc.ir.expand import expanded

RNG = np.random.default_rng(0)


def relative_error(got, want):
    return float(((got - want) ** 2).sum() / (want**2).sum())


def random_parts(codebooks, entries, width, features, shape, group=1):
    atoms = RNG.normal(size=(codebooks, entries, width)).astype(np.float32)
    groups = np.arange(codebooks * width).reshape(codebooks, width).astype(np.int32)
    groups[groups >= features] = -1
    atoms[np.broadcast_to((groups < 0)[:, None], atoms.shape)] = 0
    weight = RNG.normal(size=shape).astype(np.float32)
    usage = RNG.uniform(0.1, 1, (group, codebooks // group * entries * int(np.prod(shape[2:])))) + 0.0
    return atoms, weight, groups, usage


def test_a_linear_table():
    atoms, weight, groups, usage = random_parts(11, 16, 3, 32, (32, 40))
    weight[:, 7] = 0  # a dead column
    weight[5] = 0  # and a dead feature
    # Features and columns of very different size, balanced in the product.
    spread = 10.0 ** RNG.uniform(-2, 2, 33).astype(np.float32)
    made = round_factors(atoms / spread[groups][:, None], weight * spread[:32, None] * 1e3, groups, usage)
    padded = np.concatenate([weight * 1e3, np.zeros((1, 40), np.float32)])
    want = np.einsum("ckv,cvn->ckn", atoms, padded[groups])
    assert relative_error(made.table * made.scale, want) < 1e-3
    assert made.scale[7] == 0 and not made.table[..., 7].any()
    np.testing.assert_array_equal(made.table, expanded(made.factors))
    made.factors.check()


def test_a_grouped_convolution():
    atoms, weight, groups, usage = random_parts(6, 8, 4, 24, (10, 12, 3, 2), group=2)
    made = round_factors(atoms, weight, groups, usage, group=2)
    want = np.zeros((10, 3, 8, 3, 2), np.float32)
    for n in range(10):
        for c in range(3):
            book = n // 5 * 3 + c
            want[n, c] = np.einsum("kv,vij->kij", atoms[book], weight[n, groups[book] - n // 5 * 12])
    assert relative_error(made.table * made.scale[:, None, None, None, None], want) < 1e-3
    np.testing.assert_array_equal(made.table, expanded(made.factors))


def rows(count, features, outputs):
    x = (RNG.normal(size=(count, 8)) @ RNG.normal(size=(8, features)) + RNG.normal(size=(count, features))).astype("f4")
    weight = (RNG.normal(size=(features, outputs)) * features**-0.5).astype(np.float32)
    return x, weight, (x @ weight + 3).astype(np.float32)


@pytest.mark.parametrize("form", ["gain-v3", "gain-v4", "plain-v2", "gain-v4-proj", "gain-v6k8-g15"])
def test_small_linears_answer_like_fast_ones(form):
    x, weight, y = rows(3000, 30, 44)
    small, fast = (fit_linear(x, y, weight, Form.parse(form), seed=0, size=size) for size in ("small", "fast"))
    assert fast.expand is None and small.expand is not None and small.factors.exact
    np.testing.assert_array_equal(small.lookup.table, expanded(small.expand))
    variance = ((y - y.mean(0)) ** 2).sum()
    errors = [((run_linear(x, layer) - y) ** 2).sum() / variance for layer in (small, fast)]
    # A tied table of a plain code gives up what single entries would regain.
    assert errors[0] < errors[1] * (1.6 if form == "plain-v2" else 1.1) + 1e-4
    np.testing.assert_allclose(run_linear(x, small).mean(0), y.mean(0), atol=1e-3)  # the bias knows the rounding


def test_small_convolutions():
    images = [RNG.normal(size=(6, 16, 9, 9)).astype(np.float32) for _ in range(4)]
    weight = (RNG.normal(size=(12, 8, 3, 3)) * 0.1).astype(np.float32)
    geometry = Geometry((3, 3), pads=(1, 1, 1, 1), group=2)
    targets = [dense_convolution(weight, None, geometry)(x) for x in images]
    errors = []
    for size in ("small", "fast"):
        layer = fit_conv(images, targets, weight, geometry, Form.parse("gain-v4"), seed=0, size=size)
        got = np.concatenate([Convolution(layer.lookup)(x) for x in images])
        want = np.concatenate(targets)
        errors.append(((got - want) ** 2).sum() / ((want - want.mean()) ** 2).sum())
        assert (layer.expand is not None) == (size == "small")
        if layer.expand is not None:
            np.testing.assert_array_equal(layer.lookup.table, expanded(layer.expand))
    assert errors[0] < errors[1] * 1.3


def fitted(error, tied_error):
    return FittedTable(np.zeros(0, np.float32), error, 0.0, np.zeros(0, np.float32), tied_error)


def test_auto_decides_on_held_out_rows():
    sizes = {"factors": 10, "table": 20}
    assert stays_tied("auto", fitted(1.0, 1.0), free=False, **sizes)
    assert stays_tied("auto", fitted(1.0, 1.005), free=True, **sizes)
    assert not stays_tied("auto", fitted(1.0, 1.05), free=True, **sizes)
    assert not stays_tied("auto", fitted(1.0, 0.9), free=True, factors=20, table=20)
    assert stays_tied("small", fitted(1.0, 2.0), free=False, factors=30, table=20)
    assert not stays_tied("fast", fitted(1.0, 1.0), free=False, **sizes)
    with pytest.raises(UsageError, match="--size 'tiny'"):
        check_size("tiny")


def test_checkpoints_keep_factors(tmp_path):
    x, weight, y = rows(400, 9, 12)
    layer = fit_linear(x, y, weight, Form.parse("gain-v3"), seed=0, size="small")
    checkpoints = Checkpoints(tmp_path, "key", ["a"])
    checkpoints.save(0, layer)
    loaded = checkpoints.load(0)
    assert loaded is not None and loaded.expand is not None
    for field in dataclasses.fields(loaded.expand):
        np.testing.assert_array_equal(getattr(loaded.expand, field.name), getattr(layer.expand, field.name))
