from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from maskless.cells import detect, detect_image, detect_nuclei, nuclear_plane
from maskless.cells.difference_of_gaussians import otsu_threshold
from maskless.config import DetectSettings
from maskless.errors import InputError, SettingsError
from maskless.images.clean import clean
from maskless.images.image import Channel, Image, ImageSet, Panel

PANEL = Panel((Channel("CD3"), Channel("DNA1", kind="nuclear"), Channel("DNA2", kind="nuclear")))


def nuclei(
    centres_xy: NDArray[np.float64], size: tuple[int, int], radius_px: float = 3.0, peak: float = 40
) -> NDArray[np.float64]:
    """Round nuclei with soft edges."""
    y, x = np.mgrid[: size[0], : size[1]]
    plane_yx = np.zeros(size)
    for cx, cy in centres_xy:
        distance = np.hypot(x - cx, y - cy)
        plane_yx += peak / (1 + np.exp(2 * (distance - radius_px)))
    return plane_yx


def image(
    plane_yx: NDArray[np.generic], name: str = "one", source: Path | None = None, um: float = 1.0
) -> Image:
    pixels_cyx = np.stack([np.zeros_like(plane_yx), plane_yx, 100 * plane_yx])
    return Image(name, pixels_cyx, PANEL.names, um, source)


def f1(found_xy: NDArray[np.float64], true_xy: NDArray[np.float64], radius_px: float) -> float:
    """F1 of pairs that are each other's nearest, a lower bound of the one-to-one score."""
    there, back = cKDTree(true_xy).query(found_xy), cKDTree(found_xy).query(true_xy)
    mutual = (back[1][there[1]] == np.arange(len(found_xy))) & (there[0] <= radius_px)
    return float(2 * mutual.sum() / (len(found_xy) + len(true_xy)))


def test_planted_nuclei_are_found_to_a_fraction_of_a_pixel() -> None:
    grid = np.stack(np.meshgrid(np.arange(8, 75, 11), np.arange(8, 53, 11)), axis=-1)
    true_xy = grid.reshape(-1, 2) + np.random.default_rng(1).uniform(-1, 1, (grid.size // 2, 2))
    found_xy = detect_nuclei(nuclei(true_xy, (60, 80)))
    distance_px, nearest = cKDTree(true_xy).query(found_xy)
    assert sorted(nearest) == list(range(len(true_xy)))
    assert distance_px.max() < 0.3


def test_x_and_y_are_not_exchanged() -> None:
    found_xy = detect_nuclei(nuclei(np.array([[7.0, 30.0]]), (64, 20)))
    np.testing.assert_allclose(found_xy, [[7, 30]], atol=0.2)


def test_centres_are_sorted_by_y_then_x() -> None:
    true_xy = np.random.default_rng(2).uniform(5, 95, (60, 2))
    found_xy = detect_nuclei(nuclei(true_xy, (100, 100)))
    order = np.lexsort((found_xy[:, 0], found_xy[:, 1]))
    assert found_xy.dtype == np.float64
    np.testing.assert_array_equal(order, np.arange(len(found_xy)))


def test_the_pixel_size_sets_the_scale() -> None:
    true_um = np.array([[12.0, 14.0], [30.0, 25.0], [22.0, 40.0]])
    fine = detect_nuclei(nuclei(true_um * 2, (110, 90), radius_px=6), um_per_pixel=0.5)
    coarse = detect_nuclei(nuclei(true_um, (55, 45), radius_px=3), um_per_pixel=1.0)
    np.testing.assert_allclose(fine / 2, coarse, atol=0.3)
    np.testing.assert_allclose(coarse, true_um, atol=0.3)


def test_dim_nuclei_beside_bright_ones_are_found() -> None:
    plane_yx = nuclei(np.array([[15.0, 15.0]]), (30, 60)) + nuclei(
        np.array([[45.0, 15.0]]), (30, 60), peak=12
    )
    assert len(detect_nuclei(plane_yx)) == 2


def test_a_hot_pixel_is_no_nucleus() -> None:
    plane_yx = nuclei(np.array([[15.0, 15.0], [40.0, 15.0]]), (30, 60))
    plane_yx[22, 28] = 5000
    assert len(detect_nuclei(plane_yx)) == 2


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 12), st.integers(1, 12)),
        elements=st.floats(0, 1000, width=32),
    ),
    st.floats(0.2, 5),
)
def test_any_plane_gives_centres_inside_it_apart_from_each_other(
    plane_yx: NDArray[np.float32], um_per_pixel: float
) -> None:
    found_xy = detect_nuclei(plane_yx, um_per_pixel)
    rows, columns = plane_yx.shape
    assert found_xy.shape == (len(found_xy), 2)
    assert ((found_xy >= 0) & (found_xy <= [columns - 1, rows - 1])).all()
    if len(found_xy) > 1:  # peaks are whole pixels apart; refining moves each by half at most
        nearest_px = cKDTree(found_xy).query(found_xy, k=2)[0][:, 1]
        assert nearest_px.min() > 2.4 / um_per_pixel - 2 * np.sqrt(0.5) - 1e-9


