from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from maskless.errors import InputError
from maskless.images.background.exported import read_exported_probabilities

SHAPE = (6, 9)


def probabilities() -> NDArray[np.float32]:
    found = np.random.default_rng(2).dirichlet([1, 1, 1], SHAPE)
    return (found / found.sum(-1, keepdims=True)).astype(np.float32)


def hdf5(path: Path, values: NDArray[np.generic], axes: str | None) -> Path:
    with h5py.File(path, "w") as content:
        data = content.create_dataset("exported_data", data=values)
        if axes is not None:
            keys = [{"key": axis, "typeFlags": 2, "resolution": 0} for axis in axes]
            data.attrs["axistags"] = json.dumps({"axes": keys})
    return path


def test_hdf5_with_its_axes_in_any_order(tmp_path: Path) -> None:
    p_yxk = probabilities()
    for number, (axes, values) in enumerate(
        [
            ("yxc", p_yxk),
            ("zyxc", p_yxk[None]),
            ("cxy", p_yxk.transpose(2, 1, 0)),
            ("tczyx", p_yxk.transpose(2, 0, 1)[None, :, None]),
            (None, p_yxk),
        ]
    ):
        file = hdf5(tmp_path / f"{number}.h5", values, axes)
        np.testing.assert_array_equal(read_exported_probabilities(file, SHAPE), p_yxk)


def test_tiff_of_whole_numbers_and_of_floats(tmp_path: Path) -> None:
    p_yxk = probabilities()
    file = tmp_path / "p.tiff"
    for scale, dtype in ((255, np.uint8), (65535, np.uint16)):
        tifffile.imwrite(file, np.round(p_yxk * scale).astype(dtype), photometric="rgb")
        found = read_exported_probabilities(file, SHAPE)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, p_yxk, atol=0.51 / scale)
    tifffile.imwrite(file, p_yxk.transpose(2, 0, 1), photometric="minisblack", metadata=None)
    np.testing.assert_array_equal(read_exported_probabilities(file, SHAPE), p_yxk)
    tifffile.imwrite(file, p_yxk[..., 0])
    np.testing.assert_array_equal(read_exported_probabilities(file, SHAPE), p_yxk[..., :1])


def test_an_enlarged_export_is_averaged(tmp_path: Path) -> None:
    p_yxk = probabilities()
    file = hdf5(tmp_path / "p.h5", p_yxk.repeat(2, axis=0).repeat(2, axis=1), "yxc")
    np.testing.assert_allclose(read_exported_probabilities(file, SHAPE), p_yxk, rtol=1e-6)


def test_the_real_exports(real_data: Path) -> None:
    folder = real_data / "ilastik_project" / "ilastik"
    stem = "20210305_NE_mockData1_s0_a2_ac_ilastik"
    with tifffile.TiffFile(folder / f"{stem}.tiff") as small:
        shape = small.series[0].shape[1:]
    found = read_exported_probabilities(folder / f"{stem}_s2_Probabilities.tiff", shape)
    assert found.shape == (*shape, 3)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-4)


def test_what_is_wrong_is_one_line_naming_file_and_image(tmp_path: Path) -> None:
    p_yxk = probabilities()
    text = tmp_path / "text.tiff"
    text.write_text("nothing")
    two = tmp_path / "two.h5"
    with h5py.File(two, "w") as content:
        content["a"] = content["b"] = p_yxk
    for file, message in (
        (tmp_path / "none.h5", "there are no exported probabilities"),
        (text, "unreadable"),
        (two, "expected one dataset"),
        (hdf5(tmp_path / "size.h5", p_yxk[:-1], "yxc"), "found 5 rows x 9 columns"),
        (hdf5(tmp_path / "big.h5", p_yxk * 100, "yxc"), "expected 0 to 1"),
        (hdf5(tmp_path / "nan.h5", p_yxk * np.nan, "yxc"), "expected 0 to 1"),
        (hdf5(tmp_path / "time.h5", np.stack([p_yxk] * 2), "tyxc"), "axes tyxc"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            read_exported_probabilities(file, SHAPE, "patient 1")
        assert "image patient 1" in str(caught.value)
        assert file.name in str(caught.value)
