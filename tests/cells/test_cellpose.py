from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from maskless.cells import cellpose, detect, detect_image
from maskless.config import DetectSettings
from maskless.errors import InputError, MissingExtraError, SettingsError
from maskless.images.image import Channel, Image, ImageSet, Panel

PANEL = Panel((Channel("DNA1", kind="nuclear"),))
PLANE = np.arange(600, dtype=np.float32).reshape(30, 20)
IMAGE = Image("one", PLANE[np.newaxis], PANEL.names, 0.5)


class StandIn:
    """Has the face of Cellpose 3's CellposeModel; finds one cell at x = 7, y = 21."""

    loaded: list[str] = []  # noqa: RUF012
    calls: list[dict[str, Any]] = []  # noqa: RUF012

    def __init__(self, gpu: bool, pretrained_model: str) -> None:
        if Path(pretrained_model).is_file() and b"broken" in Path(pretrained_model).read_bytes():
            raise RuntimeError("Invalid magic number")
        self.pretrained_model = pretrained_model
        StandIn.loaded.append(pretrained_model)

    def eval(self, x: NDArray[np.float32], **options: Any) -> tuple[Any, ...]:
        StandIn.calls.append(options)
        masks_yx = np.zeros(x.shape, dtype=np.uint16)
        masks_yx[20:23, 6:9] = 1
        return masks_yx, [], []


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    models: Any = ModuleType("cellpose.models")
    models.CellposeModel = StandIn
    models.MODEL_NAMES = ["cyto3", "nuclei"]
    models.get_user_models = lambda: ["mine"]
    monkeypatch.setitem(sys.modules, "cellpose", ModuleType("cellpose"))
    monkeypatch.setitem(sys.modules, "cellpose.models", models)
    cellpose._model.cache_clear()
    StandIn.loaded.clear()
    StandIn.calls.clear()
    yield
    cellpose._model.cache_clear()


def settings(model: str | None) -> DetectSettings:
    return DetectSettings(method="cellpose", cellpose_model=model)


@pytest.mark.usefixtures("installed")
def test_weights_are_found_loaded_once_and_recorded(tmp_path: Path) -> None:
    (tmp_path / "CP_TU").write_bytes(b"weights")
    two = [IMAGE, Image("two", IMAGE.pixels_cyx, PANEL.names, 0.5)]
    cells = detect(ImageSet.from_images(two, PANEL), settings("CP_TU"), tmp_path)
    np.testing.assert_allclose(cells.obs[["x", "y"]], [[7, 21], [7, 21]])
    assert StandIn.loaded == [str((tmp_path / "CP_TU").resolve())]
    assert cells.uns["maskless"]["detector"] == {
        "method": "cellpose",
        "weights": "CP_TU",
        "weights_sha256": hashlib.sha256(b"weights").hexdigest(),
    }


@pytest.mark.usefixtures("installed")
def test_the_size_of_nuclei_is_told_in_pixels() -> None:
    detect_image(IMAGE, PANEL, settings("nuclei"))
    assert StandIn.calls[0]["diameter"] == pytest.approx(2.8 * 2.2 / 0.5)
    assert StandIn.calls[0]["channels"] == [0, 0]


@pytest.mark.usefixtures("installed")
def test_unknown_weights_are_an_error_not_the_default_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"CP_XX.*cyto3, nuclei, mine"):
        detect_image(IMAGE, PANEL, settings("CP_XX"), tmp_path)
    assert StandIn.loaded == []


@pytest.mark.usefixtures("installed")
def test_weights_that_do_not_load_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "CP_TU").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"cannot load.*CP_TU.*magic number"):
        detect_image(IMAGE, PANEL, settings("CP_TU"), tmp_path)


def test_a_model_must_be_named() -> None:
    with pytest.raises(SettingsError, match="cellpose_model"):
        detect_image(IMAGE, PANEL, settings(None))


def test_without_cellpose_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "cellpose", None)
    monkeypatch.delitem(sys.modules, "cellpose.models", raising=False)
    cellpose._model.cache_clear()
    (tmp_path / "CP_TU").write_bytes(b"weights")
    for model in ("nuclei", "CP_TU"):
        with pytest.raises(MissingExtraError, match=r"maskless\[cellpose\]"):
            detect_image(IMAGE, PANEL, settings(model), tmp_path)
