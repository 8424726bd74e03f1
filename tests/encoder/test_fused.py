"""The fused towers: the reference's numbers and gradients, each marker and view on its own."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskless.config import EncoderSettings
from maskless.encoder import Encoder
from maskless.encoder.fused import fused_features
from maskless.errors import SettingsError

DEFAULT = EncoderSettings(width=4, embedding=8)
PAPER = EncoderSettings(width=4, blocks=(1, 1), stem_stride=1, pooling="mean", embedding=8)

usual_towers = st.builds(  # compiled with constants, once for all of these
    EncoderSettings,
    width=st.just(4),
    blocks=st.sampled_from([(1,), (2,), (1, 1), (2, 1), (1, 1, 1)]),
    stem_stride=st.sampled_from([1, 2]),
    pooling=st.sampled_from(["mean", "centre"]),
    embedding=st.just(8),
)
other_towers = st.builds(  # compiled once with variables
    EncoderSettings,
    width=st.sampled_from([1, 3, 6, 12]),
    blocks=st.sampled_from([(1,), (2,), (1, 2), (1, 1, 1)]),
    kernel=st.sampled_from([3, 5, 7]),
    expansion=st.integers(1, 5),
    stem_stride=st.sampled_from([1, 2]),
    norm=st.sampled_from(["marker", "none"]),
    pooling=st.sampled_from(["mean", "centre"]),
    embedding=st.just(8),
)


def make(settings: EncoderSettings, markers: int = 3, seed: int = 0) -> Encoder:
    """An encoder whose every parameter counts."""
    encoder = Encoder([f"m{i}" for i in range(markers)], settings, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    encoder.path = "fused"
    return encoder


def random_views(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


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


@settings(max_examples=30, deadline=None)
@given(
    st.one_of(usual_towers, other_towers),
    st.integers(1, 35),
    st.integers(1, 3),
    st.integers(12, 40),
    st.integers(12, 40),
    st.integers(0, 10),
)
def test_features_and_gradients_are_those_of_the_reference_in_float64(
    chosen: EncoderSettings, batch: int, markers: int, height: int, length: int, seed: int
) -> None:
    encoder = make(chosen, markers, seed)
    exact = copy.deepcopy(encoder).double()
    assert (encoder.path, exact.path) == ("fused", "reference")
    views = random_views(batch, markers, height, length, seed=seed)
    slope = random_views(batch, markers, chosen.width, seed=seed + 1)
    features, gradients = with_gradients(encoder, views, slope)
    true, true_gradients = with_gradients(exact, views.double(), slope.double())
    assert error(features, true) < 1e-5
    assert gradients.keys() == true_gradients.keys()
    if chosen.width == 1 and chosen.norm == "marker":
        # The norm of one number is 0 whatever it is; what should be 0 is so but for rounding.
        gradients = {n: g for n, g in gradients.items() if true_gradients[n].abs().max() > 1e-6}
    for name, gradient in gradients.items():
        assert error(gradient, true_gradients[name]) < 2e-4, name


@settings(max_examples=30, deadline=None)
@given(
    st.one_of(usual_towers, other_towers),
    st.integers(1, 20),
    st.integers(2, 5),
    st.sampled_from([0.0, -3.0, 1e-30, 1e18, 3e38, float("inf"), float("nan")]),
    st.integers(0, 10),
)
def test_other_markers_change_no_bit_of_features_or_gradients(
    chosen: EncoderSettings, batch: int, markers: int, value: float, seed: int
) -> None:
    encoder = make(chosen, markers, seed)
    views = random_views(batch, markers, 14, 12, seed=seed)
    other = views.clone()
    changed = seed % markers
    other[:, changed] = value
    rest = [m for m in range(markers) if m != changed]
    slope = random_views(batch, markers, chosen.width, seed=seed + 1)
    before, gradients_before = with_gradients(encoder, views, slope)
    after, gradients_after = with_gradients(encoder, other, slope)
    assert torch.equal(before[:, rest], after[:, rest])
    assert not torch.equal(before[:, changed], after[:, changed])
    for name, gradient in gradients_before.items():
        assert torch.equal(gradient[rest], gradients_after[name][rest]), name


@settings(max_examples=15, deadline=None)
@given(
    st.one_of(usual_towers, other_towers),
    st.integers(17, 90),
    st.integers(0, 89),
    st.integers(0, 5),
)
def test_a_views_features_are_the_same_bits_in_any_batch(
    chosen: EncoderSettings, batch: int, place: int, seed: int
) -> None:
    encoder = make(chosen, 2, seed)
    views = random_views(batch, 2, 12, 13, seed=seed)
    place %= batch
    with torch.no_grad():
        whole = encoder.features(views)
        alone = encoder.features(views[place : place + 1])
        tail = encoder.features(views[place:].flip(0))
    assert torch.equal(whole[place : place + 1], alone)
    assert torch.equal(whole[place:], tail.flip(0))


@pytest.mark.parametrize("chosen", [DEFAULT, PAPER])
def test_the_number_of_threads_changes_no_bit(chosen: EncoderSettings) -> None:
    encoder = make(chosen, 5)
    views = random_views(300, 5, 12, 14)
    slope = random_views(300, 5, 4, seed=1)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(with_gradients(encoder, views, slope))
    finally:
        torch.set_num_threads(before)
    for features, gradients in found[1:]:
        assert torch.equal(features, found[0][0])
        for name, gradient in gradients.items():
            assert torch.equal(gradient, found[0][1][name]), name


def test_constants_and_variables_are_one_algorithm(monkeypatch: pytest.MonkeyPatch) -> None:
    from maskless.encoder import fused_plan

    encoder, views = make(PAPER), random_views(20, 3, 16, 15)
    slope = random_views(20, 3, 4, seed=1)
    features, gradients = with_gradients(encoder, views, slope)
    monkeypatch.setattr(fused_plan, "_USUAL", ())
    fused_plan.make_plan.cache_clear()
    other, other_gradients = with_gradients(encoder, views, slope)
    fused_plan.make_plan.cache_clear()
    torch.testing.assert_close(features, other, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients, other_gradients, rtol=1e-4, atol=1e-4)


def test_gelu_and_its_slope_are_close_everywhere() -> None:
    from numba import njit

    from maskless.encoder.fused_gelu import gelu, gelu_and_slope
    from maskless.encoder.fused_vector import LANES, load_tile, store_tile

    @njit
    def apply(x, alone, value, slope):
        for v in range(len(x) // LANES):
            tile = load_tile(x, v, 0, 1, 1)
            store_tile(alone, v, 0, 1, gelu(tile))
            both = gelu_and_slope(tile)
            store_tile(value, v, 0, 1, both[0])
            store_tile(slope, v, 0, 1, both[1])

    x = np.concatenate([np.linspace(-12, 12, 16000), [0, -0.0, 1e-30, 5.2, -5.2, 1e4, -1e4, 1e-4]])
    x = np.concatenate([x, np.zeros(8)]).astype(np.float32)
    alone, value, slope = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    apply(x, alone, value, slope)
    exact = torch.from_numpy(x).double().requires_grad_()
    true = torch.nn.functional.gelu(exact, approximate="tanh")
    true.sum().backward()
    for found in (alone, value):
        errors = np.abs(found - true.detach().numpy()) / np.maximum(1, np.abs(x))
        assert errors.max() < 1e-6
    assert np.abs(slope - exact.grad.numpy()).max() < 3e-6


def test_the_path_is_told_and_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, views = make(DEFAULT), random_views(2, 3, 14, 14)
    fused = encoder.features(views)
    encoder.path = "reference"
    assert encoder.path == "reference"
    reference = encoder.features(views)
    assert not torch.equal(fused, reference)
    torch.testing.assert_close(fused, reference, rtol=1e-4, atol=1e-5)
    monkeypatch.setenv("MASKLESS_ENCODER", "reference")
    assert Encoder(["a"], DEFAULT).path == "reference"
    monkeypatch.delenv("MASKLESS_ENCODER")
    assert Encoder(["a"], DEFAULT).path == "fused"
    assert Encoder(["a"], DEFAULT).double().path == "reference"
    with pytest.raises(SettingsError, match="quick"):
        encoder.path = "quick"


def test_views_that_want_a_gradient_take_the_reference() -> None:
    encoder, views = make(DEFAULT), random_views(2, 3, 14, 14).requires_grad_()
    found = encoder.features(views)
    encoder.path = "reference"
    assert torch.equal(found, encoder.features(views))
    with pytest.raises(ValueError, match="no gradient to the views"):
        fused_features(encoder, views, np.ones((7, 7)) / 49)
