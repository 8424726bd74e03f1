"""The methods that `clustering.py` compares: each takes points, gives labels and what it cost."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

K = 30
Points = NDArray[np.float32]
Facts = dict[str, Any]


def cpu_seconds(process: int | None = None) -> float:
    """CPU seconds of a process, of all children that have ended, and of all that live."""
    process = process or os.getpid()
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        children = [
            int(child)
            for task in Path(f"/proc/{process}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return own + sum(map(cpu_seconds, children))


class Clock:
    """CPU and wall seconds since it was made."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), cpu_seconds()

    def read(self) -> Facts:
        """Seconds so far."""
        return {"cpu": cpu_seconds() - self.cpu, "wall": time.perf_counter() - self.wall}


def run_ours(points: Points, power: float = 1.0) -> tuple[NDArray[Any], Facts]:
    """PhenoGraph of maskless, as users get it."""
    from maskless.analysis import check_recall, nearest_neighbours, phenograph_graph

    clock = Clock()
    neighbours = nearest_neighbours(points, K)
    after = clock.read()
    found = phenograph_graph(points, K, min_size=10, neighbours=neighbours, power=power)
    facts = clock.read() | {"neighbours_cpu": after["cpu"], "gb": peak_gb()}
    facts["recall"] = check_recall(points, neighbours, sample=1000, seed=1)
    facts["graph"] = found.graph
    return found.labels_n, facts


def run_ours_squared(points: Points) -> tuple[NDArray[Any], Facts]:
    """The same with squared Jaccard weights."""
    return run_ours(points, power=2.0)


def run_phenograph(points: Points) -> tuple[NDArray[Any], Facts]:
    """PhenoGraph 1.5.7 with its defaults (Louvain), on two processes."""
    import phenograph

    os.chdir(tempfile.mkdtemp())  # it writes files where it stands
    clock = Clock()
    labels, _, _ = phenograph.cluster(points, k=K, n_jobs=os.cpu_count() or 1)
    return np.asarray(labels), clock.read() | {"gb": peak_gb(), "recall": 1.0}


def run_scanpy(points: Points) -> tuple[NDArray[Any], Facts]:
    """Neighbours and Leiden of scanpy (igraph's, two iterations)."""
    import anndata
    import scanpy
    from scipy.sparse import csr_array

    if not hasattr(csr_array, "getnnz"):  # scanpy 1.11.5 calls what scipy 1.17 does not have
        csr_array.getnnz = lambda self, axis=None: self._getnnz(axis)
    cells = anndata.AnnData(np.zeros((len(points), 1), np.float32), obsm={"X_e": points})
    clock = Clock()
    scanpy.pp.neighbors(cells, n_neighbors=K, use_rep="X_e")
    scanpy.tl.leiden(cells, flavor="igraph", n_iterations=2, directed=False, random_state=0)
    facts = clock.read() | {"gb": peak_gb()}
    facts["recall"] = _recall_of_matrix(points, cells.obsp["distances"].tocsr())
    return cells.obs["leiden"].astype(int).to_numpy(), facts


def _recall_of_matrix(points: Points, distances: Any) -> float:
    """Recall of neighbours that stand in a sparse matrix, K - 1 in each row (it counts self)."""
    from maskless.analysis import Neighbours, check_recall

    counts = np.diff(distances.indptr)
    kept = min(K - 1, int(counts.min()))
    first = distances.indptr[:-1, None] + np.arange(kept)
    found = Neighbours(
        distances.indices[first].astype(np.int32), distances.data[first].astype(np.float32)
    )
    return check_recall(points, found, sample=1000, seed=1)


def run_parc(points: Points) -> tuple[NDArray[Any], Facts]:
    """PARC with its defaults at the same k."""
    import parc

    clock = Clock()
    made = parc.PARC(points, knn=K, random_seed=42, num_threads=os.cpu_count() or 1)
    made.run_PARC()
    return np.asarray(made.labels), clock.read() | {"gb": peak_gb()}


METHODS: dict[str, Callable[[Points], tuple[NDArray[Any], Facts]]] = {
    "ours": run_ours,
    "ours, power 2": run_ours_squared,
    "phenograph": run_phenograph,
    "scanpy": run_scanpy,
    "parc": run_parc,
}


def peak_gb() -> float:
    """Greatest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def communities_of_ours(graph: csr_matrix, starts: int) -> tuple[NDArray[Any], Facts]:
    """Leiden of maskless, as PhenoGraph calls it."""
    from maskless.analysis.leiden import find_communities
    from maskless.analysis.phenograph import best_communities

    find_communities(graph[:3000, :3000], 1.0, 0, 2)
    clock = Clock()
    labels, _ = best_communities(graph, 1.0, 0, starts)
    return labels, clock.read()


def communities_of_igraph(graph: csr_matrix, package: str) -> tuple[NDArray[Any], Facts]:
    """Leiden of igraph or leidenalg, two iterations; the cost of its graph apart."""
    import igraph

    clock = Clock()
    rows = np.repeat(np.arange(graph.shape[0]), np.diff(graph.indptr))
    upper = rows < graph.indices
    pairs = np.column_stack([rows[upper], graph.indices[upper]])
    made = igraph.Graph(n=graph.shape[0], edges=pairs, edge_attrs={"weight": graph.data[upper]})
    building = clock.read()["cpu"]
    clock = Clock()
    if package == "igraph":
        found = made.community_leiden("modularity", weights="weight", n_iterations=2)
    else:
        import leidenalg

        kind = leidenalg.RBConfigurationVertexPartition
        found = leidenalg.find_partition(made, kind, weights="weight", n_iterations=2, seed=0)
    return np.array(found.membership), clock.read() | {"building": building}
