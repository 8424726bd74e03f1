"""Activations: 0 at background, rising with expression, from the marker's own pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.isotonic import IsotonicRegression

from maskless.config import EncoderSettings
from maskless.encoder import Encoder, fit_activation, response_curve
from maskless.encoder.activation import _background_and_positive, _isotonic_knots, _otsu
from maskless.errors import InputError

MARKERS = ["everywhere", "some", "rare", "absent", "empty"]
SETTINGS = EncoderSettings(width=4, embedding=16)


def made_views(cells: int, at_cells: bool, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    """Views of blobs, and how strongly each cell expresses each marker (0 = not at all)."""
    rng = np.random.default_rng(seed)
    level = np.zeros((cells, len(MARKERS)))
    level[:, 0] = rng.normal(0.8, 0.08, cells)
    for marker, share in ((1, 0.4), (2, 0.02)):
        level[:, marker] = (rng.random(cells) < share) * rng.uniform(0.6, 1.0, cells)
    y, x = np.mgrid[:16, :16]
    # Away from cells a view still shows parts of one, near its border.
    place = 7.5 if at_cells else rng.choice([-4.0, 19.0], cells)
    distance = (y - 7.5) ** 2 + (x - np.broadcast_to(place, cells)[:, None, None]) ** 2
    blobs = np.exp(-distance / (2 * 3.0**2))
    blobs_bchw = level[:, :, None, None] * blobs[:, None]
    blobs_bchw[:, 0] = np.maximum(blobs_bchw[:, 0], 0.7 * level[:, :1, None])  # fills the tissue
    noise = rng.gamma(0.3, 0.1, blobs_bchw.shape)
    noise[:, 4] = 0
    return torch.from_numpy((blobs_bchw + noise).astype(np.float32)), level


@pytest.fixture(scope="module")
def cells() -> tuple[torch.Tensor, np.ndarray]:
    return made_views(400, True, 0)


def untrained() -> Encoder:
    return Encoder(MARKERS, SETTINGS, seed=1)


def briefly_trained(views: torch.Tensor) -> Encoder:
    """A few steps that push views of different cells apart and gains of one cell together."""
    encoder = untrained()
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    for start in range(0, 256, 32):
        some = views[start : start + 32]
        gains = 0.5 + 1.5 * torch.rand((2, 32, len(MARKERS), 1, 1), generator=generator)
        first, second = (
            torch.nn.functional.normalize(encoder(some * gain), dim=1) for gain in gains
        )
        loss = torch.nn.functional.cross_entropy(first @ second.T / 0.2, torch.arange(32))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return encoder


@pytest.fixture(scope="module", params=["untrained", "briefly trained"])
def encoder(request: pytest.FixtureRequest, cells: tuple[torch.Tensor, np.ndarray]) -> Encoder:
    made = untrained() if request.param == "untrained" else briefly_trained(cells[0])
    fit_activation(made, cells[0].split(200), made_views(400, False, 1)[0].split(250))
    return made


def activations(encoder: Encoder, views: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return encoder.activations(views).numpy()


def test_activation_follows_expression(
    encoder: Encoder, cells: tuple[torch.Tensor, np.ndarray]
) -> None:
    found = activations(encoder, cells[0])
    assert found.min() >= 0
    for marker in range(3):
        assert np.corrcoef(found[:, marker], cells[1][:, marker])[0, 1] > 0.8
    for marker in (1, 2):
        off = cells[1][:, marker] == 0
        assert np.median(found[off, marker]) < 0.05
        assert found[~off, marker].min() > found[off, marker].max()


@pytest.mark.parametrize("marker", MARKERS[:3])
def test_response_rises_with_the_pixels_of_the_marker(
    encoder: Encoder, cells: tuple[torch.Tensor, np.ndarray], marker: str
) -> None:
    expressing = cells[0][cells[1][:, MARKERS.index(marker)] > 0][:40]
    gains = [0, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3]
    curve = response_curve(encoder, expressing, marker, gains)
    assert curve[0] == 0
    assert (np.diff(curve) >= 0).all()
    assert (np.diff(curve[4:]) > 0.02).all()
    np.testing.assert_array_equal(
        curve, response_curve(encoder, expressing.numpy(), MARKERS.index(marker), gains)
    )


def test_share_of_positive_cells(encoder: Encoder, cells: tuple[torch.Tensor, np.ndarray]) -> None:
    positive = activations(encoder, cells[0]) > encoder.activation.positive_above.numpy()
    truth = (cells[1] > 0).mean(0)
    share = positive.mean(0)
    assert share[0] > 0.98
    assert abs(share[1] - truth[1]) < 0.02
    assert abs(share[2] - truth[2]) < 0.02
    assert share[3] < 0.1
    assert share[4] == 0


def test_empty_views_have_no_activation(encoder: Encoder) -> None:
    assert (activations(encoder, torch.zeros(3, len(MARKERS), 16, 16)) == 0).all()


def test_cells_below_the_background_keep_their_order_near_0(encoder: Encoder) -> None:
    with torch.no_grad():
        features = encoder.features(made_views(300, False, 5)[0])
        level = encoder.activation.level(features).numpy()
        found = encoder.activations_of(features).numpy()
    fit = encoder.activation
    compared = 0
    for marker in range(len(MARKERS)):
        empty, background = float(fit.empty[marker]), float(fit.background[marker])
        dim = (level[:, marker] > empty) & (level[:, marker] < background)
        assert (found[dim, marker] < 1e-4).all()
        assert (found[level[:, marker] <= empty, marker] == 0).all()
        assert (found[level[:, marker] > background + 1e-3, marker] > 1e-4).all()
        values, places = np.unique(level[dim, marker], return_index=True)
        assert (np.diff(found[dim, marker][places]) >= 0).all()
        if len(values) > 20:
            assert len(np.unique(found[dim, marker])) > 0.9 * len(values)
            compared += 1
    assert compared >= 2


def test_activation_ignores_other_markers(
    encoder: Encoder, cells: tuple[torch.Tensor, np.ndarray]
) -> None:
    views = cells[0][:50]
    other = views.clone()
    other[:, 1] = 1e6
    before, after = activations(encoder, views), activations(encoder, other)
    rest = [0, 2, 3, 4]
    np.testing.assert_array_equal(before[:, rest], after[:, rest])
    assert (after[:, 1] > before[:, 1]).all()


def test_fit_of_a_marker_ignores_other_markers(cells: tuple[torch.Tensor, np.ndarray]) -> None:
    background = made_views(300, False, 1)[0]
    changed, changed_background = cells[0].clone(), background.clone()
    changed[:, 0] = changed[:, 0].square()
    changed_background[:, 0] = 0
    first, second = untrained(), untrained()
    fit_activation(first, [cells[0]], [background])
    fit_activation(second, [changed], [changed_background])
    for name, value in first.activation.state_dict().items():
        if name != "fitted":
            assert torch.equal(value[1:], second.activation.state_dict()[name][1:])
            assert not torch.equal(value[0], second.activation.state_dict()[name][0])


def test_batches_of_the_fit_do_not_matter(cells: tuple[torch.Tensor, np.ndarray]) -> None:
    background = made_views(300, False, 1)[0]
    whole, parts = untrained(), untrained()
    fit_activation(whole, [cells[0]], [background.numpy()])
    fit_activation(parts, cells[0].split(150), background.split(100))
    np.testing.assert_allclose(
        activations(whole, cells[0]), activations(parts, cells[0]), rtol=1e-3, atol=1e-4
    )


def test_fit_leaves_the_views_and_the_network_alone(
    cells: tuple[torch.Tensor, np.ndarray],
) -> None:
    views, encoder = cells[0][:50].clone(), untrained()
    fit_activation(encoder, [views], [views])
    response_curve(encoder, views, "some")
    assert torch.equal(views, cells[0][:50])
    assert torch.equal(encoder.embed(views), untrained().embed(views))


def test_unfitted_activations_are_refused() -> None:
    with pytest.raises(InputError, match=r"not calibrated.*fit_activation"):
        untrained().activations(torch.zeros(1, len(MARKERS), 16, 16))


@pytest.mark.parametrize("which", [0, 1])
def test_no_views_or_broken_views_are_refused(which: int) -> None:
    views = torch.rand(3, len(MARKERS), 16, 16)
    for broken, message in (([], "no views"), ([views * float("nan")], "NaN")):
        batches = [[views], [views]]
        batches[which] = broken
        with pytest.raises(InputError, match=message):
            fit_activation(untrained(), *batches)


def test_unknown_marker_is_refused(encoder: Encoder) -> None:
    with pytest.raises(InputError, match=r"CD99.*expected one of everywhere"):
        response_curve(encoder, torch.zeros(1, len(MARKERS), 16, 16), "CD99")


def test_one_cell_is_enough_not_to_fail() -> None:
    views = torch.rand(1, len(MARKERS), 16, 16)
    encoder = untrained()
    fit_activation(encoder, [views], [views])
    assert np.isfinite(activations(encoder, views)).all()


@pytest.mark.parametrize("seed", range(3))
def test_a_marker_of_nearly_every_cell_finds_them_positive_and_noise_does_not(seed: int) -> None:
    rng = np.random.default_rng(seed)
    nuclei = rng.normal(0.36, 0.09, 4000)
    between = rng.normal(0.14, 0.03, 4000)
    places = np.where(rng.random(4000) < 0.5, between, rng.normal(0.3, 0.09, 4000))
    _, above = _background_and_positive(nuclei.astype(np.float32), places.astype(np.float32))
    assert (nuclei > above).mean() > 0.8
    noise = np.abs(rng.normal(0, 0.05, (2, 4000))).astype(np.float32)
    _, above = _background_and_positive(*noise)
    assert (noise[0] > above).mean() < 0.1


def test_isotonic_curve_is_sklearns() -> None:
    rng = np.random.default_rng(0)
    x = np.sort(rng.random(200))
    y = x**2 + 0.3 * rng.standard_normal(200)
    knots_x, knots_y = _isotonic_knots(x, y)
    steps = IsotonicRegression().fit_transform(x, y)
    blocks = [steps == value for value in np.unique(steps)]
    assert len(blocks) < len(knots_x)  # so that all blocks of this sample are kept
    np.testing.assert_allclose(knots_x[: len(blocks)], [x[block].mean() for block in blocks])
    np.testing.assert_allclose(knots_y[: len(blocks)], np.unique(steps))
    assert (knots_x[len(blocks) :] == knots_x[-1]).all()


def test_otsu_is_the_best_split() -> None:
    values = np.random.default_rng(0).gamma(1.0, 1.0, 60).astype(np.float32)

    def between(threshold: float) -> float:
        low, high = values[values <= threshold], values[values > threshold]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2 / len(values) ** 2

    threshold, share = _otsu(values)
    best = max(between(value) for value in np.sort(values)[:-1])
    assert between(threshold) == pytest.approx(best, rel=1e-4)
    assert share == pytest.approx(best / values.var(), rel=1e-4)
    assert _otsu(np.ones(5, np.float32)) == (1.0, 0.0)
