"""Tables from factors: the function bodies and the kernels of every ISA against plain numpy, to the bit."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lutc import _runtime
from lutc.ir.expand import TableFactors, expand_table, expanded
from lutc.ir.lookup import add_functions

KERNELS = _runtime.kernels


def random_factors(rng, codebooks, entries, width, features, outputs, taps=None, group=1):
    """Factors of `group` times the codebooks and outputs, with features per group; taps make them a convolution's."""
    shape = (outputs * group, features, *taps) if taps else (features, outputs)
    groups = rng.integers(0, features, (codebooks * group, width))
    groups += (np.arange(codebooks * group) // codebooks * features)[:, None]
    groups[rng.random(groups.shape) < 0.2] = -1
    return TableFactors(
        atoms=rng.integers(-128, 128, (codebooks * group, entries, width)).astype(np.int8),
        weight=rng.integers(-128, 128, shape).astype(np.int8),
        groups=groups.astype(np.int32),
        codebook_mul=(10.0 ** rng.uniform(-9, 0, codebooks * group)).astype(np.float32),
        column_mul=(rng.choice([-1, 0, 1, 1, 1], outputs * group) * 10.0 ** rng.uniform(-3, 3, outputs * group)).astype(
            np.float32
        ),
        group=group,
    )


def literal(f):
    """docs/operators.md entry by entry."""
    codebooks, entries, width = f.atoms.shape
    table = np.zeros(f.table_shape, np.int8)
    outputs = len(f.column_mul)
    for c in range(codebooks):
        for k in range(entries):
            for n in range(outputs):
                taps = [()] if not f.convolution else list(np.ndindex(f.weight.shape[2:]))
                own, first = codebooks // f.group, 0
                if f.convolution:
                    first = c // own
                    if n // (outputs // f.group) != first:
                        continue
                for tap in taps:
                    acc = 0
                    for v in range(width):
                        d = f.groups[c, v]
                        if d >= 0:
                            w = f.weight[(n, d - first * f.weight.shape[1], *tap)] if f.convolution else f.weight[d, n]
                            acc += int(f.atoms[c, k, v]) * int(w)
                    value = np.float32(np.float32(acc) * f.codebook_mul[c]) * f.column_mul[n]
                    place = (n, c % own, k, *tap) if f.convolution else (c, k, n)
                    table[place] = np.rint(np.clip(value, -127, 127))
    return table


sizes = st.fixed_dictionaries(
    {
        "codebooks": st.integers(1, 9),
        "entries": st.sampled_from([4, 8, 16]),
        "width": st.one_of(st.integers(1, 5), st.integers(1, 32)),
        "features": st.integers(1, 20),
        "outputs": st.integers(1, 25),
    }
)
taps = st.one_of(st.none(), st.tuples(st.integers(1, 3), st.integers(1, 3)))


def made(rng, shape, taps, group):
    return random_factors(rng, **shape, taps=taps, group=group if taps else 1)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shape=sizes, taps=taps, group=st.integers(1, 3))
def test_numpy_is_the_definition(seed, shape, taps, group):
    factors = made(np.random.default_rng(seed), {**shape, "outputs": min(shape["outputs"], 5)}, taps, group)
    factors.check()
    np.testing.assert_array_equal(expanded(factors), literal(factors))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shape=sizes, taps=taps, group=st.integers(1, 3))
def test_bodies_are_the_definition(seed, shape, taps, group):
    factors = made(np.random.default_rng(seed), shape, taps, group)
    node = expand_table(factors, name="e")
    graph = ir.Graph([], node.outputs, nodes=[node], initializers=node.inputs, opset_imports={"": 23}, name="g")
    model = ir.Model(graph, ir_version=10)
    add_functions(model)
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    np.testing.assert_array_equal(session.run(None, {})[0], expanded(factors))


def by_kernels(isa, layout, f, threads=1):
    codebooks, entries, _ = f.atoms.shape
    taps = int(np.prod(f.weight.shape[2:])) if f.convolution else 1
    size = KERNELS.table_bytes(layout, codebooks // f.group, entries, len(f.column_mul), taps)
    guarded = np.full(size + 128, 99, np.uint8)
    arrays = f.arrays().values()
    KERNELS.expand_table(isa, *arrays, layout=layout, group=f.group, threads=threads, table=guarded[64 : 64 + size])
    assert (guarded[:64] == 99).all() and (guarded[64 + size :] == 99).all()
    return guarded[64 : 64 + size]


@pytest.mark.parametrize("isa", KERNELS.isas())
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=sizes,
    outputs=st.integers(1, 230),
    taps=taps,
    group=st.integers(1, 3),
    threads=st.integers(1, 2),
)
def test_kernels_are_the_definition(isa, seed, shape, outputs, taps, group, threads):
    factors = made(np.random.default_rng(seed), {**shape, "outputs": outputs}, taps, group)
    want = expanded(factors)
    for layout in {*KERNELS.layouts_for(isa), "rows", *([] if taps else ["ckn"])}:
        packed = KERNELS.pack_table(want, layout, factors.group)
        np.testing.assert_array_equal(by_kernels(isa, layout, factors, threads), packed)


def test_limits():
    good = random_factors(np.random.default_rng(0), 2, 4, 3, 6, 5)
    good.check()
    bad = {
        "atoms": good.atoms[:, :3],
        "weight": good.weight.astype(np.int16),
        "groups": np.full_like(good.groups, 6),
        "codebook_mul": np.full(2, np.nan, np.float32),
        "column_mul": np.full(5, 1e20, np.float32),
    }
    for name, array in bad.items():
        with pytest.raises(ValueError, match=name):
            dataclasses.replace(good, **{name: array}).check()
    with pytest.raises(ValueError, match="groups"):
        dataclasses.replace(good, group=2).check()
