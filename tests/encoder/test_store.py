"""The encoder on disk: the same afterwards, whole or absent, and nothing else is accepted."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import maskless.encoder.store as store
from maskless.config import EncoderSettings
from maskless.encoder import Encoder, fit_activation, load_encoder, save_encoder
from maskless.errors import InputError, SettingsError, StudyError

MARKERS = ["CD3", "CD20", "Überraschung / α"]
SETTINGS = EncoderSettings(width=3, blocks=(1, 1), embedding=8, pooling_radius_um=2.5)
EXTRA = {"scaling": {"cofactor": [1.0, 2.5, 5.0]}, "seed": 3}


def make(seed: int = 1) -> Encoder:
    encoder = Encoder(MARKERS, SETTINGS, pixel_um=0.5, seed=seed)
    views = torch.rand((20, 3, 16, 16), generator=torch.Generator().manual_seed(seed))
    fit_activation(encoder, [views], [0.1 * views])
    return encoder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_encoder(make(), tmp_path / "encoder", EXTRA)
    return tmp_path / "encoder"


def change_json(folder: Path, **changes: object) -> None:
    path = folder / "encoder.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes))


def change_weights(folder: Path, content: bytes, *, hashed: bool = True) -> None:
    (folder / "encoder.safetensors").write_bytes(content)
    if hashed:
        change_json(folder, sha256=store.hashlib.sha256(content).hexdigest())


def test_a_saved_encoder_comes_back_bit_for_bit(folder: Path) -> None:
    encoder, loaded = make(), load_encoder(folder)
    assert loaded.markers == tuple(MARKERS)
    assert loaded.settings == SETTINGS
    assert loaded.pixel_um == 0.5
    assert loaded.extra == EXTRA
    assert not loaded.training
    views = torch.rand(4, 3, 18, 18)
    assert torch.equal(loaded.embed(views), encoder.embed(views))
    assert torch.equal(loaded.activations(views), encoder.activations(views))
    assert torch.equal(loaded.activation.positive_above, encoder.activation.positive_above)


def test_saving_again_gives_the_same_bytes_and_keeps_what_is_extra(
    folder: Path, tmp_path: Path
) -> None:
    save_encoder(load_encoder(folder), tmp_path / "again")
    for name in ("encoder.safetensors", "encoder.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_other_files_of_the_folder_are_left_alone(folder: Path) -> None:
    (folder / "history.csv").write_text("step,loss\n")
    save_encoder(make(2), folder)
    assert (folder / "history.csv").read_text() == "step,loss\n"
    names = {path.name for path in folder.iterdir()}
    assert names == {"encoder.safetensors", "encoder.json", "history.csv"}


def test_a_double_encoder_is_saved_as_float32(tmp_path: Path) -> None:
    save_encoder(make().double(), tmp_path)
    assert load_encoder(tmp_path).stem_weight.dtype == torch.float32


def test_a_failed_write_leaves_the_old_encoder_and_no_temporary_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StudyError, match="No space left"):
        save_encoder(make(2), folder)
    monkeypatch.undo()
    assert {path.name for path in folder.iterdir()} == {"encoder.safetensors", "encoder.json"}
    assert torch.equal(load_encoder(folder).stem_weight, make().stem_weight)


def test_weights_of_another_save_are_noticed(folder: Path, tmp_path: Path) -> None:
    save_encoder(make(2), tmp_path / "other")
    (tmp_path / "other" / "encoder.safetensors").replace(folder / "encoder.safetensors")
    with pytest.raises(InputError, match=r"not those that encoder\.json was written with"):
        load_encoder(folder)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("code from a file was executed",))


def test_a_pickle_called_safetensors_is_refused_and_not_run(folder: Path, tmp_path: Path) -> None:
    torch.save({"bomb": Bomb()}, tmp_path / "bomb.pt")
    for content in (pickle.dumps(Bomb()), (tmp_path / "bomb.pt").read_bytes()):
        change_weights(folder, content)
        with pytest.raises(InputError, match="not a whole safetensors file"):
            load_encoder(folder)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_weights_cut_anywhere_are_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    save_encoder(make(), folder)
    whole = (folder / "encoder.safetensors").read_bytes()
    change_weights(folder, whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(InputError, match=r"encoder\.safetensors"):
        load_encoder(folder)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_descriptions_cut_anywhere_are_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    save_encoder(make(), folder)
    path = folder / "encoder.json"
    whole = path.read_bytes().rstrip()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(InputError, match=r"encoder\.json"):
        load_encoder(folder)


@pytest.mark.parametrize("name", ["encoder.safetensors", "encoder.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(InputError, match=rf"no such file \(file .*{name}\)"):
        load_encoder(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "something"}, "does not describe an encoder"),
        ({"version": 99}, "expected version 2, found version 99"),
        ({"markers": "CD3"}, "not a list of names"),
        ({"markers": ["CD3", 7]}, "not a list of names"),
        ({"markers": []}, "at least one marker"),
        ({"markers": ["a", "a", "b"]}, "twice"),
        ({"markers": ["CD3", "CD20"]}, "do not fit the architecture"),
        ({"pixel_um": "wide"}, "pixel size is no number"),
        ({"pixel_um": -1}, "pixel size"),
        ({"extra": 3}, "not an object"),
        ({"settings": None}, "settings"),
        ({"settings": {"width": "many"}}, "settings.width"),
        ({"settings": {"color": 1}}, "settings.color"),
        ({"settings": SETTINGS.model_dump() | {"blocks": [10**9]}}, "blocks"),
        ({"settings": SETTINGS.model_dump() | {"width": 4}}, "do not fit the architecture"),
    ],
)
def test_descriptions_that_fit_no_encoder_are_refused(
    folder: Path, changes: dict[str, object], message: str
) -> None:
    change_json(folder, **changes)
    with pytest.raises(InputError, match=message):
        load_encoder(folder)


def test_missing_tensors_and_broken_numbers_are_refused(folder: Path) -> None:
    state = safetensors.torch.load((folder / "encoder.safetensors").read_bytes())
    lacking = {name: value for name, value in state.items() if name != "fusion_bias"}
    change_weights(folder, safetensors.torch.save(lacking))
    with pytest.raises(InputError, match=r"fusion_bias \(8\) float32 expected, none found"):
        load_encoder(folder)
    broken = state | {"fusion_bias": state["fusion_bias"] * float("nan")}
    change_weights(folder, safetensors.torch.save(broken))
    with pytest.raises(InputError, match=r"NaN or infinite values.*fusion_bias"):
        load_encoder(folder)


@pytest.mark.parametrize(
    ("markers", "message"),
    [
        (["CD3", "CD20"], "missing Überraschung / α"),
        ([*MARKERS, "CD68"], "unknown to the encoder CD68"),
        (["CD20", "CD3", MARKERS[2]], "the same in another order"),
    ],
)
def test_another_panel_is_refused_with_the_difference(
    folder: Path, markers: list[str], message: str
) -> None:
    assert load_encoder(folder, MARKERS).markers == tuple(MARKERS)
    with pytest.raises(InputError, match=message):
        load_encoder(folder, markers)


def test_extra_values_that_are_no_json_are_refused(tmp_path: Path) -> None:
    for extra in ({"x": object()}, {"x": float("nan")}):
        with pytest.raises(SettingsError, match="JSON"):
            save_encoder(make(), tmp_path / "encoder", extra)
    assert not (tmp_path / "encoder").exists()
