"""Inner products of many rows with many rows, in int8 where the processor is quick at it.

int8 products are sums of integers below 2**24, so the float32 path gives exactly the same
numbers: which path runs changes the time and nothing else.
"""

from __future__ import annotations

import functools
import threading
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

PAD = 64
"""Shapes are padded to this many rows, so that the library re-uses its compiled kernels."""

MAX_INT8_DIMENSIONS = 1024  # 1024 * 127**2 < 2**24: exact in float32
_buffers = threading.local()


def int8_products(left_md: NDArray[np.int8], right_ld: NDArray[np.int8]) -> NDArray[Any]:
    """Inner products of int8 rows.

    Parameters
    ----------
    left_md, right_ld
        C-contiguous int8 rows, at most 1024 dimensions.

    Returns
    -------
    NDArray
        (m, l) products, int32 or float32 of the same values. A buffer of this thread: it is
        overwritten by the next call.
    """
    left, right = torch.from_numpy(left_md), torch.from_numpy(right_ld)
    if int8_is_quick():
        out = _buffer(len(left_md), len(right_ld), torch.int32)
        torch._int_mm(left, right.t(), out=out)
    else:
        out = _buffer(len(left_md), len(right_ld), torch.float32)
        torch.mm(left.float(), right.float().t(), out=out)
    return out.numpy()


def float_products(
    left_md: NDArray[np.float32], right_ld: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Inner products of float32 rows, in a buffer of this thread that the next call overwrites."""
    out = _buffer(len(left_md), len(right_ld), torch.float32)
    torch.mm(torch.from_numpy(left_md), torch.from_numpy(right_ld).t(), out=out)
    array: NDArray[np.float32] = out.numpy()
    return array


@functools.cache
def int8_is_quick() -> bool:
    """Tell whether torch's int8 product is there, right, and quicker than float32 (measured).

    It is a private name of torch; without the processor's int8 instructions it is slow, and
    some libraries let sums saturate.
    """
    if not hasattr(torch, "_int_mm"):
        return False
    rng = np.random.default_rng(0)
    left = torch.from_numpy(rng.integers(-127, 128, (512, 128), dtype=np.int8))
    right = torch.from_numpy(rng.integers(-127, 128, (1024, 128), dtype=np.int8))
    left[:2] = 127
    right[:2], right[2:4] = 127, -127  # the largest sums there can be
    expected = left.float() @ right.float().t()
    try:
        if not torch.equal(torch._int_mm(left, right.t()).float(), expected):
            return False
        quick = _least_seconds(lambda: torch._int_mm(left, right.t()))
    except (RuntimeError, NotImplementedError):
        return False
    return quick < _least_seconds(lambda: left.float() @ right.float().t())


def _least_seconds(work: Any) -> float:
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _buffer(rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
    """Memory of this thread that is used again and again, which spares page faults."""
    size = rows * columns
    kept: torch.Tensor | None = getattr(_buffers, "kept", None)
    if kept is None or kept.numel() < size:
        kept = torch.empty(size, dtype=torch.int32)
        _buffers.kept = kept
    return kept[:size].view(dtype).view(rows, columns)
