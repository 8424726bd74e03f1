from __future__ import annotations

import io
import re
from collections.abc import Callable
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image as Picture

from maskless import plot
from maskless.errors import InputError
from maskless.images.image import Channel, Image, ImageSet, Panel
from maskless.report.colors import CLUSTER_COLORS, cluster_colors, composite
from maskless.report.explain_plot import rounded_percent
from maskless.report.gallery import cut_patch
from maskless.report.style import plain, round_length, save


def texts(figure) -> list[str]:
    """Texts of a figure, in the order of its axes."""
    found = [t.get_text() for t in figure.texts]
    for axes in figure.axes:
        found += [axes.get_title(loc=loc) for loc in ("left", "center", "right")]
        found += [t.get_text() for t in axes.get_xticklabels() + axes.get_yticklabels()]
        found += [t.get_text() for t in axes.texts]
    return [text for text in found if text]


def picture(figure) -> np.ndarray:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=60)
    with Picture.open(buffer) as opened:
        return np.asarray(opened.convert("RGB"))


def assert_drawn(figure) -> None:
    pixels = picture(figure)
    assert min(pixels.shape[:2]) > 50
    assert pixels.std() > 5


def rows_and_columns(figure) -> tuple[list[str], list[str]]:
    columns = [t.get_text() for t in figure.axes[0].get_xticklabels()]
    rows = [t.get_text() for t in figure.axes[1].get_yticklabels()]
    return rows, columns


@pytest.mark.parametrize("values", ["z", "0-1", "raw"])
def test_heat_map_shows_every_cluster_and_used_marker(made, values):
    cells, _ = made
    figure = plot.heatmap(cells, values)
    rows, columns = rows_and_columns(figure)
    assert rows[-1] == "unknown"
    assert sorted(rows[:-1], key=int) == [str(i) for i in range(12)]
    assert sorted(columns) == sorted([*(f"M{i}" for i in range(18)), "DNA"])
    assert_drawn(figure)


def test_heat_map_puts_the_right_number_in_the_right_place(made):
    cells, _ = made
    figure = plot.heatmap(cells, "raw")
    rows, columns = rows_and_columns(figure)
    shown = figure.axes[0].collections[0].get_array().reshape(len(rows), len(columns))
    clusters = cells.obs["cluster"].astype(str).replace("-1", "unknown")
    means = cells.to_df().groupby(clusters.to_numpy()).mean().loc[rows, columns]
    np.testing.assert_allclose(shown, means.to_numpy(), rtol=1e-5)
    assert [f"{n:,}" for n in clusters.value_counts()[rows]] == [
        t.get_text() for t in figure.axes[2].texts
    ]


def test_heat_maps_share_their_order(made):
    orders = {str(rows_and_columns(plot.heatmap(made[0], v))) for v in ("z", "0-1", "raw")}
    assert len(orders) == 1


def test_heat_map_of_a_layer_and_of_another_column(made):
    cells, _ = made
    figure = plot.heatmap(cells, "raw", groupby="image", layer="disc_mean")
    assert set(rows_and_columns(figure)[0]) == {"one", "two"}


def test_bubble_sizes_are_shares_of_positive_cells(made):
    cells = made[0].copy()
    cells.var["positive_above"] = 0.5
    figure = plot.bubble(cells)
    rows, columns = rows_and_columns(figure)
    sizes = figure.axes[0].collections[0].get_sizes().reshape(len(rows), len(columns))
    clusters = cells.obs["cluster"].astype(str).replace("-1", "unknown").to_numpy()
    share = (cells.to_df() > 0.5).groupby(clusters).mean().loc[rows, columns].to_numpy()
    assert share.max() == 1
    np.testing.assert_allclose(sizes / sizes.max(), share, atol=1e-9)


@pytest.mark.parametrize(
    ("n_clusters", "n_markers", "unknown"),
    [(1, 20, False), (1, 3, True), (60, 50, True), (2, 4, False)],
)
def test_heat_map_and_bubble_of_any_size(make, n_clusters, n_markers, unknown):
    cells, _ = make(n_clusters=n_clusters, n_markers=n_markers, unknown=unknown)
    rows, _ = rows_and_columns(plot.heatmap(cells))
    assert len(rows) == n_clusters + unknown
    assert_drawn(plot.bubble(cells))


