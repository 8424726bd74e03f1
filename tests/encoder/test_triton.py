"""The Triton towers: the reference's numbers and gradients; in the interpreter without a GPU."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from maskless.config import EncoderSettings
from maskless.encoder import Encoder, paths
from maskless.encoder.triton_plan import filled
from maskless.errors import SettingsError

if not (sys.platform == "linux" and os.uname().machine == "x86_64"):
    pytest.importorskip("triton", reason="Triton is for Linux on x86-64")

from maskless.encoder import triton_towers
from maskless.encoder.triton_towers import triton_features

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DEFAULT = EncoderSettings(width=8, embedding=8)
PAPER = EncoderSettings(width=4, blocks=(1, 1), stem_stride=1, pooling="mean", embedding=8)
SMALL = EncoderSettings(width=4, blocks=(1,), embedding=8)
TOWERS = [
    (DEFAULT, 12, 13),
    (PAPER, 9, 8),
    (EncoderSettings(width=16, blocks=(1,), norm="none", embedding=8), 14, 12),
    (EncoderSettings(width=12, blocks=(1, 2), kernel=5, expansion=3, embedding=8), 13, 12),
    (EncoderSettings(width=3, blocks=(1, 1, 1), expansion=1, embedding=8), 15, 17),
    (EncoderSettings(width=20, blocks=(1,), expansion=4, stem_stride=1, embedding=8), 8, 7),
    (EncoderSettings(width=4, blocks=(1,), kernel=7, embedding=8), 20, 6),
]


@pytest.fixture(autouse=True)
def few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few that each has several tiles; the interpreter takes its time for each program."""
    monkeypatch.setattr(triton_towers, "_PROGRAMS", 3)


def make(settings: EncoderSettings, markers: int = 2, seed: int = 0) -> Encoder:
    """An encoder whose every parameter counts."""
    encoder = Encoder([f"m{i}" for i in range(markers)], settings, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return encoder.to(DEVICE)


def random_views(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def with_gradients(
    encoder: Encoder, views: torch.Tensor, slope: torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    encoder.zero_grad()
    features = encoder.features(views)
    features.backward(slope)
    named = encoder.named_parameters()
    return features.detach(), {n: p.grad.clone() for n, p in named if p.grad is not None}


def error(found: torch.Tensor, true: torch.Tensor) -> float:
    return float((found.double() - true).abs().max() / true.abs().max())


def compare(
    encoder: Encoder, views: torch.Tensor, tolerance: float, gradient_tolerance: float
) -> None:
    exact = copy.deepcopy(encoder).double()
    slope = random_views(*views.shape[:2], encoder.settings.width, seed=1)
    features, gradients = with_gradients(encoder, views, slope)
    exact.path = "reference"
    true, true_gradients = with_gradients(exact, views.double(), slope.double())
    assert error(features, true) < tolerance
    assert gradients.keys() == true_gradients.keys()
    for name, gradient in gradients.items():
        assert error(gradient, true_gradients[name]) < gradient_tolerance, name


@pytest.mark.parametrize(("chosen", "height", "length"), TOWERS)
def test_features_and_gradients_are_those_of_the_reference_in_float64(
    chosen: EncoderSettings, height: int, length: int
) -> None:
    encoder = make(chosen, 2 if chosen is PAPER else 1)
    encoder.path = "triton-float32"
    assert encoder.path == "triton-float32"
    compare(encoder, random_views(2, len(encoder.markers), height, length), 1e-5, 1e-4)


@pytest.mark.parametrize("chosen", [DEFAULT, PAPER])
def test_bfloat16_is_close(chosen: EncoderSettings) -> None:
    encoder = make(chosen, 1)
    encoder.path = "triton"
    assert encoder.path == "triton"
    compare(encoder, random_views(3, 1, 12, 12), 3e-2, 1e-1)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_other_markers_change_no_bit_of_features_or_gradients() -> None:
    encoder = make(SMALL)
    encoder.path = "triton"
    views, slope = random_views(2, 2, 6, 6), random_views(2, 2, 4, seed=1)
    other = views.clone()
    other[:, 1] = float("nan")
    before, gradients_before = with_gradients(encoder, views, slope)
    after, gradients_after = with_gradients(encoder, other, slope)
    assert torch.equal(before[:, 0], after[:, 0])
    assert after[:, 1].isnan().all()
    for name, gradient in gradients_before.items():
        assert torch.equal(gradient[0], gradients_after[name][0]), name


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_view_without_finite_pixels_harms_no_other() -> None:
    encoder = make(SMALL, 1)
    encoder.path = "triton"
    views = random_views(3, 1, 6, 6)
    with torch.no_grad():
        before = encoder.features(views)
        views[1] = float("inf")
        after = encoder.features(views)
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert after[1].isnan().all()


def test_many_views_pass_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = make(SMALL, 1)
    encoder.path = "triton-float32"
    views = random_views(3, 1, 6, 6)
    with torch.no_grad():
        whole = encoder.features(views)
        monkeypatch.setattr(triton_towers, "_MAP_BYTES", 2 * 2 * 9 * 4)  # two views of 3 x 3 x 4
        pieces = encoder.features(views)
    torch.testing.assert_close(whole, pieces, rtol=1e-6, atol=1e-6)


def test_the_path_is_told_and_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = make(DEFAULT)
    assert encoder.path == ("triton" if DEVICE.type == "cuda" else "fused")
    monkeypatch.setenv("MASKLESS_ENCODER", "triton")
    assert Encoder(["a"], DEFAULT).to(DEVICE).path == "triton"
    encoder.path = "triton"
    assert encoder.double().path == "reference"
    large = Encoder(["a"], EncoderSettings(width=64, expansion=8, embedding=8)).to(DEVICE)
    assert large.path == ("reference" if DEVICE.type == "cuda" else "fused")
    with pytest.raises(SettingsError, match="quick"):
        encoder.path = "quick"


def test_a_gpu_without_kernels_takes_the_reference_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    monkeypatch.setattr(paths, "tell_once", told.append)
    monkeypatch.setattr(paths, "why_no_kernels", lambda device: "Triton is not installed")
    encoder = Encoder(["a"], DEFAULT)

    class OnGpu:
        device = torch.device("cuda")
        dtype = torch.float32
        requires_grad = False

    monkeypatch.setitem(encoder.__dict__, "stem_weight", OnGpu())
    del encoder._parameters["stem_weight"]
    assert encoder.path == "reference"
    assert paths.path_for(encoder, "auto", OnGpu()) == "reference"
    assert "Triton is not installed" in told[0]
    assert paths.path_for(encoder, "reference", OnGpu()) == "reference"
    assert len(told) == 1


def test_views_that_want_a_gradient_take_the_reference() -> None:
    encoder = make(DEFAULT)
    views = random_views(2, 2, 12, 12).requires_grad_()
    encoder.path = "triton"
    found = encoder.features(views)
    encoder.path = "reference"
    assert torch.equal(found, encoder.features(views))
    with pytest.raises(ValueError, match="no gradient to the views"):
        triton_features(encoder, views, encoder._pool_weights(12, 12))


@pytest.mark.parametrize(("count", "expected"), [(1, 16), (16, 16), (17, 32), (24, 32), (64, 64)])
def test_sizes_are_filled_up_to_powers_of_two(count: int, expected: int) -> None:
    assert filled(count) == expected


def test_the_kernels_compile_for_a_gpu_without_one(tmp_path: Path) -> None:
    # The interpreter takes more than the compiler does.
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    script = Path(__file__).with_name("compile_towers.py")
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["7", "kernels"]