@pytest.mark.parametrize("value", [0, 7])
def test_a_constant_plane_holds_nothing(value: int) -> None:
    assert detect_nuclei(np.full((20, 30), value, dtype=np.uint16)).shape == (0, 2)


def test_one_nucleus_in_a_large_dark_image_is_found() -> None:
    found_xy = detect_nuclei(nuclei(np.array([[100.0, 50.0]]), (300, 300)).round())
    np.testing.assert_allclose(found_xy, [[100, 50]], atol=0.3)


@pytest.mark.parametrize(
    "plane_yx", [np.zeros((2, 5, 5)), np.zeros((0, 5)), np.array([[1.0, np.nan], [0.0, 0.0]])]
)
def test_what_is_no_plane_is_an_error(plane_yx: NDArray[np.float64]) -> None:
    with pytest.raises(InputError, match="plane"):
        detect_nuclei(plane_yx)


@pytest.mark.parametrize("um_per_pixel", [0, -1, float("nan"), float("inf")])
def test_a_senseless_pixel_size_is_an_error(um_per_pixel: float) -> None:
    with pytest.raises(SettingsError, match="um_per_pixel"):
        detect_nuclei(np.zeros((5, 5)), um_per_pixel)


def test_otsu_equals_scikit_image() -> None:
    threshold_otsu = pytest.importorskip("skimage.filters").threshold_otsu
    generator = np.random.default_rng(0)
    values = np.concatenate([generator.normal(1, 0.3, 4000), generator.normal(4, 1, 1500)])
    assert otsu_threshold(values) == pytest.approx(threshold_otsu(values), rel=1e-6)
    assert otsu_threshold(np.full(10, 3.0)) == 3.0
    one = np.float32(1)
    narrow = np.array([one, np.nextafter(one, 2 * one), one], dtype=np.float32)
    assert 1 <= otsu_threshold(narrow) <= narrow.max()


def test_nuclear_channels_count_alike_whatever_their_brightness() -> None:
    left, right = (nuclei(np.array([[x, 10.0]]), (20, 40)) for x in (10.0, 30.0))
    pixels_cyx = np.stack([np.full((20, 40), 9e9), left, 1000 * right])
    plane_yx = nuclear_plane(Image("i", pixels_cyx, PANEL.names, 1.0), PANEL)
    assert plane_yx.dtype == np.float32
    assert plane_yx[10, 10] == pytest.approx(plane_yx[10, 30], rel=0.01)
    assert plane_yx.max() == pytest.approx(0.5, rel=0.05)


def test_an_empty_nuclear_channel_does_not_dim_the_other() -> None:
    pixels_cyx = np.zeros((3, 20, 20))
    pixels_cyx[2] = nuclei(np.array([[10.0, 10.0]]), (20, 20))
    plane_yx = nuclear_plane(Image("i", pixels_cyx, PANEL.names, 1.0), PANEL)
    assert plane_yx.max() == pytest.approx(1, rel=0.05)
    empty = Image("i", np.zeros((3, 5, 5)), PANEL.names, 1.0)
    assert not nuclear_plane(empty, PANEL).any()