def test_only_unknown_cells_can_be_drawn(made):
    cells, images = made
    cells = cells[cells.obs["cluster"] == "-1"].copy()
    for figure in (
        plot.heatmap(cells),
        plot.heatmap(cells, "0-1"),
        plot.umap(cells),
        plot.gallery(cells, images),
        plot.tissue(cells, images["one"]),
    ):
        assert_drawn(figure)


def test_one_marker_and_constant_markers_are_drawn(make):
    cells, _ = make(n_markers=3)
    cells.X[:] = 1
    assert_drawn(plot.heatmap(cells))
    one = cells[:, ["M0"]].copy()
    assert rows_and_columns(plot.heatmap(one, "0-1"))[1] == ["M0"]
    assert_drawn(plot.umap_panels(cells))


@pytest.mark.parametrize("color", ["cluster", "image", "size", "M3"])
def test_umap_by_anything(made, color):
    figure = plot.umap(made[0], color)
    assert_drawn(figure)
    assert f"UMAP of cells by {color}" in texts(figure)


def test_umap_prints_each_known_cluster_number_on_the_map(made):
    on_map = [t.get_text() for t in plot.umap(made[0]).axes[0].texts]
    assert sorted(on_map, key=int) == [str(i) for i in range(12)]


def test_umap_labels_do_not_lie_upon_each_other(make):
    cells, _ = make(n_clusters=40, n_cells=800)
    cells.obsm["X_umap"] = np.random.default_rng(1).normal(size=(800, 2))
    places = np.array([t.get_position() for t in plot.umap(cells).axes[0].texts])
    gaps = np.abs(places[:, None] - places[None])
    width = np.ptp(plot.umap(cells).axes[0].get_xlim())
    apart = (gaps > 0.015 * width).any(axis=2) | np.eye(len(places), dtype=bool)
    assert len(places) == 40
    assert apart.all()


def test_umap_of_many_images_gives_each_its_panel(make):
    cells, _ = make(image_names=[f"image{i}" for i in range(25)])
    figure = plot.umap(cells, "image")
    assert [axes.get_title(loc="left") for axes in figure.axes] == [f"image{i}" for i in range(25)]


def test_umap_leaves_cells_without_a_place_out_and_says_so(made):
    cells = made[0].copy()
    cells.obsm["X_umap"][:100] = np.nan
    figure = plot.umap(cells)
    assert "500 of 600 cells, one point each" in texts(figure)
    assert len(figure.axes[0].collections[0].get_offsets()) == 500


def test_umap_panels_in_the_order_asked_for(made):
    figure = plot.umap_panels(made[0], ["M5", "DNA", "M1"])
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [t for t in titles if t] == ["M5", "DNA", "M1"]


def test_umap_errors(made):
    cells = made[0].copy()
    with pytest.raises(InputError, match="neither a column nor a marker named 'M99'"):
        plot.umap(cells, "M99")
    del cells.obsm["X_umap"]
    with pytest.raises(InputError, match="no UMAP"):
        plot.umap(cells)


def one_bright_pixel(x: int = 40, y: int = 30) -> tuple[Image, Panel]:
    panel = Panel((Channel("A"), Channel("N", kind="nuclear")))
    pixels = np.zeros((2, 70, 110), dtype=np.float32)
    pixels[0, y, x] = 1
    return Image("one", pixels, panel.names, 0.5), panel


def test_patch_is_centred_on_the_cell_and_knows_the_pixel_size():
    image, _ = one_bright_pixel(x=40, y=30)
    patch = cut_patch(image, ["A"], np.array([30.0, 40.0]), view_um=12)[0]
    total = patch.sum()
    rows, columns = np.indices(patch.shape)
    middle = (len(patch) - 1) / 2
    assert (patch * rows).sum() / total == pytest.approx(middle, abs=0.01)
    assert (patch * columns).sum() / total == pytest.approx(middle, abs=0.01)
    # 12 um are 24 pixels of 0.5 um: a pixel is 2 x 2 of the 48 x 48, spread by interpolation.
    assert total == pytest.approx(4, rel=0.05)
    # 3 um to the right of the cell: 6 pixels, 12 of the patch.
    moved = cut_patch(image, ["A"], np.array([30.0, 34.0]), view_um=12)[0]
    assert (moved * columns).sum() / total == pytest.approx(middle + 12, abs=0.01)


def test_patch_at_a_corner_is_black_beyond_the_image():
    image, _ = one_bright_pixel()
    bright = Image("one", np.ones_like(image.pixels_cyx), image.channels, 0.5)
    patch = cut_patch(bright, ["A"], np.array([0.0, 0.0]), view_um=12)[0]
    assert patch[:20, :20].max() == 0
    assert patch[-20:, -20:].min() == 1


