"""Small batches on the canonical table: whole table rows, at widths around the kernels' blocks."""

from __future__ import annotations

import numpy as np
import pytest

from tests.lookup_test import ISAS, make_layer, reference_linear, run_linear


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("gain_limit", [0, 63, 127])
@pytest.mark.parametrize("n", [1, 63, 64, 65, 300, 4096, 4101, 8300])
def test_widths(isa, gain_limit, n):
    rng = np.random.default_rng(n)
    for c in (1, 7, 8, 9, 33):
        layer = make_layer(rng, 4 * c, [4] * c, 16, n, gain_limit)
        x = rng.normal(size=(3, 4 * c)).astype(np.float32)
        expected = reference_linear(layer, x).astype(np.float32)
        for threads in (1, 2):
            assert np.array_equal(run_linear(isa, layer, x, "ckn", threads=threads), expected)
