"""The encoder's promises: no crosstalk, exact sums, any size of view, one algebra."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskless.config import EncoderSettings
from maskless.encoder import Encoder
from maskless.encoder.pooling import edge_weights, grid_positions
from maskless.errors import InputError, SettingsError

DEFAULT = EncoderSettings(width=4, embedding=16)
PAPER = EncoderSettings(
    width=4, blocks=(1, 1), stem_stride=1, pooling="mean", norm="marker", embedding=16
)
NO_NORM = EncoderSettings(width=3, blocks=(1, 2, 1), kernel=5, norm="none", embedding=16)
ALL_SETTINGS = pytest.mark.parametrize("encoder_settings", [DEFAULT, PAPER, NO_NORM])


def make(markers: int = 3, settings: EncoderSettings = DEFAULT, seed: int = 0) -> Encoder:
    """An encoder whose every parameter counts: scales and norms are moved off 1 and 0."""
    encoder = Encoder([f"m{i}" for i in range(markers)], settings, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return encoder


def random_views(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


settings_strategy = st.builds(
    EncoderSettings,
    width=st.sampled_from([1, 3, 8]),
    blocks=st.sampled_from([(1,), (2,), (1, 1)]),
    kernel=st.sampled_from([3, 5, 7]),
    expansion=st.sampled_from([1, 2]),
    stem_stride=st.sampled_from([1, 2]),
    norm=st.sampled_from(["marker", "none"]),
    pooling=st.sampled_from(["mean", "centre"]),
    embedding=st.just(8),
)


@settings(max_examples=60, deadline=None)
@given(
    settings_strategy,
    st.integers(1, 5),
    st.integers(2, 9),
    st.integers(12, 21),
    st.integers(12, 21),
    st.sampled_from([0.0, -3.0, 1e-30, 1e18, 3e38, float("inf"), float("nan")]),
    st.booleans(),
    st.integers(0, 10),
)
def test_features_ignore_the_pixels_of_other_markers_bit_for_bit(
    chosen: EncoderSettings,
    batch: int,
    markers: int,
    height: int,
    length: int,
    value: float,
    train: bool,
    seed: int,
) -> None:
    encoder = make(markers, chosen, seed).train(train)
    views = random_views(batch, markers, height, length, seed=seed)
    other = views.clone()
    changed = seed % markers
    other[:, changed] = value
    with torch.no_grad():
        before, after = encoder.features(views), encoder.features(other)
    rest = [m for m in range(markers) if m != changed]
    assert torch.equal(before[:, rest], after[:, rest])
    assert not torch.equal(before[:, changed], after[:, changed])


def test_no_crosstalk_in_a_large_batch_of_a_real_panels_width() -> None:
    encoder = make(34, EncoderSettings(embedding=8))
    views = random_views(150, 34, 12, 12)  # more than one chunk
    other = views.clone()
    other[:, ::2] *= 1e20
    with torch.no_grad():
        before, after = encoder.features(views), encoder.features(other)
    assert torch.equal(before[:, 1::2], after[:, 1::2])


@ALL_SETTINGS
def test_gradient_reaches_the_pixels_of_the_own_marker_only(
    encoder_settings: EncoderSettings,
) -> None:
    views = random_views(2, 4, 14, 13).requires_grad_()
    (gradient,) = torch.autograd.grad(
        make(4, encoder_settings).features(views)[:, 2].square().sum(), views
    )
    assert (gradient[:, [0, 1, 3]] == 0).all()
    assert (gradient[:, 2] != 0).any()


@ALL_SETTINGS
@pytest.mark.parametrize("size", [(12, 12), (13, 17), (40, 39)])
def test_projecting_after_the_pool_changes_nothing(
    encoder_settings: EncoderSettings, size: tuple[int, int]
) -> None:
    encoder = make(3, encoder_settings).double()
    views = random_views(2, 3, *size).double()
    fast = encoder.features(views)
    for stage in encoder.stages:
        block = stage[-1]
        block.forward = _pooled_last(block)
    plain = encoder.features(views)
    assert fast.shape == (2, 3, encoder_settings.width)
    torch.testing.assert_close(fast, plain, rtol=1e-12, atol=1e-13)


def _pooled_last(block: torch.nn.Module):
    def forward(x, pool):
        whole = x + block.project(block.hidden(x))
        return pool(whole)

    return forward


@ALL_SETTINGS
def test_the_forward_is_the_textbook_block_written_with_plain_layers(
    encoder_settings: EncoderSettings,
) -> None:
    encoder = make(3, encoder_settings).double()
    views = random_views(2, 3, 15, 14).double()
    expected = torch.stack([_one_tower(encoder, views[:, m], m) for m in range(3)], dim=1)
    torch.testing.assert_close(encoder.features(views), expected, rtol=1e-12, atol=1e-13)


def _one_tower(encoder: Encoder, view_bhw: torch.Tensor, m: int) -> torch.Tensor:
    """Marker m's features by ordinary convolutions of one marker, LayerNorm and slow pooling."""
    chosen, fn = encoder.settings, torch.nn.functional
    x = fn.conv2d(
        view_bhw[:, None],
        encoder.stem_weight[m][:, None],
        encoder.stem_bias[m],
        stride=chosen.stem_stride,
        padding=1,
    )
    for number, stage in enumerate(encoder.stages):
        if number:
            x = fn.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
        for block in stage:
            h = fn.conv2d(
                x,
                block.depthwise_weight[m][:, None],
                block.depthwise_bias[m],
                padding=chosen.kernel // 2,
                groups=chosen.width,
            ).movedim(1, -1)
            if chosen.norm == "marker":
                h = fn.layer_norm(h, (chosen.width,), block.norm_weight[m], block.norm_bias[m])
            h = fn.gelu(
                fn.linear(h, block.expand_weight[m], block.expand_bias[m]), approximate="tanh"
            )
            h = fn.linear(h, block.project_weight[m], block.project_bias[m]) * block.scale[m]
            x = x + h.movedim(-1, 1)
    centre = chosen.pooling == "centre"
    sigma = chosen.pooling_radius_um / encoder.pixel_um if centre else None
    weights = [
        torch.from_numpy(
            edge_weights(size, chosen.stem_stride, len(chosen.blocks) - 1, sigma).copy()
        )
        for size in view_bhw.shape[1:]
    ]
    pooled = torch.einsum("bfhw,h,w->bf", x, *weights)
    return fn.linear(pooled, encoder.feature_weight[m], encoder.feature_bias[m])


