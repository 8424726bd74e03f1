"""Bad input: one clear line, exit 1, no half-written study; the rest goes on with --keep-going."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from maskless.cells_file import read_cells
from maskless.errors import InputError, MasklessError
from maskless.report import write_report
from maskless.running import run_study
from maskless.simulate import simulate
from studies import make_study


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(tmp_path_factory.mktemp("raw") / "tissue", "demo", images=2, size_px=96)


@pytest.fixture
def tissue(raw: Path, tmp_path: Path) -> Path:
    return shutil.copytree(raw, tmp_path / "tissue")


def first_image(tissue: Path) -> Path:
    return sorted(tissue.glob("*/image.ome.tif"))[0]


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change the pixels of an OME-TIFF and keep its channel names and pixel size."""
    with tifffile.TiffFile(path) as tif:
        names = [
            c["Name"]
            for c in tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]["Pixels"]["Channel"]
        ]
        pixels = tif.asarray()
    metadata = {
        "axes": "CYX",
        "Channel": {"Name": names},
        "PhysicalSizeX": 1.0,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": 1.0,
        "PhysicalSizeYUnit": "µm",
    }
    tifffile.imwrite(path, change(pixels), ome=True, photometric="minisblack", metadata=metadata)


def with_nan(pixels: np.ndarray) -> np.ndarray:
    changed = pixels.astype(np.float32)
    changed[3, 5, 5] = np.nan
    return changed


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut": (lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 3]), r"image\.ome\.tif"),
    "not an image": (lambda p: p.write_text("hello"), r"image\.ome\.tif"),
    "no bytes": (lambda p: p.write_bytes(b""), r"image\.ome\.tif"),
    "NaN": (lambda p: rewrite(p, with_nan), r"NaN.*channel"),
    "all zero": (lambda p: rewrite(p, np.zeros_like), r"empty|0 everywhere"),
    "too small": (
        lambda p: rewrite(p, lambda x: x[:, :9, :9]),
        r"smaller than.*expected.*found 9 x 9",
    ),
}


@pytest.mark.parametrize("damage", sorted(DAMAGES))
def test_a_bad_image_is_one_line_and_nothing_is_written(
    damage: str, tissue: Path, tmp_path: Path
) -> None:
    spoil, said = DAMAGES[damage]
    spoil(first_image(tissue))
    study = make_study(tmp_path / "study", tissue)
    with pytest.raises(InputError, match=said) as caught:
        run_study(study.folder, last="clean")
    assert "\n" not in str(caught.value)
    assert "simulated" in str(caught.value)
    assert not study.inventory_file.exists()
    assert not list(study.folder.glob("images/*.zarr"))


@pytest.mark.parametrize("damage", ["cut", "NaN", "all zero", "too small"])
def test_the_other_images_go_on_with_keep_going(damage: str, tissue: Path, tmp_path: Path) -> None:
    DAMAGES[damage][0](first_image(tissue))
    study = make_study(tmp_path / "study", tissue)
    run_study(study.folder, last="detect", keep_going=True)
    left_out = json.loads(study.inventory_file.read_text())["left_out"]
    assert len(left_out) == 1
    assert left_out[0]["reason"]
    assert len(set(read_cells(study.cells_file).obs["image"])) == 1


def test_no_nuclei_found(tissue: Path, tmp_path: Path) -> None:
    panel = (tissue / "panel.csv").read_text()
    assert "DNA1" in panel

    names = [line.split(",")[1] for line in panel.splitlines()[1:]]
    nuclear = [i for i, name in enumerate(names) if name in ("DNA1", "HistoneH3")]

    def blank(pixels: np.ndarray) -> np.ndarray:
        changed = pixels.copy()
        changed[nuclear] = 0
        return changed

    rewrite(first_image(tissue), blank)
    study = make_study(tmp_path / "study", tissue)
    with pytest.raises(InputError, match=r"nuclei|nuclear"):
        run_study(study.folder, last="detect")
    assert not study.cells_file.exists()
    run_study(study.folder, last="detect", keep_going=True)
    assert len(set(read_cells(study.cells_file).obs["image"])) == 1


