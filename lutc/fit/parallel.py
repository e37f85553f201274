"""A tiny thread pool for numpy code that releases the interpreter lock; results never depend on its size.

BLAS gets one thread but for large matrices: those of a small product wait for each other, awake, as long as it takes,
and a fit would take twice the CPU time for nothing.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import scipy.linalg  # noqa: F401  its own BLAS is found only once it is loaded
from threadpoolctl import ThreadpoolController

Item = TypeVar("Item")
Result = TypeVar("Result")

_LARGE = 1024
"""Columns of a matrix from which several threads of BLAS gain time (measured on two cores)."""

_threads = 1


def available_threads() -> int:
    """CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_in_use() -> int:
    """Threads that `use_threads` granted; 1 outside of it."""
    return _threads


@contextmanager
def use_threads(threads: int) -> Iterator[None]:
    """Within the context `parallel_map` uses this many threads, and `blas_threads` grants BLAS as many."""
    global _threads  # noqa: PLW0603
    before, _threads = _threads, threads
    try:
        with _blas(1):
            yield
    finally:
        _threads = before


@contextmanager
def blas_threads(columns: int) -> Iterator[None]:
    """Within the context BLAS has the threads of `use_threads`, if the matrices have so many columns that they help."""
    with _blas(_threads if columns >= _LARGE else 1):
        yield


@contextmanager
def _blas(threads: int) -> Iterator[None]:
    with _controller().limit(limits=threads, user_api="blas"):
        yield


@functools.lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    """Of the BLAS libraries of this process: looking for them takes longer than a small product."""
    return ThreadpoolController()


def parallel_map(function: Callable[[Item], Any], items: Iterable[Item]) -> None:
    """Call `function` for every item, which must write to places of its own."""
    work = list(items)
    if _threads == 1 or len(work) < 2:
        for item in work:
            function(item)
        return
    with ThreadPoolExecutor(_threads) as pool:
        for _ in pool.map(function, work):
            pass


def side_by_side(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """What `function` makes of every item, an item a thread: better than several threads for each, one by one."""
    work, threads = list(items), _threads
    if threads == 1 or len(work) < 2:
        return [function(item) for item in work]
    with use_threads(1), ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, work))
