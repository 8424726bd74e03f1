"""Exact nearest neighbours on an NVIDIA GPU, by cuML of RAPIDS where that is installed.

cuML compares all pairs (``NearestNeighbors(algorithm="brute")``) and gives more candidates than are
wanted, as the products of :mod:`maskless.analysis.all_pairs` do; as there, exact distances rank
them on the processor. So the neighbours, and all that follows from them, are those of the exact
search, however a GPU rounds its sums.

Written after the documentation of cuML 26.10 and never run on a GPU: the tests have a stand-in.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from maskless.analysis.candidates import EMPTY
from maskless.analysis.parallel import parallel_map, row_ranges
from maskless.analysis.ranking import rank_exactly
from maskless.errors import SettingsError
from maskless.progress import track

_EXTRA_CANDIDATES = 16
_QUERIES = 65_536  # at once: the answer stays below 100 MB on either side
_RANKED_ROWS = 4096


def rapids_name() -> str:
    """Name cuML's version and the GPU that it takes.

    Raises
    ------
    SettingsError
        If cuML cannot be imported or there is no GPU.
    """
    with _told():
        import cuml
        import cupy

        runtime = cupy.cuda.runtime
        if runtime.getDeviceCount() < 1:
            raise RuntimeError("there is no NVIDIA GPU")
        gpu = runtime.getDeviceProperties(runtime.getDevice())["name"]
        return f"cuML {cuml.__version__} on {gpu.decode()}"


def compare_all_on_gpu(
    points_nd: NDArray[np.float32], k: int, *, rooted: bool
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Find the k nearest other points of every point.

    The GPU holds the points; queries go through it some at a time.

    Parameters
    ----------
    points_nd
        n points in d dimensions, finite, C-contiguous.
    k
        Neighbours of each point, less than n.
    rooted
        Give distances, not their squares.

    Returns
    -------
    indices : NDArray
        int32 (n, k).
    distances : NDArray
        float32 (n, k).

    Raises
    ------
    SettingsError
        If cuML fails, or answers with something else than neighbours.
    """
    n = len(points_nd)
    numbers = np.arange(n, dtype=np.int32)
    size = min(k + 1 + _EXTRA_CANDIDATES, n)  # a point is found among its own neighbours
    indices = np.full((n, k), -1, np.int32)
    distances = np.full((n, k), np.inf, np.float32)
    with _told():
        import cupy
        from cuml.neighbors import NearestNeighbors

        # cuML expands the squared distance as ours do: centred, it loses the fewest digits.
        on_gpu = cupy.asarray(points_nd)
        on_gpu = on_gpu - on_gpu.mean(axis=0)
        model = NearestNeighbors(
            n_neighbors=size, algorithm="brute", metric="euclidean", output_type="numpy"
        )
        model.fit(on_gpu)
        parts = row_ranges(n, _QUERIES)
        for first, last in track(parts, "nearest neighbours on the GPU", total=len(parts)):
            found = model.kneighbors(on_gpu[first:last], return_distance=False)
            if found.shape != (last - first, size) or found.min() < 0 or found.max() >= n:
                raise RuntimeError("what it found are not numbers of cells")
            own = numbers[first:last]
            pools = found.astype(np.int64)
            pools[pools == own[:, None]] = EMPTY
            pools.sort(axis=1)  # EMPTY last

            def rank(
                rows: tuple[int, int],
                own: NDArray[np.int32] = own,
                pools: NDArray[np.int64] = pools,
            ) -> None:
                rank_exactly(
                    points_nd, numbers, points_nd, own, pools, *rows, indices, distances, rooted
                )

            parallel_map(rank, row_ranges(last - first, _RANKED_ROWS))
    return indices, distances


@contextmanager
def _told() -> Iterator[None]:
    """Tell what RAPIDS or CUDA raises in one line; their exceptions have no common base."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SettingsError(
            f'device is "cuda" for clusters, but cuML cannot be used: {reason}. Take "cpu", or '
            "install RAPIDS (cuml-cu12 or cuml-cu13) on a machine with an NVIDIA GPU"
        ) from error
