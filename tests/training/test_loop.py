import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import cohort
import numpy as np
import pytest
import torch
from cohort import ENCODER, TRAIN, train
from safetensors.torch import load_file, save_file

from maskless import progress
from maskless.cells import Atlas
from maskless.encoder import Encoder
from maskless.errors import InputError, SettingsError, TrainingError
from maskless.training import step, train_encoder


class Killed(BaseException):
    """What stands for a kill: nothing catches it by accident."""


def same(one, other):
    (first, history), (second, history_2) = one, other
    a, b = first.state_dict(), second.state_dict()
    return (
        history == history_2
        and a.keys() == b.keys()
        and all(torch.equal(a[key], b[key]) for key in a)
    )


def stop_after(step):
    def on_step(record):
        if record["step"] == step:
            raise Killed

    return on_step


@pytest.fixture(scope="module")
def whole():
    return train()


def test_trains_and_tells_each_step(whole):
    encoder, history = whole
    assert [record["step"] for record in history] == list(range(1, 9))
    assert all(np.isfinite(record["loss"]) for record in history)
    assert history[1]["learning_rate"] == TRAIN.learning_rate
    assert encoder.markers == ("CD3", "CD20")
    assert not encoder.training
    views = torch.rand(3, 2, 12, 12)
    assert (encoder.activations(views) >= 0).all()  # they are calibrated


@pytest.mark.parametrize("optimizer", ["adamw", "lars"])
def test_the_loss_falls(optimizer):
    rate = {"adamw": 5e-3, "lars": 4.6}[optimizer]
    settings = TRAIN.model_copy(
        update={"steps": 60, "optimizer": optimizer, "learning_rate": rate, "cells_per_step": 16}
    )
    _, history = train(settings)
    losses = [record["loss"] for record in history]
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.1


def test_the_same_seed_gives_the_same_bits_and_another_does_not(whole):
    assert same(train(), whole)
    assert not same(train(seed=4), whole)


def test_global_random_state_and_settings_are_left_alone():
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    expected = np.random.get_state()[1].copy()  # noqa: NPY002
    train(TRAIN.model_copy(update={"steps": 1}))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    np.testing.assert_array_equal(np.random.get_state()[1], expected)  # noqa: NPY002


@pytest.mark.parametrize("optimizer", ["adamw", "lars"])
@pytest.mark.parametrize("stop", [1, 5])
def test_taken_up_again_bit_for_bit(tmp_path, optimizer, stop):
    settings = TRAIN.model_copy(update={"optimizer": optimizer})
    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(Killed):
        train(settings, checkpoint=checkpoint, on_step=stop_after(stop))
    steps = []
    resumed = train(settings, checkpoint=checkpoint, on_step=lambda r: steps.append(r["step"]))
    assert steps == list(range(stop + 1, 9))
    assert same(resumed, train(settings))


def test_a_finished_training_is_not_repeated(tmp_path, whole):
    checkpoint = tmp_path / "checkpoint"
    train(checkpoint=checkpoint)
    steps = []
    again = train(checkpoint=checkpoint, on_step=steps.append)
    assert steps == []
    assert same(again, whole)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_stopped_process_saves_and_can_be_taken_up(tmp_path, whole, number):
    checkpoint = tmp_path / "checkpoint"
    process = subprocess.Popen(
        [sys.executable, cohort.__file__, str(checkpoint), "1000"],  # would not save by itself
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(3):
        process.stdout.readline()
    assert not checkpoint.exists()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -number
    assert ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)
    steps = []
    resumed = train(checkpoint=checkpoint, on_step=lambda record: steps.append(record["step"]))
    assert 4 <= steps[0] <= 8
    assert same(resumed, whole)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_killed_process_can_be_taken_up(tmp_path, whole):
    checkpoint = tmp_path / "checkpoint"
    process = subprocess.Popen(
        [sys.executable, cohort.__file__, str(checkpoint), "1e-9"],
        stdout=subprocess.PIPE,
        text=True,
    )
    for _ in range(3):
        process.stdout.readline()
    process.kill()
    process.communicate(timeout=60)
    steps = []
    resumed = train(checkpoint=checkpoint, on_step=lambda record: steps.append(record["step"]))
    assert steps[0] > 1
    assert same(resumed, whole)


