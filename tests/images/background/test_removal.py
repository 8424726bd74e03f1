from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from maskless.config import CleanSettings
from maskless.errors import InputError, SettingsError
from maskless.images.background import BackgroundRemoval, background_files, prepare_background
from maskless.images.background.removal import class_number
from maskless.images.clean import clean
from maskless.images.image import Channel, Image, ImageSet, Panel

PANEL = Panel(
    (
        Channel("A"),
        Channel("B/C"),
        Channel("DNA1", kind="nuclear"),
        Channel("Xe", kind="background", used=False),
    )
)
SIZE = 60


def signal_of(seed: int) -> NDArray[np.bool_]:
    field = gaussian_filter(np.random.default_rng(seed).normal(size=(SIZE, SIZE)), 3)
    return field > np.quantile(field, 0.8)


def cohort(n: int = 2) -> ImageSet:
    """Counts; the signal of A is signal_of(number), that of B/C its complement's mirror image."""
    images = []
    for number in range(n):
        rng = np.random.default_rng([number, 7])
        a, b = signal_of(number), signal_of(number)[::-1]
        expected = np.stack([0.5 + 12 * a, 0.5 + 12 * b, 5 + 0 * a, 90 + 0 * a])
        images.append(Image(f"i{number}", rng.poisson(expected), PANEL.names, 1.0))
    return ImageSet.from_images(images, PANEL)


def settings(way: str, **more: object) -> CleanSettings:
    return CleanSettings(background_removal=way, **more)  # type: ignore[arg-type]


def removed(chosen: CleanSettings, folder: Path = Path()) -> list[NDArray[np.float32]]:
    images = cohort()
    removal = prepare_background(images, chosen, (), folder, 0)
    return [removal(i, i.pixels_cyx.astype(np.float32))[0] for i in images]


