"""PhenoGraph's neighbours by cuML beside our own search, and Leiden of cuGraph beside ours.

The last part of ``gpu.py``. It needs RAPIDS (cuml, cupy; cugraph and cudf for Leiden) and the
settings' packages too, and is skipped with a line where they are missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray
from planted import make
from scipy.sparse import csr_matrix

K = 30


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def cugraph_leiden(graph: csr_matrix, seed: int) -> NDArray[np.int32]:
    """Communities of cuGraph; weights in float64, as with float32 they vary from run to run."""
    import cudf
    import cugraph

    edges = graph.tocoo()
    frame = cudf.DataFrame(
        {"source": edges.row, "destination": edges.col, "weight": edges.data.astype(np.float64)}
    )
    joined = cugraph.Graph()
    joined.from_cudf_edgelist(frame, source="source", destination="destination", weight="weight")
    parts, _ = cugraph.leiden(joined, resolution=1.0, random_state=seed)
    parts = parts.to_pandas()
    n = graph.shape[0]
    labels = np.arange(n, 2 * n, dtype=np.int32)  # cells without an edge are not told
    labels[parts["vertex"].to_numpy()] = parts["partition"].to_numpy()
    return labels


def compare_clustering(numbers: list[int]) -> None:
    """Print seconds (wall, the second of two runs), recall, modularity and ARI."""
    print(f"clustering: made embeddings, 256 dimensions, k = {K}")
    if missing := [name for name in ("cuml", "cupy") if find_spec(name) is None]:
        print(f"  skipped: {' and '.join(missing)} not installed (RAPIDS)", flush=True)
        return
    from maskless.analysis.rapids import rapids_name

    print(f"  {rapids_name()}")
    for n in numbers:
        points, types = make(n)
        print(f"  {n} cells", flush=True)
        compare_neighbours(points, types)


def compare_neighbours(points: NDArray[np.float32], types: NDArray[np.int16]) -> None:
    from maskless.analysis import check_recall, modularity, nearest_neighbours, phenograph_graph
    from maskless.analysis.agreement import adjusted_rand

    cpu_seconds = 0.0
    for device in ("cpu", "cuda"):
        nearest_neighbours(points[:20_000], K, device=device)  # compiles, and wakes the GPU
        found, seconds = timed(lambda device=device: nearest_neighbours(points, K, device=device))
        cpu_seconds = cpu_seconds or seconds
        clusters, more = timed(lambda found=found: phenograph_graph(points, K, neighbours=found))
        print(
            f"    {device}: neighbours {seconds:.2f} s (x {cpu_seconds / seconds:.1f}), recall "
            f"{check_recall(points, found):.4f}; graph and Leiden {more:.2f} s, modularity "
            f"{clusters.modularity:.4f}, ARI {adjusted_rand(clusters.labels_n, types):.3f}",
            flush=True,
        )
    again = phenograph_graph(points, K, device="cuda").labels_n
    print(f"    cuda again: the same labels {np.array_equal(again, clusters.labels_n)}")
    if missing := [name for name in ("cudf", "cugraph") if find_spec(name) is None]:
        print(f"    Leiden of cuGraph skipped: {' and '.join(missing)} not installed", flush=True)
        return
    first = cugraph_leiden(clusters.graph, 0)
    labels, seconds = timed(lambda: cugraph_leiden(clusters.graph, 0))
    print(
        f"    Leiden of cuGraph on the same graph: {seconds:.2f} s, modularity "
        f"{modularity(clusters.graph, labels):.4f}, ARI {adjusted_rand(labels, types):.3f}, "
        f"ARI of two runs with one seed {adjusted_rand(first, labels):.3f}",
        flush=True,
    )
