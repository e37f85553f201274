"""Threads are granted, taken back, and never change what comes out."""

from __future__ import annotations

import pytest
from threadpoolctl import threadpool_info

from lutc.fit.parallel import blas_threads, parallel_map, side_by_side, threads_in_use, use_threads


def blas() -> set[int]:
    """Threads of numpy's and scipy's BLAS; others may have been loaded by other tests."""
    ours = [library for library in threadpool_info() if any(name in library["filepath"] for name in ("numpy", "scipy"))]
    return {library["num_threads"] for library in ours if library["user_api"] == "blas"}


def test_blas_gets_several_threads_for_large_matrices_only():
    before = blas()
    with use_threads(2):
        assert blas() == {1}
        with blas_threads(100):
            assert blas() == {1}
        with blas_threads(4096):
            assert blas() == {2}
        assert blas() == {1}
    assert blas() == before


@pytest.mark.parametrize("threads", [1, 3])
def test_side_by_side_keeps_the_order_and_is_alone_inside(threads):
    with use_threads(threads):
        assert side_by_side(lambda i: (i, threads_in_use()), range(7)) == [(i, 1) for i in range(7)]
        assert threads_in_use() == threads


def test_an_error_in_a_thread_is_raised():
    def fail(item: int) -> None:
        raise ValueError(item)

    with use_threads(2):
        for run in (parallel_map, side_by_side):
            with pytest.raises(ValueError, match="0"):
                run(fail, range(3))
        assert threads_in_use() == 2