@ALL_SETTINGS
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_contributions_and_bias_add_up_to_the_embedding(
    encoder_settings: EncoderSettings, dtype: torch.dtype, tolerance: float
) -> None:
    encoder = make(7, encoder_settings).to(dtype)
    views = random_views(5, 7, 16, 16).to(dtype)
    contributions = encoder.contributions(views)
    assert contributions.shape == (5, 7, 16)
    total, embedding = contributions.sum(1) + encoder.bias, encoder.embed(views)
    assert torch.linalg.norm(total - embedding) <= tolerance * torch.linalg.norm(embedding)


@ALL_SETTINGS
def test_every_size_from_12_to_40_gives_features(encoder_settings: EncoderSettings) -> None:
    encoder = make(2, encoder_settings)
    with torch.no_grad():
        for size in range(12, 41):
            features = encoder.features(random_views(1, 2, size, 52 - size))
            assert features.shape == (1, 2, encoder_settings.width)
            assert torch.isfinite(features).all()


@settings(max_examples=200, deadline=None)
@given(st.integers(3, 60), st.sampled_from([1, 2]), st.integers(0, 3), st.floats(0.01, 20))
def test_centre_weights_are_a_mean_whose_place_is_the_centre(
    size: int, stride: int, halvings: int, sigma_px: float
) -> None:
    weights = edge_weights(size, stride, halvings, sigma_px)
    positions, counts = grid_positions(size, stride, halvings)
    assert counts.sum() == len(range(0, size, stride))
    assert np.isclose(weights.sum(), 1)
    if len(positions) > 1:
        assert np.isclose(weights @ positions, (size - 1) / 2)