def test_gallery_has_a_row_a_cluster_and_names_its_markers(made):
    cells, images = made
    figure = plot.gallery(cells, images, markers=["M1", "DNA"], per_group=3)
    found = texts(figure)
    names = [t.get_text() for t in figure.texts if t.get_weight() == "bold"][1:]
    assert names == [*(str(i) for i in range(12)), "unknown"]
    assert [t.split()[0] for t in found if "–" in t] == ["M1", "DNA"]
    assert_drawn(figure)


def test_gallery_depends_on_its_seed_only(made):
    cells, images = made
    first, again, other = (
        picture(plot.gallery(cells, images, per_group=2, seed=seed)) for seed in (0, 0, 1)
    )
    assert (first == again).all()
    assert first.shape != other.shape or (first != other).any()


def test_gallery_errors(made):
    cells, images = made
    with pytest.raises(InputError, match="channel CD99"):
        plot.gallery(cells, images, markers=["CD99"])
    with pytest.raises(InputError, match="at most 6, found 7"):
        plot.gallery(cells, images, markers=[f"M{i}" for i in range(7)])
    with pytest.raises(InputError, match="image two"):
        plot.gallery(cells, ImageSet.from_images([images["one"]], images.panel))


def test_tissue_has_its_cells_at_x_and_y_with_y_downwards(made):
    cells, images = made
    figure = plot.tissue(cells, images["one"])
    maps = [axes for axes in figure.axes if axes.collections]
    (discs,) = maps[0].collections
    here = cells.obs[cells.obs["image"] == "one"]
    np.testing.assert_allclose(discs.get_offsets(), here[["x", "y"]], rtol=1e-6)
    bottom, top = maps[0].get_ylim()
    assert bottom > top
    assert (bottom, maps[0].get_xlim()[1]) == (69.5, 109.5)
    assert "20 µm" in texts(figure)
    assert_drawn(figure)


def test_tissue_and_overlay_of_an_image_without_cells(made):
    cells, images = made
    image = Image("three", images["one"].pixels_cyx, images.panel.names, 1.0)
    assert_drawn(plot.tissue(cells, image))
    assert_drawn(plot.detection_overlay(cells, image, images.panel))


def test_overlay_needs_a_nuclear_channel(made):
    cells, images = made
    count = (cells.obs["image"] == "one").sum()
    figure = plot.detection_overlay(cells, images["one"], images.panel)
    assert f"{count:,} centres on the mean of DNA" in texts(figure)
    with pytest.raises(InputError, match="nuclear"):
        plot.detection_overlay(cells, images["one"], Panel((Channel("M0"),)))


@pytest.mark.parametrize("shape", [(10, 400), (400, 10), (3, 3)])
def test_odd_images_are_drawn(shape):
    panel = Panel((Channel("A"), Channel("N", kind="nuclear")))
    image = Image("odd", np.ones((2, *shape), dtype=np.float32), panel.names, 0.4)
    obs = pd.DataFrame(
        {"image": "odd", "y": [1.0], "x": [1.0], "cluster": pd.Categorical(["0"])}, index=["a"]
    )
    import anndata

    cells = anndata.AnnData(X=np.ones((1, 2)), obs=obs, var=pd.DataFrame(index=["A", "N"]))
    assert_drawn(plot.tissue(cells, image))
    assert_drawn(plot.detection_overlay(cells, image, panel))


def test_training_curve_from_rows_and_from_csv(tmp_path):
    rows = [{"step": i, "loss": 5 - i / 50, "learning_rate": 1e-3} for i in range(100)]
    path = tmp_path / "history.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    from_rows, from_csv = plot.training_curve(rows), plot.training_curve(path)
    assert (picture(from_rows) == picture(from_csv)).all()
    assert_drawn(plot.training_curve(rows[:1]))
    with pytest.raises(InputError, match="no training steps"):
        plot.training_curve([])
    with pytest.raises(InputError, match="column of losses"):
        plot.training_curve([{"step": 1}])


def test_response_curves_have_a_panel_a_marker():
    gains = np.linspace(0, 2, 5)
    figure = plot.response_curves({f"M{i}": (gains, gains * i) for i in range(7)})
    assert [a.get_title(loc="left") for a in figure.axes] == [f"M{i}" for i in range(7)]
    with pytest.raises(InputError, match="do not fit"):
        plot.response_curves({"M0": (gains, gains[:2])})