def _cut(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def _flip(path):
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def _empty(path):
    path.write_bytes(b"")


def _foreign(path):
    save_file({"x": torch.zeros(3)}, path)


def _folder(path):
    path.unlink()
    path.mkdir()


class _Bomb:
    def __reduce__(self):
        return os.abort, ()


def _pickle_bomb(path):
    path.write_bytes(pickle.dumps(_Bomb()))


@pytest.mark.parametrize("damage", [_cut, _flip, _empty, _foreign, _pickle_bomb])
def test_a_damaged_checkpoint_is_told_and_training_starts_again(
    tmp_path, whole, damage, monkeypatch, capsys
):
    monkeypatch.setattr(progress, "_mode", "plain")
    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(Killed):
        train(checkpoint=checkpoint, on_step=stop_after(5))
    damage(checkpoint)
    steps = []
    resumed = train(checkpoint=checkpoint, on_step=lambda record: steps.append(record["step"]))
    assert steps[0] == 1
    assert same(resumed, whole)
    assert "training starts again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 4}, "seed was 3, is 4"),
        ({"settings": TRAIN.model_copy(update={"temperature": 0.3})}, "train.temperature was 0.2"),
        ({"encoder": ENCODER.model_copy(update={"kernel": 5})}, "encoder.kernel was 3, is 5"),
        ({"cells": cohort.some_cells(21)}, "cells was"),
    ],
)
def test_a_checkpoint_of_another_training_is_told(tmp_path, monkeypatch, capsys, change, told):
    monkeypatch.setattr(progress, "_mode", "plain")
    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(Killed):
        train(checkpoint=checkpoint, on_step=stop_after(2))
    steps = []
    train(checkpoint=checkpoint, on_step=lambda record: steps.append(record["step"]), **change)
    assert steps[0] == 1
    assert told in capsys.readouterr().err


def test_how_often_it_is_saved_does_not_make_another_training(tmp_path, whole):
    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(Killed):
        train(checkpoint=checkpoint, on_step=stop_after(4))
    steps = []
    often = TRAIN.model_copy(update={"checkpoint_seconds": 1e9})
    assert same(train(often, checkpoint=checkpoint, on_step=steps.append), whole)
    assert len(steps) == 4


def test_a_loss_that_is_not_finite_stops_and_leaves_the_checkpoint(tmp_path, monkeypatch):
    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(Killed):
        train(checkpoint=checkpoint, on_step=stop_after(4))
    before = checkpoint.read_bytes()
    monkeypatch.setattr(step, "nt_xent", lambda z, *_, **__: z.sum() * torch.nan)
    with pytest.raises(TrainingError, match=r"loss is not a finite number at step 5 of 8"):
        train(checkpoint=checkpoint)
    assert checkpoint.read_bytes() == before
    assert "encoder.stem_weight" in load_file(checkpoint)


def test_a_gradient_that_is_not_finite_stops(monkeypatch):
    monkeypatch.setattr(step, "nt_xent", lambda z, *_, **__: (z - z).sum().sqrt())
    with pytest.raises(TrainingError, match="gradient is not a finite number at step 1"):
        train()


def test_a_failed_write_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(Killed):
        train(checkpoint=checkpoint, on_step=stop_after(4))
    before = checkpoint.read_bytes()

    def write_a_part(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise Killed

    monkeypatch.setattr("maskless.training.checkpoint.save_file", write_a_part)
    with pytest.raises(Killed):
        train(checkpoint=checkpoint)
    assert checkpoint.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_no_steps_give_the_random_encoder():
    encoder, history = train(TRAIN.model_copy(update={"steps": 0, "fusion": "trained"}))
    assert history == []
    random = Encoder(("CD3", "CD20"), ENCODER, 1.0, 3)
    assert torch.equal(encoder.stem_weight, random.stem_weight)
    assert torch.equal(encoder.fusion_weight, random.fusion_weight)
    assert (encoder.activations(torch.rand(3, 2, 12, 12)) >= 0).all()


def test_fewer_cells_than_a_step_takes(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_mode", "plain")
    _, history = train(cells=cohort.some_cells(2))
    assert len(history) == 8
    assert "all 2 cells; 6 were asked for" in capsys.readouterr().err


def test_what_cannot_be_trained_is_told():
    with pytest.raises(InputError, match="too few cells"):
        train(cells=cohort.some_cells(1))
    with pytest.raises(InputError, match="too few cells"):
        train(cells=(np.empty(0, int), np.empty((0, 2))))
    with pytest.raises(SettingsError, match="two or more views"):
        train(TRAIN.model_copy(update={"view_um": (12.0,)}))
    atlas = Atlas.build(cohort.image_set(), 2.0, 40.0)
    with pytest.raises(SettingsError, match="atlas has pixels of 2"):
        train_encoder(atlas, *cohort.some_cells(), ENCODER, TRAIN, 0)


def test_without_projection():
    _, history = train(TRAIN.model_copy(update={"projection": False, "steps": 2}))
    assert np.isfinite(history[-1]["loss"])
