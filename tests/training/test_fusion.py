"""The composed embedding: distances, exactness, balance."""

import numpy as np
import pytest
import torch
from cohort import TRAIN, train

from maskless.config import EncoderSettings
from maskless.encoder import Encoder
from maskless.training.fusion import compose_fusion

MARKERS = ["CD3", "CD20", "CD68"]


def made_encoder(embedding=32):
    return Encoder(MARKERS, EncoderSettings(width=4, embedding=embedding), seed=1)


def made_views(cells=300, seed=0):
    """Views whose markers have a level each, and noise; CD68 varies least, CD20 most."""
    rng = np.random.default_rng(seed)
    level = rng.gamma(1.0, 1.0, (cells, len(MARKERS), 1, 1)) * np.array([1, 3, 0.3])[:, None, None]
    views = level + rng.normal(0, 0.3, (cells, len(MARKERS), 16, 16))
    return torch.from_numpy(views.astype(np.float32))


def composed(embedding=32, seed=0):
    encoder = made_encoder(embedding)
    compose_fusion(encoder, made_views().split(128), seed)
    return encoder


def embeddings(encoder, views):
    with torch.no_grad():
        return encoder.embed(views).double().numpy()


def square_distances(points):
    return ((points[:100, None] - points[None, :100]) ** 2).sum(2)


def scaled_features(encoder, views):
    """Features, those of each marker with the share of the variance that its disc means have."""
    y, x = np.ogrid[:16, :16]
    disc = (y - 7.5) ** 2 + (x - 7.5) ** 2 <= 16
    level = views.numpy()[:, :, disc].mean(2).std(0)
    with torch.no_grad():
        features = encoder.features(views).double().numpy()
    features -= features.mean(0)
    spread = np.sqrt((features**2).sum(2).mean(0))
    return (features * (level / spread)[:, None]).reshape(len(views), -1) / np.sqrt(
        (level**2).sum()
    )


def test_distances_are_those_of_features_that_count_as_much_as_their_levels_vary():
    views = made_views()
    expected = square_distances(scaled_features(made_encoder(), views))
    np.testing.assert_allclose(square_distances(embeddings(composed(), views)), expected, atol=1e-4)


def test_contributions_have_the_variance_of_the_levels():
    with torch.no_grad():
        contributions = composed().contributions(made_views()).double().numpy()
    contributions -= contributions.mean(0)
    shares = (contributions**2).sum(2).mean(0)
    assert shares.sum() == pytest.approx(1, rel=1e-3)
    # Levels vary as 1 : 3 : 0.3, and noise in the disc adds next to nothing.
    np.testing.assert_allclose(np.sqrt(shares / shares[0]), [1, 3, 0.3], rtol=0.25)


def test_the_embedding_stays_a_sum_over_markers_and_features_are_centred():
    before, after = made_encoder(), composed()
    views = made_views()
    with torch.no_grad():
        shift = before.features(views) - after.features(views)
        torch.testing.assert_close(shift, shift[:1].expand_as(shift), rtol=0, atol=1e-5)
        torch.testing.assert_close(
            after.features(views).mean(0), torch.zeros(3, 4), rtol=0, atol=1e-5
        )
        total = after.contributions(views).sum(1) + after.bias
        torch.testing.assert_close(total, after.embed(views), rtol=1e-5, atol=1e-6)


def test_the_embedding_is_centred_and_its_dimensions_are_alike():
    points = embeddings(composed(), made_views())
    np.testing.assert_allclose(points.mean(0), 0, atol=1e-4)
    assert (points**2).sum(1).mean() == pytest.approx(1, rel=1e-3)
    spread = points.std(0)
    assert spread.max() < 8 * np.median(spread)


@pytest.mark.parametrize("embedding", [2, 5, 8])
def test_an_embedding_shorter_than_the_features_keeps_most_of_the_distances(embedding):
    views = made_views()
    whole = square_distances(embeddings(composed(), views))
    short = square_distances(embeddings(composed(embedding), views))
    assert short.shape == whole.shape
    assert (short <= whole + 1e-4).all()
    assert short.sum() > (0.9 if embedding > 2 else 0.5) * whole.sum()


def test_the_seed_fixes_the_rotation():
    views = made_views(10, seed=3)
    one, other = (embeddings(composed(seed=seed), views) for seed in (4, 5))
    np.testing.assert_array_equal(one, embeddings(composed(seed=4), views))
    assert np.abs(one - other).max() > 0.05
    np.testing.assert_allclose(square_distances(one), square_distances(other), atol=1e-4)


def test_constant_pixels_give_a_finite_embedding():
    encoder = made_encoder()
    compose_fusion(encoder, [torch.zeros(4, 3, 16, 16)], 0)
    assert np.isfinite(embeddings(encoder, torch.zeros(2, 3, 16, 16))).all()


def test_training_composes_the_fusion_only_if_asked_to():
    left = train(TRAIN.model_copy(update={"fusion": "trained"}))[0]
    made = train(TRAIN.model_copy(update={"fusion": "levels"}))[0]
    torch.testing.assert_close(left.stem_weight, made.stem_weight, rtol=0, atol=0)
    assert not torch.equal(left.fusion_weight, made.fusion_weight)
