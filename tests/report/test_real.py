"""The figures of real spleen: disc means instead of activations, given classes as clusters."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import tifffile

from maskless import plot
from maskless.images.image import Channel, Image, Panel
from maskless.report import describe_groups, telling_markers


@pytest.fixture(scope="module")
def spleen(real_data):
    table = pd.read_csv(real_data / "spleen_imc" / "panel.csv")
    panel = Panel(
        tuple(
            Channel(
                row.name,
                row.metal,
                row.kind if row.kind in ("nuclear", "marker") else "background",
                row.kind in ("nuclear", "marker"),
            )
            for row in table[["name", "metal", "kind"]].itertuples(index=False, name="Row")
        )
    )
    counts = tifffile.imread(real_data / "spleen_imc" / "r2" / "image.ome.tif")
    pixels = np.arcsinh(counts.astype(np.float32) / 5)
    pixels /= np.maximum(np.percentile(pixels, 99.7, axis=(1, 2), keepdims=True), 0.2)
    found = pd.read_csv(real_data / "spleen_imc" / "r2" / "cells_labelled.csv")
    found = found[found["area_px"] < 600]
    rows, columns = (found[axis].round().astype(int).clip(2, 497) for axis in ("y", "x"))
    means = np.mean(
        [pixels[:, rows + dy, columns + dx] for dy in (-2, 0, 2) for dx in (-2, 0, 2)], axis=0
    )
    cells = anndata.AnnData(
        X=means.T,
        obs=pd.DataFrame(
            {
                "image": "r2",
                "y": found["y"].to_numpy(),
                "x": found["x"].to_numpy(),
                "cluster": found["cell_type"].to_numpy(),
            },
            index=[f"r2:{i}" for i in range(len(found))],
        ),
        var=pd.DataFrame(
            {
                "kind": [c.kind for c in panel.channels],
                "used": [c.used for c in panel.channels],
            },
            index=list(panel.names),
        ),
    )
    return cells, Image("r2", pixels, panel.names, 1.0), panel


def test_words_say_what_a_biologist_expects(spleen):
    words = describe_groups(spleen[0])
    assert "CD20" in words["B cell"]
    assert "CD4 " in words["CD4 T cell"]
    assert "CD8a" in words["CD8 T cell"]
    assert "CD68" in words["Macrophage"]
    telling = set(telling_markers(spleen[0]))
    assert {"CD20", "DNA1"} <= telling
    assert telling & {"CD3", "CD4", "CD8a"}


def test_real_tissue_is_drawn(spleen):
    cells, image, panel = spleen
    rows = [t.get_text() for t in plot.heatmap(cells).axes[1].get_yticklabels()]
    assert sorted(rows) == sorted(set(cells.obs["cluster"]))
    for figure in (plot.tissue(cells, image), plot.detection_overlay(cells, image, panel)):
        maps = [np.asarray(i.get_array()) for axes in figure.axes for i in axes.get_images()]
        assert all(m.std() > 20 for m in maps)
        # Contrast: neither all black nor washed out.
        assert all(10 < m.mean() < 170 for m in maps)