def explanation(shares: list[float]) -> SimpleNamespace:
    return SimpleNamespace(
        markers=tuple(f"M{i}" for i in range(len(shares))), shares=np.array(shares)
    )


def test_explanation_is_sorted_and_its_printed_numbers_add_up_to_100():
    shares = np.random.default_rng(0).normal(1, 1, 30).tolist()
    figure = plot.explain(explanation(shares))
    axes = figure.axes[0]
    labels = [t.get_text() for t in axes.get_yticklabels()]
    assert labels[:15] == [f"M{m}" for m in np.argsort(-np.abs(shares))[:15]]
    assert labels[15:] == ["15 other markers"]
    assert sum(float(t.get_text()) for t in axes.texts) == pytest.approx(100, abs=1e-9)


def test_explanation_colours_say_which_cluster_has_more():
    found = explanation([0.6, 0.4])
    figure = plot.explain(found, activations=([1.0, 0.0], [0.0, 1.0]), names=("0", "3"))
    first, second = figure.axes[0].patches[:2]
    assert first.get_facecolor() != second.get_facecolor()
    legend = [t.get_text() for t in figure.axes[0].get_legend().get_texts()]
    assert legend == ["more active in 0", "more active in 3"]


def test_shares_that_add_up_to_nothing_are_refused():
    with pytest.raises(InputError, match="same place"):
        plot.explain(explanation([0.0, 0.0]))
    assert rounded_percent(np.array([1.0, 1.0, 1.0])).tolist() == [33.4, 33.3, 33.3]


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("$\\alpha$", r"\$\alpha\$"),
        ("CD8\na\t", "CD8 a"),
        ("a\u202eb", "ab"),
        ("腫", "□"),
        ("x" * 40, "x" * 16 + "…" + "x" * 16),
    ],
)
def test_names_become_printable(name, printed):
    assert plain(name) == printed


def test_hostile_names_are_drawn(make):
    cells, images = make(n_clusters=3, image_names=("$x$", "<script>alert(1)</script>"))
    names = ["$\\frac{", "a\u202eb", "腫瘍", "x" * 200, *cells.var_names[4:]]
    cells.var_names = names
    panel = Panel(
        tuple(
            Channel(name, kind="nuclear" if name == "DNA" else "marker", used=name != "Empty")
            for name in names
        )
    )
    images = images.map(lambda image: Image(image.name, image.pixels_cyx, panel.names, 1.0), panel)
    for figure in (
        plot.heatmap(cells),
        plot.umap_panels(cells),
        plot.gallery(cells, images, markers=names[:4]),
        plot.tissue(cells, images["$x$"], markers=names[:4]),
    ):
        assert_drawn(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg")
        assert b"<script" not in buffer.getvalue()


def test_settings_of_matplotlib_are_neither_used_nor_changed(made, tmp_path):
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "text.usetex": False}):
        before = dict(matplotlib.rcParams)
        save(plot.heatmap(made[0]), tmp_path / "a.png")
        assert dict(matplotlib.rcParams) == before
    save(plot.heatmap(made[0]), tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_cluster_colours_are_all_different():
    colors = cluster_colors([str(i) for i in range(60)])
    assert len(set(colors)) == 60 == len(CLUSTER_COLORS)
    assert all(re.fullmatch("#[0-9a-f]{6}", color) for color in colors)
    assert cluster_colors(["61"]) == cluster_colors(["1"])
    assert cluster_colors(["-1"])[0] not in colors


def test_composite_adds_lights_and_keeps_hue():
    planes = np.array([[[0.0, 1.0, 2.0]], [[0.0, 0.0, 1.0]]], dtype=np.float32)
    limits = np.array([[0.0, 1.0], [0.0, 1.0]])
    rgb = composite(planes, ["#ff0000", "#ff00ff"], limits)
    assert rgb[0].tolist() == [[0, 0, 0], [255, 0, 0], [255, 0, 128]]


@pytest.mark.parametrize(("longest", "length"), [(99, 50), (100, 100), (0.3, 0.2), (25, 20)])
def test_scale_bars_have_round_lengths(longest, length):
    assert round_length(longest) == pytest.approx(length)


def test_nothing_is_registered_with_pyplot(made, make: Callable[..., object]):
    import sys

    plot.heatmap(made[0])
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
