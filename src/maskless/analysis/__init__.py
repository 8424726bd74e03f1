"""Neighbours, clusters and maps of cells, from any table of points."""

from maskless.analysis.jaccard import jaccard_graph
from maskless.analysis.leiden import leiden, modularity
from maskless.analysis.neighbours import (
    Neighbours,
    check_recall,
    nearest_among,
    nearest_neighbours,
)
from maskless.analysis.phenograph import (
    PhenoGraph,
    assign_by_neighbours,
    divide,
    phenograph,
    phenograph_graph,
    subcluster,
)
from maskless.analysis.umap import place_among, principal_map, umap, umap_layout

__all__ = [
    "Neighbours",
    "PhenoGraph",
    "assign_by_neighbours",
    "check_recall",
    "divide",
    "jaccard_graph",
    "leiden",
    "modularity",
    "nearest_among",
    "nearest_neighbours",
    "phenograph",
    "phenograph_graph",
    "place_among",
    "principal_map",
    "subcluster",
    "umap",
    "umap_layout",
]