def f1(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


def write_labels(folder: Path, names: str, truth: NDArray[np.bool_], kinds: int = 2) -> None:
    labels = np.zeros((SIZE, SIZE), np.uint8)
    labels[5:55:6] = 1 + truth[5:55:6]
    labels[labels > kinds] = 0
    folder.mkdir(exist_ok=True)
    tifffile.imwrite(folder / names, labels)


def test_automatic_keeps_signal_and_leaves_nuclear_and_unused_channels_alone() -> None:
    for number, (image, clean_cyx) in enumerate(
        zip(cohort(), removed(settings("automatic")), strict=True)
    ):
        assert f1(clean_cyx[0] > 0, signal_of(number)) > 0.85
        kept = clean_cyx > 0
        np.testing.assert_array_equal(clean_cyx[kept], image.pixels_cyx[kept])
        np.testing.assert_array_equal(clean_cyx[2:], image.pixels_cyx[2:])


def test_automatic_needs_counts_of_any_size() -> None:
    chosen = settings("automatic")
    for factor in (0.01, 1e30):
        images = cohort().map(
            lambda image: replace(image, pixels_cyx=image.pixels_cyx * factor)  # noqa: B023
        )
        if factor < 1:
            with pytest.raises(InputError, match=r"are no counts.*nothing above 0"):
                prepare_background(images, chosen, (), Path(), 0)
        else:
            prepare_background(images, chosen, (), Path(), 0)


def test_markers_can_be_named() -> None:
    chosen = settings("automatic", background_markers=("B/C", "DNA1"))
    for image, clean_cyx in zip(cohort(), removed(chosen), strict=True):
        np.testing.assert_array_equal(clean_cyx[0], image.pixels_cyx[0])
        assert (clean_cyx[1] == 0).mean() > 0.5
    with pytest.raises(InputError, match=r"no such channel.*channel Y"):
        removed(settings("automatic", background_markers=("Y",)))


def test_weights_are_probabilities_if_asked_for() -> None:
    hard, soft = (
        removed(settings("automatic", background_weight=weight))[0][0]
        for weight in ("mask", "probability")
    )
    raw = cohort()["i0"].pixels_cyx[0]
    assert (soft <= raw).all()
    assert ((soft > 0.5 * raw) == (hard > 0))[raw > 0].all()


def test_a_classifier_learns_from_labels_common_to_all_markers_or_of_each(tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    write_labels(folder, "i0.tif", signal_of(0))  # none for the other image
    common = settings(
        "classifier", background_files="labels/{image}.tif", background_markers=("A",)
    )
    first, second = removed(common, tmp_path)
    assert f1(first[0] > 0, signal_of(0)) > 0.85
    assert f1(second[0] > 0, signal_of(1)) > 0.75
    again = removed(common, tmp_path)
    np.testing.assert_array_equal(second, again[1])

    write_labels(folder, "i0 B_C.tif", signal_of(0)[::-1])
    each = settings("classifier", background_files="labels/{image} {marker}.tif")
    first, _ = removed(each, tmp_path)
    assert f1(first[1] > 0, signal_of(0)[::-1]) > 0.85
    np.testing.assert_array_equal(first[0], cohort()["i0"].pixels_cyx[0])  # A has no labels


def test_labels_that_cannot_be_used(tmp_path: Path) -> None:
    chosen = settings("classifier", background_files="labels/{image}.tif")
    with pytest.raises(InputError, match=r"labels of both kinds.*channel A.*found 0 and 0"):
        removed(chosen, tmp_path)
    write_labels(tmp_path / "labels", "i0.tif", signal_of(0), kinds=1)
    with pytest.raises(InputError, match=r"channel A.*and 0 of them in 1 images"):
        removed(chosen, tmp_path)
    for labels, message in (
        (np.full((SIZE, SIZE), 3, np.uint8), "number that means nothing.*found 3"),
        (np.ones((SIZE, 5), np.uint8), "no label image"),
        (np.ones((SIZE, SIZE), np.float32), "no label image.*float32"),
    ):
        tifffile.imwrite(tmp_path / "labels" / "i0.tif", labels)
        with pytest.raises(InputError, match=message):
            removed(chosen, tmp_path)
    with pytest.raises(InputError, match="no marker has a file"):
        removed(settings("classifier", background_files="labels/{image}_{marker}.tif"), tmp_path)


def test_exported_probabilities_are_used(tmp_path: Path) -> None:
    for number in range(2):
        p_yx = np.where(signal_of(number), 0.9, 0.2)
        with h5py.File(tmp_path / f"i{number}.h5", "w") as content:
            content["exported_data"] = np.stack([p_yx, 1 - p_yx], axis=-1)
    chosen = settings("probabilities", background_files="{image}.h5", background_class=2)
    for number, clean_cyx in enumerate(removed(chosen, tmp_path)):
        raw = cohort()[f"i{number}"].pixels_cyx[:2]
        np.testing.assert_array_equal(clean_cyx[:2], raw * signal_of(number))
    weighted = chosen.model_copy(update={"background_weight": "probability"})
    np.testing.assert_allclose(
        removed(weighted, tmp_path)[0][0],
        cohort()["i0"].pixels_cyx[0] * np.where(signal_of(0), 0.9, 0.2),
        rtol=1e-6,
    )
    with pytest.raises(InputError, match=r"which class is background.*'background'.*i0\.h5"):
        removed(settings("probabilities", background_files="{image}.h5"), tmp_path)
    (tmp_path / "i1.h5").unlink()
    with pytest.raises(InputError, match=r"no exported probabilities.*i1\.h5"):
        removed(chosen, tmp_path)


def test_an_ilastik_project_is_run(real_data: Path, tmp_path: Path) -> None:
    shutil.copyfile(real_data / "ilastik_project" / "TestData.ilp", tmp_path / "p.ilp")
    raw = cohort()["i0"]
    for more in ({}, {"background_channels": PANEL.names[::-1]}):
        chosen = settings("ilastik", background_files="p.ilp", **more)
        removal = prepare_background(cohort(), chosen, (), tmp_path, 0)
        clean_cyx, _ = removal(raw, raw.pixels_cyx.astype(np.float32))
        from maskless import ilastik_probabilities

        shown = raw.pixels_cyx[::-1] if more else raw.pixels_cyx
        background_yx = ilastik_probabilities(tmp_path / "p.ilp", shown)[..., 2]
        np.testing.assert_array_equal(clean_cyx[:2], raw.pixels_cyx[:2] * (background_yx < 0.5))
    with pytest.raises(InputError, match=r"expected 4, found 2 \(A, DNA1\)"):
        removed(
            settings("ilastik", background_files="p.ilp", background_channels=("A", "DNA1")),
            tmp_path,
        )
    with pytest.raises(InputError, match="expected one of nucleus, cytoplasm, background"):
        removed(settings("ilastik", background_files="p.ilp", background_class="noise"), tmp_path)


@pytest.mark.parametrize(
    ("way", "files", "message"),
    [
        ("classifier", None, r"needs clean\.background_files"),
        ("probabilities", "p.h5", r"must hold \{image\}"),
        ("ilastik", "{image}.ilp", r"cannot hold \{image\}"),
    ],
)
def test_settings_that_make_no_sense(way: str, files: str | None, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        removed(settings(way, background_files=files))


def test_a_marker_of_which_nothing_is_left_is_a_problem_of_the_image() -> None:
    silent = Image("s", np.ones((4, SIZE, SIZE)), PANEL.names, 1.0)
    images = ImageSet.from_images([*cohort(), silent], PANEL)
    found = clean(images, settings("automatic"))
    assert found["s"].problems == (
        "all of A, B/C was taken for background (clean.background_removal)",
    )
    assert found["i0"].problems == ()
    assert found["i0"].pixels_cyx[0].max() > 1


def test_background_goes_before_scaling(tmp_path: Path) -> None:
    plain, without = (clean(cohort(), settings(way))["i0"] for way in ("none", "automatic"))
    assert (without.pixels_cyx[0] == 0).mean() > 0.6
    assert plain.pixels_cyx[0].max() == pytest.approx(without.pixels_cyx[0].max(), rel=0.3)
    np.testing.assert_array_equal(plain.pixels_cyx[3], without.pixels_cyx[3])


def test_what_was_done_can_be_written_down() -> None:
    def no_b(image: Image) -> Image:
        return replace(image, pixels_cyx=image.pixels_cyx * np.array([1, 0, 1, 1])[:, None, None])

    removal = prepare_background(cohort().map(no_b), settings("automatic"), (), Path(), 0)
    assert isinstance(removal, BackgroundRemoval)
    told = json.loads(json.dumps(removal.to_dict(), allow_nan=False))
    assert told["markers"] == ["A", "B/C"]
    assert set(told["cuts"]) == {"A", "B/C"}


def test_files_that_are_meant(tmp_path: Path) -> None:
    def files(way: str, pattern: str | None) -> list[str]:
        chosen = settings(way, background_files=pattern)
        found = background_files(chosen, PANEL, ["x", "y"], tmp_path)
        return [path.relative_to(tmp_path).as_posix() for path in found]

    assert files("automatic", None) == files("none", "a.ilp") == []
    assert files("ilastik", "a.ilp") == ["a.ilp"]
    assert files("ilastik", "{marker}.ilp") == ["A.ilp", "B_C.ilp"]
    assert files("classifier", "l/{image}.tif") == ["l/x.tif", "l/y.tif"]


def test_classes_by_name_or_number() -> None:
    names = ("Signal", "background ", "2")
    assert class_number("Background", names, Path("p")) == 1
    assert class_number(1, names, Path("p")) == 0
    assert class_number("2", names, Path("p")) == 2  # a name comes before a number
    for wrong in (4, "noise"):
        with pytest.raises(InputError, match="which class is background"):
            class_number(wrong, names, Path("p"))
    with pytest.raises(InputError, match="more than one"):
        class_number("a", ("a", "A"), Path("p"))
