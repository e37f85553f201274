"""A tiny thread pool for numpy code that releases the interpreter lock; results never depend on its size."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")

_threads = 1


def available_threads() -> int:
    """CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_in_use() -> int:
    """Threads that `use_threads` granted; 1 outside of it."""
    return _threads


@contextmanager
def use_threads(threads: int) -> Any:
    """Within the context `parallel_map` and BLAS use this many threads (BLAS only where threadpoolctl is installed)."""
    global _threads  # noqa: PLW0603
    before, _threads = _threads, threads
    try:
        from threadpoolctl import threadpool_limits

        limits = threadpool_limits(threads, user_api="blas")
    except ImportError:
        limits = None
    try:
        yield
    finally:
        _threads = before
        if limits is not None:
            limits.restore_original_limits()


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