def test_a_panel_without_nuclear_channel_says_how_to_name_one() -> None:
    panel = Panel((Channel("CD3"), Channel("DNA1"), Channel("DNA2")))
    with pytest.raises(InputError, match=r"CD3, DNA1, DNA2.*nuclear = .*--nuclear"):
        nuclear_plane(image(np.zeros((4, 4))), panel)

    def load() -> Image:
        raise AssertionError("no image needs to be read to know this")

    with pytest.raises(InputError, match="--nuclear"):
        detect(ImageSet(panel, {"one": load}))


def test_detect_makes_a_table_and_keeps_images_without_cells() -> None:
    first, second = np.array([[10.0, 12.0]]), np.array([[9.0, 9.0], [30.0, 20.0]])
    images = ImageSet.from_images(
        [
            image(nuclei(first, (30, 40)), "b"),
            image(np.zeros((30, 40)), "void"),
            image(nuclei(2 * second, (60, 80), radius_px=6), "a", um=0.5),
        ],
        PANEL,
    )
    cells = detect(images)
    assert cells.obs_names.tolist() == ["b:0", "a:0", "a:1"]
    assert cells.obs["image"].cat.categories.tolist() == ["b", "void", "a"]
    assert cells.uns["maskless"]["images_without_cells"].tolist() == ["void"]
    assert cells.uns["maskless"]["detector"] == {"method": "dog"}
    np.testing.assert_allclose(cells.obsm["spatial"], [*first, *second], atol=0.4)


def test_no_cell_anywhere_is_an_error() -> None:
    images = ImageSet.from_images([image(np.zeros((9, 9)))], PANEL)
    with pytest.raises(InputError, match="no cells were found in any of 1 images"):
        detect(images)


def test_masks_and_centres_need_files() -> None:
    for method in ("masks", "centres"):
        settings = DetectSettings(method=method)  # type: ignore[arg-type]
        with pytest.raises(SettingsError, match=r"needs detect\.files"):
            detect_image(image(np.zeros((4, 4))), PANEL, settings)


def test_given_masks_need_no_nuclear_channel(tmp_path: Path) -> None:
    mask_yx = np.zeros((20, 30), dtype=np.uint16)
    mask_yx[4:7, 10:13] = 9
    tifffile.imwrite(tmp_path / "one.tif", mask_yx)
    panel = Panel((Channel("a"), Channel("b"), Channel("c")))
    images = ImageSet.from_images([image(np.zeros((20, 30)))], panel)
    cells = detect(images, DetectSettings(method="masks", files="{image}.tif"), tmp_path)
    np.testing.assert_allclose(cells.obsm["spatial"], [[11, 5]])


def spleen(real_data: Path, region: str) -> tuple[Image, Panel, NDArray[np.float64]]:
    folder = real_data / "spleen_imc" / region
    kinds = {20: "DNA1", 21: "DNA3", 22: "HistoneH3"}
    pixels_cyx = tifffile.imread(folder / "image.ome.tif")
    panel = Panel(
        tuple(
            Channel(kinds.get(i, f"c{i}"), kind="nuclear" if i in kinds else "marker")
            for i in range(len(pixels_cyx))
        )
    )
    table = np.genfromtxt(
        folder / "objects.csv", delimiter=",", names=True, dtype=None, encoding="utf-8"
    )
    true_xy = np.column_stack([table["x"], table["y"]])[table["is_cell"]]
    return Image(region, pixels_cyx, panel.names, 1.0), panel, true_xy


def test_real_nuclei_are_found_on_raw_and_cleaned_images_alike(real_data: Path) -> None:
    raw, panel, true_xy = spleen(real_data, "r8")
    cleaned = clean(ImageSet.from_images([raw], panel))["r8"]
    on_raw, on_cleaned = (
        f1(detect_image(source, panel), true_xy, 3.0) for source in (raw, cleaned)
    )
    assert on_raw > 0.7
    assert on_cleaned > 0.7
    assert abs(on_raw - on_cleaned) < 0.03


def test_detection_does_not_depend_on_the_unit_of_the_counts(real_data: Path) -> None:
    raw, _, _ = spleen(real_data, "r8")
    plane_yx = ndimage.gaussian_filter(raw.pixels_cyx[20, :150, :150].astype(np.float32), 0.5)
    np.testing.assert_allclose(
        detect_nuclei(plane_yx), detect_nuclei(plane_yx * np.float32(64)), atol=1e-3
    )
