"""Rows shared out over threads, for compiled functions that release the interpreter's lock.

Threads of this kind sleep when they have nothing to do; OpenMP's would spin between two calls and
take the processor from the encoder.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

from numba import config


def thread_count() -> int:
    """Give the number of threads to use: what NUMBA_NUM_THREADS and OMP_NUM_THREADS allow.

    ``numba.get_num_threads`` would start numba's OpenMP threads and with them, as both may share
    one OpenMP, change torch's number of threads too.
    """
    allowed = int(config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(allowed, int(asked)) if asked.isdecimal() and int(asked) > 0 else allowed


def share_rows(function: Callable[[slice], None], rows: int, least: int) -> None:
    """Call `function` with slices that cover ``range(rows)``, on as many threads as are allowed.

    Parameters
    ----------
    function
        Works on a slice of rows, independently of all others.
    rows
        How many there are.
    least
        Rows that are worth a thread of their own.
    """
    threads = max(1, min(thread_count(), rows // least))
    if threads == 1:
        function(slice(0, rows))
        return
    bounds = [rows * i // threads for i in range(threads + 1)]
    with ThreadPoolExecutor(threads) as executor:
        list(executor.map(function, [slice(*bound) for bound in pairwise(bounds)]))
