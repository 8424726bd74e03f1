from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image as Picture

from maskless.config import ReportSettings
from maskless.errors import InputError
from maskless.images.image import ImageSet
from maskless.report import draw_all, write_report
from maskless.report.figures import file_stems, spread

HOSTILE = "<script>alert('x')</script>\"&\u202e$a$"
HISTORY = [{"step": i, "loss": 4 - i / 30, "learning_rate": 1e-3} for i in range(60)]
CURVES = {"M0": ([0, 1, 2], [0, 0.5, 1])}


class Page(HTMLParser):
    """Collects what a browser would load, run or follow, and the text it would show."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "action", "srcset", "data"):
                self.addresses.append(value)
            if name.startswith("on") or name == "style":
                self.handlers.append(name)

    def handle_data(self, data):
        self.text += data


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def drawn(make, tmp_path_factory):
    cells, images = make(n_clusters=4, n_markers=7)
    cells.obs["kind"] = pd.Categorical(np.where(cells.obs["size"] > 0.5, "large", "small"))
    folder = tmp_path_factory.mktemp("figures")
    figures = draw_all(cells, images, HISTORY, CURVES, ReportSettings(label="kind"), folder)
    return cells, images, figures, folder


def test_every_figure_is_there_as_png_and_svg(drawn):
    _, _, figures, folder = drawn
    assert list(figures) == [
        "heatmap_z",
        "heatmap_01",
        "heatmap_raw",
        "bubble",
        "umap_cluster",
        "umap_markers",
        "umap_image",
        "umap_label",
        "gallery",
        "tissue_one",
        "tissue_two",
        "detection_one",
        "detection_two",
        "training",
        "response",
    ]
    assert {p.name for p in folder.iterdir()} == {
        f"{name}.{kind}" for name in figures for kind in ("png", "svg")
    }
    for title, caption, png in figures.values():
        assert title
        assert len(caption) > 40
        with Picture.open(png) as opened:
            pixels = np.asarray(opened.convert("L"))
        assert pixels.shape[1] > 600
        assert pixels.std() > 5
        svg = png.with_suffix(".svg")
        assert ElementTree.parse(svg).getroot().tag.endswith("svg")
        assert svg.stat().st_size < 4e6


def test_same_input_gives_the_same_bytes(drawn, tmp_path):
    cells, images, _, folder = drawn
    draw_all(cells, images, HISTORY, CURVES, ReportSettings(label="kind"), tmp_path)
    assert files(tmp_path) == files(folder)


def test_figures_without_data_are_left_out(make, tmp_path):
    cells, _ = make(n_clusters=2, n_markers=4, n_cells=40)
    del cells.obsm["X_umap"]
    assert set(draw_all(cells, None, None, None, ReportSettings(), tmp_path)) == {
        "heatmap_z",
        "heatmap_01",
        "heatmap_raw",
        "bubble",
    }
    del cells.obs["cluster"]
    missing = tmp_path / "no" / "history.csv"
    assert draw_all(cells, None, missing, {}, ReportSettings(), tmp_path / "empty") == {}


def test_no_cells_no_images_no_figures_but_a_page(make, tmp_path):
    cells, images = make(n_clusters=2, n_markers=4, n_cells=40)
    del cells.obsm["X_umap"]
    none = cells[:0].copy()
    assert draw_all(none, images, [], None, ReportSettings(), tmp_path / "figures") == {}
    nothing = ImageSet.from_images([], images.panel)
    assert "gallery" not in draw_all(cells, nothing, [], None, ReportSettings(), tmp_path / "b")
    write_report(tmp_path / "report.html", "empty", none, {})
    assert "0 cells in 0 images" in Page((tmp_path / "report.html").read_text()).text


def test_settings_that_name_what_is_not_there_are_refused(made, tmp_path):
    cells, images = made
    with pytest.raises(InputError, match="'celltype'"):
        draw_all(cells, images, None, None, ReportSettings(label="celltype"), tmp_path)
    with pytest.raises(InputError, match="CD99"):
        settings = ReportSettings(gallery_markers=("CD99",))
        draw_all(cells, images, None, None, settings, tmp_path)


def test_tissue_maps_are_spread_over_many_images():
    names = [f"i{n}" for n in range(100)]
    chosen = spread(names, 12)
    assert len(chosen) == 12
    assert (chosen[0], chosen[-1]) == ("i0", "i99")
    assert spread(names[:3], 12) == ("i0", "i1", "i2")


def test_file_names_are_safe_and_unique():
    stems = file_stems(["a/b", "a b", "A_B", "../..", "x" * 300, "腫瘍"])
    assert len({s.lower() for s in stems.values()}) == 6
    assert all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,90}", s) for s in stems.values())


@pytest.fixture(scope="module")
def page(drawn, tmp_path_factory):
    cells, _, figures, folder = drawn
    cells = cells.copy()
    cells.obs["phenotype"] = pd.Categorical([HOSTILE] * 300 + ["unnamed"] * 300)
    cells.obs["image"] = cells.obs["image"].cat.rename_categories({"two": HOSTILE})
    target = folder.parent / "report.html"
    some = {name: figures[name] for name in ("heatmap_z", "umap_cluster", "gallery")}
    arguments = (
        target,
        HOSTILE,
        cells,
        {HOSTILE: (HOSTILE, HOSTILE, figures["bubble"].png), **some},
        [{"stage": HOSTILE, "seconds": 3.21, "peak_mib": 512.4}, {"stage": "read"}],
        {"one": [HOSTILE, "second problem"], "lost": ["it could not be read"]},
        HOSTILE,
        [HOSTILE],
    )
    write_report(*arguments)
    first = target.read_bytes()
    write_report(*arguments)
    assert target.read_bytes() == first
    return first.decode()


def test_page_loads_and_runs_nothing_from_outside(page):
    parsed = Page(page)
    assert not {"script", "link", "iframe", "object", "form", "base"} & set(parsed.tags)
    assert not parsed.handlers
    for address in parsed.addresses:
        assert address.startswith(("data:image/png;base64,", "#", "figures"))
    assert "http" not in re.sub('<meta http-equiv="Content-Security-Policy"', "", page)
    assert "default-src 'none'" in page
    assert "unsafe" not in page


def test_page_names_the_hash_of_its_styles(page):
    import base64
    import hashlib

    style = re.search("<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style.group(1).encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in page


def test_hostile_texts_are_shown_and_not_obeyed(page):
    assert "<script" not in page
    # title, heading, note, figure, phenotype, image, problem, stage, settings
    assert Page(page).text.count(HOSTILE) >= 9


def test_page_tells_what_was_found(page):
    text = Page(page).text
    assert "600 cells in 3 images, 6 markers." in text
    assert "4 clusters" in text
    assert "60 cells (10.0%) are in no cluster" in text
    assert "50% of the cells carry one of 1 name." in text
    assert "M3 very high" in text
    assert "second problem" in text
    assert "it could not be read" in text
    assert "3.2" in text
    assert "512" in text


def test_pictures_in_the_page_can_be_decoded_and_are_small(page):
    import base64
    import io

    pictures = re.findall('base64,([A-Za-z0-9+/=]+)"', page)
    assert len(pictures) == 4
    for data in pictures:
        with Picture.open(io.BytesIO(base64.b64decode(data))) as opened:
            assert opened.width <= 1500
            assert np.asarray(opened.convert("L")).std() > 5
    assert len(page) < 12e6


def test_a_figure_that_cannot_be_read_is_told_and_nothing_is_left(drawn, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"bad\.png"):
        write_report(tmp_path / "report.html", "x", drawn[0], {"bad": ("t", "c", bad)})
    assert [p.name for p in tmp_path.iterdir()] == ["bad.png"]


def test_page_of_cells_before_clustering(make, tmp_path):
    cells, _ = make(n_cells=30)
    del cells.obs["cluster"]
    write_report(tmp_path / "r.html", "early", cells, {})
    assert "have not been clustered yet" in Page((tmp_path / "r.html").read_text()).text
