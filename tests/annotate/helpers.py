"""A small clustering and states of its labels."""

from __future__ import annotations

import numpy as np

from maskless.annotate.places import Clustering


def clustering(seed: int = 0, n: int = 200, clusters: int = 6) -> Clustering:
    rng = np.random.default_rng(seed)
    return Clustering(
        tuple(str(i) for i in range(clusters)),
        rng.integers(0, clusters, n).astype(np.int32),
        ("a", "b"),
        np.sort(rng.integers(0, 2, n)).astype(np.int32),
        rng.uniform(0, 500, (n, 2)).astype(np.float32),
    )
