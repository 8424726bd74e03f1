"""Training shared out among processes, as torchrun starts them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from maskless.running import run_study
from maskless.simulate import simulate
from studies import make_study


def torchrun(folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["--nproc-per-node", "2", "-m", "maskless", "train", str(folder)]
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", *command],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_torchrun_trains_the_encoder_of_one_process(tmp_path: Path) -> None:
    tissue = simulate(tmp_path / "tissue", "demo", images=2, size_px=96)
    slow = {"optimizer": "lars", "learning_rate": 0.5, "steps": 2}
    alone = make_study(tmp_path / "alone", tissue, train=slow)
    run_study(alone.folder, last="detect")

    early = torchrun(tmp_path / "none")
    assert early.returncode != 0
    assert "error:" in early.stderr
    together = shutil.copytree(alone.folder, tmp_path / "together")
    run_study(alone.folder, last="train")
    done = torchrun(together)
    assert done.returncode == 0, done.stderr
    assert "done: train" in done.stdout
    one, two = (
        load_file(folder / "encoder" / "encoder.safetensors") for folder in (alone.folder, together)
    )
    for name, value in one.items():
        if not name.startswith("activation"):
            torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4)
    assert not list(together.glob("encoder/pixels*"))
    assert len(alone.records()) == len((together / "run.jsonl").read_text().splitlines())
    assert "up to date" in torchrun(together).stdout
