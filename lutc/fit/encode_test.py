"""The fast encode and lookups against the reference, bit for bit."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lutc.fit.convolve import Convolution
from lutc.fit.encode import encode_rows, lookup_linear, lookup_linear_numpy
from lutc.fit.encoder import fit_encoder, pad_groups
from lutc.fit.parallel import use_threads
from lutc.forms import Form
from lutc.ir import ConvParameters, LookupParameters, reference


def fitted_parameters(rng, x, form, sizes, outputs):
    features = x.shape[1]
    groups = pad_groups(np.split(rng.permutation(features), np.cumsum(sizes)[:-1]))
    root = rng.normal(size=(features, features))
    offset = x.mean(axis=0)
    encoder = fit_encoder(x, root @ root.T, groups, form, offset=offset, seed=0)
    return LookupParameters(
        **encoder.constants(),
        table=rng.integers(-127, 128, (len(sizes), form.entries, outputs)).astype(np.int8),
        scale=np.ones(outputs, np.float32),
        bias=np.zeros(outputs, np.float32),
    )


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(0, 90),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    entries=st.sampled_from([4, 8, 16]),
    gain_limit=st.sampled_from([0, 15, 127]),
)
def test_encode_and_lookup_equal_the_reference(seed, rows, sizes, entries, gain_limit):
    rng = np.random.default_rng(seed)
    form = Form("gain" if gain_limit else "plain", 4, entries, gain_limit)
    x = rng.normal(size=(60, sum(sizes))).astype(np.float32)
    p = fitted_parameters(rng, x, form, sizes, 7)
    p.check()
    x = (rng.normal(size=(rows, sum(sizes))) * 1.5).astype(np.float32)
    codes, gains = encode_rows(x, p)
    expected = reference.encode(reference.quantise(x, p.offset, p.inv_scale), p)
    np.testing.assert_array_equal(codes.T, expected[0])
    np.testing.assert_array_equal(gains.T, expected[1])
    np.testing.assert_array_equal(lookup_linear_numpy(x, p), reference.lut_linear(x, p))
    np.testing.assert_array_equal(lookup_linear(x, p), reference.lut_linear(x, p))


def test_ties_go_to_the_lowest_entry():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 6)).astype(np.float32)
    for limit in (0, 63):
        p = fitted_parameters(rng, x, Form("gain" if limit else "plain", 3, 16, limit), [3, 3], 4)
        directions = p.directions.copy()
        directions[:, 8:] = directions[:, :8]
        bias = p.code_bias.copy()
        bias[:, 8:] = bias[:, :8]
        codes, _ = encode_rows(x, dataclasses.replace(p, directions=directions, code_bias=bias))
        assert codes.max() < 8


def test_wide_layers_sum_exactly():
    rng = np.random.default_rng(0)
    codebooks = 2200  # 2200 * 63 * 127 is above 2^24
    x = np.full((3, codebooks), 100, np.float32)
    p = LookupParameters(
        offset=np.zeros(codebooks, np.float32),
        inv_scale=np.ones(codebooks, np.float32),
        groups=np.arange(codebooks, dtype=np.int32)[:, None],
        directions=rng.integers(1, 127, (codebooks, 4, 1)).astype(np.int8),
        code_bias=np.zeros((codebooks, 4), np.int32),
        gain_mul=np.ones(codebooks, np.float32),
        table=rng.integers(120, 128, (codebooks, 4, 5)).astype(np.int8),
        scale=np.ones(5, np.float32),
        bias=np.zeros(5, np.float32),
        gain_limit=63,
    )
    np.testing.assert_array_equal(lookup_linear_numpy(x, p), reference.lut_linear(x, p))
    np.testing.assert_array_equal(lookup_linear(x, p), reference.lut_linear(x, p))


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    strides=st.sampled_from([(1, 1), (2, 1)]),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    group=st.sampled_from([1, 2]),
)
def test_convolution_equals_the_reference(seed, strides, pads, group):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(80, 8)).astype(np.float32)
    sizes = [2, 2] * 2
    p = fitted_parameters(rng, rows, Form("gain", 2, 16, 63), sizes, 4)
    groups = np.arange(8, dtype=np.int32).reshape(4, 2)
    conv = ConvParameters(
        **{
            **p.arrays(),
            "groups": groups,
            "offset": np.zeros(8, np.float32),
            "table": rng.integers(-127, 128, (4, 4 // group, 16, 3, 2)).astype(np.int8),
        },
        gain_limit=63,
        kernel_shape=(3, 2),
        strides=strides,
        pads=pads,
        group=group,
    )
    x = rng.normal(size=(2, 8, 6, 7)).astype(np.float32)
    np.testing.assert_array_equal(Convolution(conv).portable(x), reference.lut_conv(x, conv))
    np.testing.assert_array_equal(Convolution(conv)(x), reference.lut_conv(x, conv))


def test_threads_change_nothing():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5000, 12)).astype(np.float32)
    p = fitted_parameters(rng, x[:500], Form.parse("gain-v3"), [3] * 4, 4)
    one = encode_rows(x, p)
    with use_threads(2):
        two = encode_rows(x, p)
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])
