"""Shared by all tests: where the real images are, and small made ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

# Compiling and busy machines are slow; tests assert no timings.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

if not torch.cuda.is_available():
    # Kernels for GPUs run in Triton's interpreter. It must be said before they are imported.
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real images; tests that need it skip where it is absent.

    It is looked for in the environment variable MASKLESS_DATA and in ``shared/data`` beside the
    checkout.
    """
    places = [Path(p) for p in [os.environ.get("MASKLESS_DATA", "")] if p]
    places.append(Path(__file__).resolve().parents[2] / "shared" / "data")
    for place in places:
        if (place / "spleen_imc" / "panel.csv").is_file():
            return place
    pytest.skip("the real images are not here (set MASKLESS_DATA to their folder)")