def test_fewer_cells_than_neighbours(tissue: Path, tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", tissue, cluster={"k": 5000})
    with pytest.raises(InputError, match=r"fewer cells than neighbours.*k = 5000.*Lower k"):
        run_study(study.folder)


def test_a_panel_that_does_not_fit(tissue: Path, tmp_path: Path) -> None:
    lines = (tissue / "panel.csv").read_text().splitlines()
    (tissue / "panel.csv").write_text("\n".join([*lines, "18,CD999,Lu175,marker"]) + "\n")
    study = make_study(tmp_path / "study", tissue)
    with pytest.raises(InputError, match=r"CD999"):
        run_study(study.folder, last="read")


def test_images_that_are_not_there(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no such file or folder.*nowhere.*study\.toml"):
        run_study(study.folder)


def test_strict_makes_a_recorded_problem_an_error(tissue: Path, tmp_path: Path) -> None:
    def one_channel_empty(pixels: np.ndarray) -> np.ndarray:
        changed = pixels.copy()
        changed[4] = 0
        return changed

    rewrite(first_image(tissue), one_channel_empty)
    study = make_study(tmp_path / "study", tissue)
    run_study(study.folder, last="read")
    entries = json.loads(study.inventory_file.read_text())["images"]
    assert sum("is 0 everywhere" in p for e in entries for p in e["problems"]) == 1
    with pytest.raises(InputError, match="is 0 everywhere"):
        run_study(study.folder, first="read", last="read", strict=True)


def test_the_command_line_says_one_line_and_exits_with_1(tissue: Path, tmp_path: Path) -> None:
    first_image(tissue).write_bytes(b"II*\x00 broken")
    study = make_study(tmp_path / "study", tissue)
    found = subprocess.run(
        [sys.executable, "-m", "maskless.cli", "run", str(study.folder), "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1
    assert found.stdout == ""
    assert len(found.stderr.splitlines()) == 1
    assert found.stderr.startswith("error: ")
    assert "Traceback" not in found.stderr


STRANGE = ("CD3/TCRβ", "=SUM(A1)", '<b>"CD8"</b>', "CD 20; α-SMA", "..", "标记", "nan")


def test_strange_names_constant_and_negative_channels_go_through_everything(
    tissue: Path, tmp_path: Path
) -> None:
    shutil.rmtree(sorted(p for p in tissue.iterdir() if p.is_dir())[1])
    image = first_image(tissue)

    def spoil(pixels: np.ndarray) -> np.ndarray:
        changed = pixels.astype(np.int32)
        changed[0] = 7
        changed[1, :3, :5] = -2
        return changed

    rewrite(image, spoil)
    with tifffile.TiffFile(image) as opened:
        pixels = opened.asarray()
    tifffile.imwrite(image, pixels, photometric="minisblack")
    with (tissue / "panel.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    for row, name in zip(rows, STRANGE, strict=False):
        row["name"], row["metal"], row["kind"] = name, "", "marker"
    with (tissue / "panel.csv").open("w", encoding="utf-8-sig", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), delimiter=";")  # BOM, CRLF, semicolons
        writer.writeheader()
        writer.writerows(rows)
    study = make_study(tmp_path / "study", tissue, images={"um_per_pixel": 1.0})
    run_study(study.folder, last="cluster")
    cells = read_cells(study.cells_file)
    assert list(cells.var_names[: len(STRANGE)]) == list(STRANGE)
    assert np.isfinite(cells.X).all()
    np.testing.assert_allclose(cells.X[:, 0], 0, atol=1e-4)  # a constant channel tells nothing
    problems = " ".join(json.loads(study.inventory_file.read_text())["images"][0]["problems"])
    assert "15 pixels of channel =SUM(A1) are negative" in problems
    write_report(study.report_file, "study", cells, {})
    page = study.report_file.read_text(encoding="utf-8")
    assert "&lt;b&gt;&quot;CD8&quot;&lt;/b&gt;" in page
    assert '<b>"CD8"</b>' not in page


@pytest.mark.parametrize(
    ("count", "stage", "said"),
    [
        (0, "detect", "no cells were found"),
        (1, "train", "cells"),
        (2, "cluster", "fewer cells than neighbours"),
    ],
)
def test_no_cell_one_and_two(
    count: int, stage: str, said: str, tissue: Path, tmp_path: Path
) -> None:
    shutil.rmtree(sorted(p for p in tissue.iterdir() if p.is_dir())[1])
    rows = "".join(f"{30 + 9 * i},{7 + 20 * i}\n" for i in range(count))
    first_image(tissue).with_name("few.csv").write_text("y,x\n" + rows)
    study = make_study(
        tmp_path / "study", tissue, detect={"method": "centres", "files": "{image}/few.csv"}
    )
    with pytest.raises(MasklessError, match=said) as caught:
        run_study(study.folder)
    assert "\n" not in str(caught.value)
    if stage != "detect":
        cells = read_cells(study.cells_file)
        assert cells.obs[["y", "x"]].to_numpy()[0].tolist() == [30, 7]
    assert (stage == "cluster") == (study.encoder_folder / "encoder.safetensors").exists()


def test_a_missing_pixel_size_is_one_line_that_says_what_to_do(
    tissue: Path, tmp_path: Path
) -> None:
    with tifffile.TiffFile(first_image(tissue)) as opened:
        pixels = opened.asarray()
    tifffile.imwrite(first_image(tissue), pixels, photometric="minisblack")
    study = make_study(tmp_path / "study", tissue)
    with pytest.raises(InputError, match=r"size of a pixel.*um-per-pixel") as caught:
        run_study(study.folder, last="read")
    assert "\n" not in str(caught.value)