def test_centre_weights_are_the_gaussian_where_the_grid_is_that_of_the_pixels() -> None:
    pixels = np.arange(15) - 7
    gauss = np.exp(-(pixels**2) / 18.0)
    np.testing.assert_allclose(edge_weights(15, 1, 0, 3.0), gauss / gauss.sum())


def test_centre_weighting_is_set_in_um() -> None:
    views = random_views(2, 3, 24, 24)
    fine = Encoder(["a", "b", "c"], DEFAULT, pixel_um=0.5).features(views)
    doubled = DEFAULT.model_copy(update={"pooling_radius_um": 2 * DEFAULT.pooling_radius_um})
    coarse = Encoder(["a", "b", "c"], doubled, pixel_um=1.0).features(views)
    assert torch.equal(fine, coarse)
    assert not torch.equal(fine, Encoder(["a", "b", "c"], DEFAULT, pixel_um=1.0).features(views))


def test_many_views_at_once_are_as_one_by_one() -> None:
    encoder = make(13, EncoderSettings(width=8, embedding=16))
    views = random_views(700, 13, 16, 16)  # more than one chunk
    with torch.no_grad():
        together = encoder.features(views)
        alone = torch.cat([encoder.features(views[i : i + 1]) for i in (0, 300, 699)])
    torch.testing.assert_close(together[[0, 300, 699]], alone, rtol=1e-5, atol=1e-6)


def test_seed_fixes_the_weights_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, same, other = (Encoder(["a", "b"], DEFAULT, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(state, torch.get_rng_state())
    for name, value in first.state_dict().items():
        assert torch.equal(value, same.state_dict()[name])
    assert not torch.equal(first.stem_weight, other.stem_weight)


def test_arrays_are_welcome_and_carry_no_gradient() -> None:
    encoder = make()
    views = random_views(2, 3, 12, 12)
    array = views.double().numpy()
    array.flags.writeable = False  # as of a memory-mapped file
    features = encoder.features(array)
    assert not features.requires_grad
    assert not encoder.embed(views.numpy()).requires_grad
    assert encoder.embed(views).requires_grad
    assert torch.equal(features, encoder.features(views))
    assert torch.equal(encoder(views), encoder.embed_of(features))
    assert encoder.features(np.zeros((0, 3, 12, 12))).shape == (0, 3, 4)
    assert encoder.embed(np.zeros((0, 3, 12, 12))).shape == (0, 16)


@pytest.mark.parametrize(
    ("views", "message"),
    [
        (np.zeros((2, 4, 16, 16)), r"expected 3 markers \(m0, m1, m2\), found 4"),
        (np.zeros((3, 16, 16)), "found \\(3, 16, 16\\)"),
        (np.zeros((2, 3, 5, 16)), "at least 6 pixels an edge, found 5 x 16"),
        (np.full((2, 3, 16, 16), np.nan), "NaN"),
    ],
)
def test_views_that_do_not_fit_are_refused(views: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make().features(views)


def test_features_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="features have another shape"):
        make().embed_of(torch.zeros(2, 4, 4))


@pytest.mark.parametrize("markers", [[], ["a", "a"], "CD3"])
def test_marker_lists_that_make_no_encoder_are_refused(markers: list[str]) -> None:
    with pytest.raises(SettingsError, match="marker"):
        Encoder(markers, DEFAULT)


@pytest.mark.parametrize("blocks", [(), (0,), (1000,)])
def test_blocks_that_make_no_encoder_are_refused(blocks: tuple[int, ...]) -> None:
    with pytest.raises(SettingsError, match="blocks"):
        Encoder(["a"], EncoderSettings(blocks=blocks))


@pytest.mark.parametrize("pixel_um", [0.0, -1.0, float("nan")])
def test_impossible_pixel_sizes_are_refused(pixel_um: float) -> None:
    with pytest.raises(SettingsError, match="pixel size"):
        Encoder(["a"], DEFAULT, pixel_um=pixel_um)
