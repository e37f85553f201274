# ruff: noqa: E402
"""Encodes in PyTorch: the integers of the specification, and gradients that finite differences confirm."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lutc.fit.encode import encode_rows
from lutc.fit.linear import Factors
from lutc.ir.parameters import LookupParameters
from lutc.learn import native
from lutc.learn.encode import Grouping, best_entries, gain_shape, quantise, soft_plain
from lutc.learn.layers import LookupLayer


def parameters(rng, features, width, entries, limit):
    codebooks = -(-features // width)
    groups = np.full(codebooks * width, -1, np.int32)
    groups[:features] = rng.permutation(features)
    groups = groups.reshape(codebooks, width)
    directions = rng.integers(-127, 128, (codebooks, entries, width)).astype(np.int8)
    directions[np.broadcast_to((groups < 0)[:, None], directions.shape)] = 0
    return LookupParameters(
        offset=rng.normal(size=features).astype(np.float32),
        inv_scale=rng.uniform(20, 60, features).astype(np.float32),
        groups=groups,
        directions=directions,
        code_bias=np.zeros((codebooks, entries), np.int32)
        if limit
        else rng.integers(-9000, 0, (codebooks, entries)).astype(np.int32),
        gain_mul=rng.uniform(1e-3, 4e-3, codebooks).astype(np.float32),
        table=np.zeros((codebooks, entries, 1), np.int8),
        scale=np.ones(1, np.float32),
        bias=np.zeros(1, np.float32),
        gain_limit=limit,
    )


@pytest.mark.parametrize("limit", [0, 15, 63])
@pytest.mark.parametrize(("features", "width", "entries"), [(12, 4, 16), (13, 3, 8), (7, 5, 4)])
def test_codes_and_gains_are_those_of_the_specification(features, width, entries, limit):
    rng = np.random.default_rng(features + limit)
    p = parameters(rng, features, width, entries, limit)
    x = rng.normal(size=(301, features)).astype(np.float32) * 2
    x[7] = x[8] = 0  # ties
    codes, gains = encode_rows(x, p)
    rows = torch.from_numpy(x.T.copy())[None]
    q = quantise(rows, torch.from_numpy(p.offset)[:, None], torch.from_numpy(p.inv_scale)[:, None])
    parts = Grouping(torch.from_numpy(p.groups.astype(np.int64)), features).split(q)
    bias = None if limit else torch.from_numpy(p.code_bias.astype(np.float32))
    found, score = best_entries(parts, torch.from_numpy(p.directions.astype(np.float32)), bias)
    np.testing.assert_array_equal(found[0].numpy(), codes)
    if limit:
        raw = (score * torch.from_numpy(p.gain_mul)[:, None]).clamp(-limit, limit).round()
        np.testing.assert_array_equal(raw[0].numpy(), gains)


def test_split_and_join_are_transposes():
    rng = np.random.default_rng(0)
    groups = torch.tensor([[0, 3, 1], [3, 2, -1]])  # feature 3 twice, feature 4 never
    grouping = Grouping(groups, 5)
    x, parts = (torch.from_numpy(rng.normal(size=s)) for s in ((2, 5, 7), (2, 2, 3, 7)))
    assert torch.allclose((grouping.split(x) * parts).sum(), (x * grouping.join(parts)).sum())
    assert torch.equal(grouping.split(x)[:, 1, 2], torch.zeros(2, 7, dtype=torch.float64))


def test_gain_gradients_equal_finite_differences():
    """Gains so fine that rounding is no more than noise: then the layer is piecewise linear in everything."""
    rng = np.random.default_rng(1)
    q = torch.from_numpy(np.rint(rng.normal(size=(2, 3, 4, 50)) * 40).astype(np.float32))
    directions = torch.from_numpy(rng.integers(-127, 128, (3, 16, 4)).astype(np.float32))
    mul = torch.full((3,), 2.0)
    atoms = torch.from_numpy(rng.normal(size=(3, 16, 4)).astype(np.float32))
    weight = torch.from_numpy(rng.normal(size=q.shape).astype(np.float32))
    inputs = [q, directions, mul, atoms]
    for each in inputs:
        each.requires_grad_()

    def total(*values):
        return (gain_shape(*values, 1 << 20) * weight).double().sum()

    gradients = torch.autograd.grad(total(*inputs), inputs)
    for place, (value, gradient) in enumerate(zip(inputs, gradients, strict=True)):
        step = torch.zeros_like(value)
        index = tuple(int(rng.integers(size)) for size in value.shape)
        step[index] = 1.0 if place < 2 else 0.5  # integers stay integers
        moved = [list(inputs), list(inputs)]
        moved[0][place], moved[1][place] = value + step, value - step
        with torch.no_grad():
            codes = [best_entries(m[0], m[1], None)[0] for m in moved]
            if not torch.equal(*codes):
                continue  # a code changed: a jump, of which the gradient knows nothing
            slope = (total(*moved[0]) - total(*moved[1])) / (2 * step[index])
        torch.testing.assert_close(float(slope), float(gradient[index]), rtol=0.02, atol=0.5)


@pytest.mark.parametrize(("features", "width", "entries"), [(16, 4, 16), (13, 3, 8), (7, 5, 4), (24, 8, 16), (9, 9, 5)])
@pytest.mark.parametrize(("batch", "positions"), [(1, 1), (3, 70), (2, 64)])
@pytest.mark.parametrize("rows", [False, True])
def test_the_runtime_decodes_and_differentiates_alike(features, width, entries, batch, positions, rows):
    rng = np.random.default_rng(features * positions)
    p = parameters(rng, features, width, entries, 15)
    if width == 3:
        p.groups[0, 0] = p.groups[1, 0]  # a feature in two codebooks, another in none
    p.inv_scale[2] = 0
    layer = LookupLayer(p, Factors(rng.normal(size=p.directions.shape).astype(np.float32), np.eye(features), True))
    x = torch.from_numpy(rng.normal(size=(batch, features, positions)).astype(np.float32) * 2)
    if rows:
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    weight = torch.from_numpy(rng.normal(size=x.shape).astype(np.float32))
    found = []
    for there in (True, False):
        layer.zero_grad()
        x = x.detach().requires_grad_()
        if there:
            assert native.supported(x, layer.directions)
            y = layer.decode(x)
        else:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(native, "supported", lambda *_: False)
                y = layer.decode(x)
        y.backward(weight)
        found.append([y.detach(), x.grad, layer.directions.grad, layer.atoms.grad])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()) + 1e-12)


def test_the_runtime_survives_infinities():
    rng = np.random.default_rng(0)
    p = parameters(rng, 8, 4, 16, 15)
    layer = LookupLayer(p, Factors(rng.normal(size=p.directions.shape).astype(np.float32), np.eye(8), True))
    x = torch.full((1, 8, 65), float("nan"))
    x[0, :, ::2] = float("inf")
    assert layer.decode(x).shape == x.shape


def test_clipped_gains_and_inputs_pass_no_gradient():
    q = torch.full((1, 1, 2, 1), 100.0, requires_grad=True)
    directions = torch.tensor([[[127.0, 0], [0, 1], [1, 1], [2, 1]]])
    y = gain_shape(q, directions, torch.tensor([1.0]), torch.ones(1, 4, 2), 15)
    assert torch.equal(y, torch.full_like(y, 15))
    y.sum().backward()
    assert not q.grad.any()
    x = torch.tensor([[500.0], [1.0]], requires_grad=True)
    quantise(x, torch.zeros(2, 1), torch.ones(2, 1)).sum().backward()
    assert x.grad.tolist() == [[0.0], [1.0]]


def test_soft_gradients_are_those_of_the_softmax():
    rng = np.random.default_rng(2)
    q = torch.from_numpy(np.rint(rng.normal(size=(2, 3, 4, 20)) * 40)).requires_grad_()
    directions = torch.from_numpy(rng.integers(-127, 128, (3, 8, 4)).astype(np.float64)).requires_grad_()
    bias = torch.from_numpy(rng.integers(-9000, 0, (3, 8)).astype(np.float64)).requires_grad_()
    atoms = torch.from_numpy(rng.normal(size=(3, 8, 4))).requires_grad_()
    sharpness = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    unit = torch.full((3,), 1e-4, dtype=torch.float64)
    weight = torch.from_numpy(rng.normal(size=q.shape))
    hard, soft = soft_plain(q, directions, bias, sharpness, unit, atoms)
    inputs = [q, directions, bias, sharpness, atoms]
    found = torch.autograd.grad((hard * weight).sum(), inputs)
    score = (torch.matmul(directions, q) + bias[..., None]) * unit[:, None, None] * sharpness
    by_hand = torch.matmul(atoms.transpose(1, 2), torch.softmax(score, dim=2))
    torch.testing.assert_close(by_hand, soft)
    expected = torch.autograd.grad((by_hand * weight).sum(), inputs)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
