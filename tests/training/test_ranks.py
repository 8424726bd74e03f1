import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cohort
import pytest
import torch
from cohort import TRAIN, train
from safetensors.torch import load_file

from maskless.errors import SettingsError
from maskless.training.ranks import Ranks, joined_ranks


def start(script, *arguments, count=2, **options):
    """Start processes as torchrun does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
        "PYTHONPATH": str(Path(cohort.__file__).parent),
    }
    return [
        subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        for rank in range(count)
    ]


def outcome(processes):
    results = [process.communicate(timeout=120) for process in processes]
    return [(p.returncode, *r) for p, r in zip(processes, results, strict=True)]


TRAINING = """
import sys
from pathlib import Path
from safetensors.torch import save_file
from cohort import TRAIN, train
from maskless.training.ranks import joined_ranks

with joined_ranks() as ranks:
    settings = TRAIN.model_validate(TRAIN.model_dump() | eval(sys.argv[2]))
    folder = Path(sys.argv[1])
    encoder, history = train(settings, checkpoint=folder / "checkpoint")
    save_file(encoder.state_dict(), folder / f"encoder-{ranks.number}")
    print(repr([record["loss"] for record in history]))
"""


def test_a_single_process_sends_nothing():
    values = torch.arange(3.0)
    with joined_ranks() as ranks:
        ranks.sum_(values)
        assert (ranks.number, ranks.count, ranks.any(True), ranks.any(False)) == (0, 1, True, False)
        assert ranks.first_decides(lambda: True)
    assert values.tolist() == [0, 1, 2]


def test_two_processes_train_the_encoder_of_one(tmp_path):
    # Few small steps: rounding grows with each, and AdamW takes the sign even of what is rounding.
    options = "{'optimizer': 'lars', 'learning_rate': 0.5, 'steps': 2}"
    settings = TRAIN.model_validate(TRAIN.model_dump() | eval(options))
    expected, history = train(settings)
    found = outcome(start(TRAINING, tmp_path, options))
    assert [code for code, _, _ in found] == [0, 0], found
    assert found[0][1] == found[1][1]
    losses = torch.tensor(eval(found[0][1]))
    torch.testing.assert_close(
        losses, torch.tensor([r["loss"] for r in history]), rtol=1e-4, atol=1e-4
    )
    one, other = (load_file(tmp_path / f"encoder-{number}") for number in (0, 1))
    for name, value in expected.state_dict().items():
        assert torch.equal(one[name], other[name])
        if not name.startswith("activation"):
            torch.testing.assert_close(one[name], value, rtol=1e-3, atol=1e-4)
    assert (tmp_path / "checkpoint").exists()
    # One process goes on from what two have written; here nothing is left to do.
    steps = []
    train(settings, checkpoint=tmp_path / "checkpoint", on_step=steps.append)
    assert steps == []


def test_a_stop_of_one_process_stops_both_after_the_same_step(tmp_path):
    script = TRAINING.replace(
        'checkpoint=folder / "checkpoint")',
        'checkpoint=folder / "checkpoint", on_step=lambda record: '
        '(folder / f"step-{ranks.number}").write_text(str(record["step"])))',
    )
    processes = start(script, tmp_path, "{'steps': 100000, 'checkpoint_seconds': 1000.0}")
    while not (tmp_path / "step-1").exists() and processes[1].poll() is None:
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    found = outcome(processes)
    assert found[1][0] == -signal.SIGTERM, found
    assert found[0][0] != 0, found  # as a signal stops it, or 130 where SIGINT is ignored
    assert (tmp_path / "step-0").read_text() == (tmp_path / "step-1").read_text()
    assert (tmp_path / "checkpoint").exists()


def test_processes_that_read_different_checkpoints_stop(tmp_path):
    settings = TRAIN.model_copy(update={"steps": 5})
    (tmp_path / "0").mkdir()
    (tmp_path / "1").mkdir()
    train(settings, checkpoint=tmp_path / "0" / "checkpoint")
    script = TRAINING.replace("Path(sys.argv[1])", "Path(sys.argv[1]) / str(ranks.number)")
    for code, _, error in outcome(start(script, tmp_path, "{'steps': 5}")):
        assert code == 1
        assert "different checkpoints (after step 5, 0)" in error


def test_the_first_decides_and_a_failure_there_leaves_nobody_waiting(tmp_path):
    script = """
from maskless.training.ranks import joined_ranks
with joined_ranks() as ranks:
    def decide():
        assert ranks.number == 0
        return True
    def fail():
        raise KeyError
    print(ranks.first_decides(decide))
    try:
        print(ranks.first_decides(fail))
    except KeyError:
        print("failed")
"""
    found = outcome(start(script))
    assert [out.split() for _, out, _ in found] == [["True", "failed"], ["True", "False"]]


def test_a_half_made_environment_is_told(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(SettingsError, match="do not find each other"), joined_ranks():
        pass


def test_ranks_without_a_group():
    assert Ranks.current() == Ranks(0, 1)
