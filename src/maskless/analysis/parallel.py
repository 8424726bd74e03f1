"""Work shared out over threads so that results do not depend on how many there are.

Kernels are compiled without the interpreter's lock and get a range of rows each; matrix products
run on one thread inside each worker, on shapes that the number of workers does not change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

from maskless.progress import track
from maskless.threads import thread_count

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel_map(
    function: Callable[[Item], Result], items: Sequence[Item], description: str | None = None
) -> list[Result]:
    """Apply `function` to all items on all threads; results come in the order of the items.

    Progress is shown if `description` is given.
    """
    with ThreadPoolExecutor(thread_count()) as executor:
        results = executor.map(function, items)
        if description is None:
            return list(results)
        return list(track(results, description, total=len(items)))


def row_ranges(n: int, rows: int) -> list[tuple[int, int]]:
    """Cut ``range(n)`` into ranges of `rows` rows, the last one perhaps shorter."""
    return [(start, min(n, start + rows)) for start in range(0, n, rows)]


@contextmanager
def single_threaded_torch() -> Iterator[None]:
    """Let torch use one thread a call: faster under our own threads, and the same sums always."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
