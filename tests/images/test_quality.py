"""Made damage is named, clean real images are quiet."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from maskless.images import Channel, Image, ImageSet, Panel, read_images
from maskless.images.quality import ImageQuality, measure_quality
from maskless.images.suspicious import find_suspicions, quality_table
from maskless.staining import quality

PANEL = Panel(
    (
        Channel("CD20"),
        Channel("CD3"),
        Channel("DNA1", kind="nuclear"),
        Channel("Xe131", kind="background", used=False),
        Channel("Xe134", kind="background", used=False),
    )
)
Counts = NDArray[np.generic]


def tissue(seed: int, size: int = 160) -> Image:
    """Cells as blobs of 2 um on a flat background, gas that shows the instrument alone."""
    rng = np.random.default_rng(seed)
    signal_cyx = np.zeros((5, size, size))
    places = rng.integers(0, size, (2, size * size // 60))
    for channel, share in ((0, 0.2), (1, 0.4), (2, 1.0)):
        some = rng.random(places.shape[1]) < share
        signal_cyx[channel][tuple(places[:, some])] = 900
        signal_cyx[channel] = ndimage.gaussian_filter(signal_cyx[channel], 1.5) + 0.4
    signal_cyx[3:] = 60
    name = f"r{seed}"
    return Image(name, rng.poisson(signal_cyx).astype(np.uint16), PANEL.names, 1.0)


def blurred(counts_cyx: Counts) -> Counts:
    soft = np.stack([ndimage.gaussian_filter(p.astype(float), 2.0) for p in counts_cyx])
    return np.random.default_rng(1).poisson(soft).astype(np.uint16)


def saturated(counts_cyx: Counts) -> Counts:
    changed = counts_cyx.copy()
    changed[0] = np.minimum(changed[0], np.percentile(changed[0], 97).astype(changed.dtype))
    return changed


def drifting(counts_cyx: Counts) -> Counts:
    kept = np.linspace(1, 0.6, counts_cyx.shape[1])[None, :, None]
    return np.random.default_rng(1).binomial(counts_cyx.astype(int), kept).astype(np.uint16)


def noise_only(counts_cyx: Counts) -> Counts:
    changed = counts_cyx.copy()
    changed[0] = np.random.default_rng(1).poisson(0.5, changed[0].shape)
    return changed


def hot(counts_cyx: Counts) -> Counts:
    changed = counts_cyx.copy()
    changed[0][np.random.default_rng(1).random(changed[0].shape) < 0.02] += 400
    return changed


def faint(counts_cyx: Counts) -> Counts:
    changed = counts_cyx.copy()
    changed[2] = np.random.default_rng(1).binomial(changed[2].astype(int), 0.12)
    return changed


DAMAGES: dict[Callable[[Counts], Counts], str] = {
    blurred: "image r0: out of focus or smeared: the finest structures are",
    saturated: "image r0: CD20 saturated in 3 % of pixels",
    drifting: "image r0: the signal falls by ",
    noise_only: "image r0: CD20 shows no more than noise (",
    hot: "image r0: CD20 has 2 % hot pixels",
    faint: "image r0: DNA1 is 10 times weaker than in the middle image",
}


@pytest.fixture(scope="module")
def clean() -> dict[str, ImageQuality]:
    return {f"r{seed}": measure_quality(tissue(seed), PANEL) for seed in range(4)}


def test_clean_images_are_quiet(clean: dict[str, ImageQuality]) -> None:
    assert find_suspicions(clean, PANEL) == []
    quality = clean["r0"]
    noise = dict(zip(quality.channels, quality.signal_to_noise, strict=True))
    assert noise["Xe131"] < 0.02 < 1 < noise["CD20"]
    assert 0.05 < quality.positive_share[0] < 0.4
    assert quality.positive_share[3] == 0
    assert abs(quality.image_drift) < 0.02
    assert quality.drift_of == "background"
    assert max(quality.saturated_share) == 0
    assert max(quality.hot_pixels) < 1e-3


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_made_damage_is_named_and_nothing_else(
    damage: Callable[[Counts], Counts], clean: dict[str, ImageQuality]
) -> None:
    image = tissue(0)
    image = replace(image, pixels_cyx=damage(image.pixels_cyx))
    found = find_suspicions({**clean, "r0": measure_quality(image, PANEL)}, PANEL)
    assert len(found) == 1
    assert str(found[0]).startswith(DAMAGES[damage])


def test_a_single_blurred_image_and_a_marker_that_never_works(
    clean: dict[str, ImageQuality],
) -> None:
    image = tissue(0)
    soft = measure_quality(replace(image, pixels_cyx=blurred(image.pixels_cyx)), PANEL)
    assert "out of focus" in str(find_suspicions({"r0": soft}, PANEL)[0])
    lost = {
        name: measure_quality(
            replace(tissue(seed), pixels_cyx=noise_only(tissue(seed).pixels_cyx)), PANEL
        )
        for seed, name in enumerate(("r0", "r1"))
    }
    (finding,) = find_suspicions(lost, PANEL)
    assert str(finding).startswith("CD20 shows no more than noise in any image")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_saturation_of_every_type(dtype: type[np.generic]) -> None:
    counts = np.minimum(tissue(0).pixels_cyx.astype(np.float64), 255).astype(dtype)
    image = replace(tissue(0), pixels_cyx=np.where(counts > 40, counts.dtype.type(40), counts))
    assert measure_quality(image, PANEL).saturated_share[2] > 0.05
    top = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1e30
    ceiling = np.zeros((5, 40, 40), dtype)
    ceiling[0, :4] = top
    share = measure_quality(replace(tissue(0), pixels_cyx=ceiling), PANEL).saturated_share[0]
    assert share == (0.1 if np.issubdtype(dtype, np.integer) else 0)


def test_finer_pixels_give_the_same_numbers() -> None:
    image = tissue(0)
    fine = np.kron(image.pixels_cyx.astype(np.float64) / 4, np.ones((1, 2, 2)))
    coarse = measure_quality(image, PANEL)
    finer = measure_quality(replace(image, pixels_cyx=fine, um_per_pixel=0.5), PANEL)
    for name in ("signal_to_noise", "positive_share", "detail_um", "level"):
        np.testing.assert_allclose(getattr(coarse, name), getattr(finer, name), rtol=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (3, 3), (20, 1)])
@pytest.mark.parametrize("value", [0, 7])
def test_constant_and_tiny_images_are_no_trouble(size: tuple[int, int], value: int) -> None:
    image = Image("r0", np.full((5, *size), value, np.uint16), PANEL.names, 1.0)
    found = measure_quality(image, PANEL)
    assert found.signal_to_noise == (0.0,) * 5
    assert len(quality_table({"r0": found}, PANEL)) == 6


def test_goes_through_json_and_into_a_table(clean: dict[str, ImageQuality]) -> None:
    text = json.dumps({name: q.to_dict() for name, q in clean.items()}, allow_nan=False)
    again = {name: ImageQuality.from_dict(told) for name, told in json.loads(text).items()}
    assert find_suspicions(again, PANEL) == find_suspicions(clean, PANEL)
    np.testing.assert_allclose(
        again["r1"].signal_to_noise, clean["r1"].signal_to_noise, atol=1e-6, rtol=0
    )
    table = quality(ImageSet.from_images([tissue(0)], PANEL))
    assert list(table["channel"]) == ["", *PANEL.names]
    assert (table["warning"] == "").all()


def test_real_images_are_quiet(real_data: Path) -> None:
    spleen = read_images(real_data / "spleen_imc")
    chosen = {name: measure_quality(spleen[name], spleen.panel) for name in ("r2", "r14", "r26")}
    assert find_suspicions(chosen, spleen.panel) == []
    noise_ic = np.array([q.signal_to_noise for q in chosen.values()])
    markers = list(spleen.panel.used)
    gas = [spleen.panel.index(name) for name in ("131Xe", "134Xe", "127I", "80ArAr")]
    assert noise_ic[:, gas].max() < 0.03 < 0.1 < noise_ic[:, markers].min()
    tile = read_images(real_data / "codex_expert_masks", um_per_pixel=0.377)
    told = find_suspicions({i.name: measure_quality(i, tile.panel) for i in tile}, tile.panel)
    assert [str(f) for f in told] == ["image R001_X003_Y004: CH_19 saturated in 0.1 % of pixels"]


def test_a_study_keeps_tells_and_shows_it(tmp_path: Path) -> None:
    from maskless.cells_file import read_cells
    from maskless.info import describe
    from maskless.report.figures import draw_all
    from maskless.report.page import write_report
    from maskless.running import run_study
    from maskless.simulate import simulate
    from studies import make_study

    raw = simulate(tmp_path / "tissue", "demo", images=2, size_px=96)
    study = make_study(tmp_path / "study", raw)
    run_study(study.folder, last="detect")
    cells = read_cells(study.cells_file)
    table = cells.uns["maskless"]["quality"]
    assert set(table["image"]) == set(cells.obs["image"])
    assert set(cells.var_names) < set(table["channel"])
    cells.uns["maskless"]["suspicious"] = '["image <r8>: CD20 saturated in 3 % of pixels"]'
    told = describe(study.folder)
    assert "staining of 2 images" in told
    assert "suspicious" in told
    figures = draw_all(cells, None, None, None, study.config.report, study.figures_folder)
    assert list(figures) == ["quality"]
    write_report(study.report_file, "study", cells, figures)
    page = study.report_file.read_text(encoding="utf-8")
    assert "Quality of the staining" in page
    assert "image &lt;r8&gt;: CD20 saturated in 3 % of pixels" in page
