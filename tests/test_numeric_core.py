"""What computes needs NumPy, SciPy, PyTorch and Numba alone: it runs where nothing else is."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import builtins

real = builtins.__import__
NOT_THERE = {"pydantic", "anndata", "pandas", "zarr", "typer", "rich", "defusedxml", "tifffile",
             "imagecodecs", "matplotlib", "sklearn", "filelock", "psutil"}

def guarded(name, *rest, **more):
    # Other packages may look for these; ours may not.
    ours = bool(rest) and str(rest[0].get("__name__")).startswith("maskless")
    if ours and name.split(".")[0] in NOT_THERE:
        raise ModuleNotFoundError(name)
    return real(name, *rest, **more)

builtins.__import__ = guarded
import maskless.cells, maskless.encoder, maskless.training
from types import SimpleNamespace
import torch

settings = SimpleNamespace(
    width=4, blocks=(1,), kernel=3, expansion=2, stem_stride=2, norm="marker", pooling="centre",
    pooling_radius_um=2.0, embedding=8,
)
encoder = maskless.encoder.Encoder(["a", "b"], settings)
print(tuple(encoder.embed(torch.rand(3, 2, 16, 16)).shape))
"""


def test_arrays_become_embeddings_without_the_packages_of_files_and_settings() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split("\n")[0] == "(3, 8)"
