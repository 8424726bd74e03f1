import cohort
import numpy as np
import pytest
import torch
from cohort import PANEL, TRAIN, image_set, some_cells

from maskless.config import EmbedSettings
from maskless.errors import InputError
from maskless.images.image import Channel, Image, ImageSet, Panel
from maskless.training import embed_cells, embed_image

SETTINGS = EmbedSettings(view_um=12.0)
FIELDS = ("features_nck", "embedding_ne", "activations_nc")


@pytest.fixture(scope="module")
def encoder():
    return cohort.train(TRAIN.model_copy(update={"steps": 2}))[0]


def assert_same(one, other, rows=slice(None)):
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(one, field)[rows], getattr(other, field))


def test_shapes_and_what_the_encoder_says(encoder):
    images = image_set()
    found = embed_cells(encoder, images, *some_cells(150), SETTINGS)
    assert found.features_nck.shape == (150, 2, 2)
    assert found.embedding_ne.shape == (150, 8)
    assert found.activations_nc.shape == (150, 2)
    features = torch.from_numpy(found.features_nck)
    np.testing.assert_allclose(found.embedding_ne, encoder.embed_of(features).detach(), atol=1e-6)
    np.testing.assert_allclose(
        found.activations_nc, encoder.activations_of(features).detach(), atol=1e-6
    )


def test_views_are_plain_crops_at_the_cell(encoder):
    image = image_set()["one"]
    even = embed_image(encoder, image, PANEL, np.array([[20.5, 14.5]]), SETTINGS)
    view = image.pixels_cyx[None, [0, 2], 15:27, 9:21]
    np.testing.assert_allclose(even.features_nck, encoder.features(view), atol=2e-3)


def test_a_cell_does_not_depend_on_how_many_others_there_are(encoder):
    images = image_set()
    index, centres = some_cells(150)
    everything = embed_cells(encoder, images, index, centres, SETTINGS)
    for rows in (slice(0, 1), slice(0, 64), slice(60, 129), slice(149, 150)):
        some = embed_cells(encoder, images, index[rows], centres[rows], SETTINGS)
        assert_same(everything, some, rows)


def test_results_in_files_are_those_in_memory(encoder, tmp_path):
    images = image_set()
    index, centres = some_cells(150)
    everything = embed_cells(encoder, images, index, centres, SETTINGS)
    assert_same(
        everything, embed_cells(encoder, images, index, centres, SETTINGS, scratch=tmp_path)
    )
    on_disk = np.fromfile(tmp_path / "embedding.bin", np.float32).reshape(150, -1)
    np.testing.assert_array_equal(on_disk, everything.embedding_ne)


def test_the_order_of_cells_and_images_changes_nothing(encoder):
    images = image_set()
    index, centres = some_cells(150)
    everything = embed_cells(encoder, images, index, centres, SETTINGS)
    order = np.random.default_rng(0).permutation(150)
    mixed = embed_cells(encoder, images, index[order], centres[order], SETTINGS)
    assert_same(everything, mixed, order)
    turned = ImageSet(PANEL, {name: images.loaders[name] for name in ("two", "one")})
    assert_same(embed_cells(encoder, turned, 1 - index, centres, SETTINGS), everything)


def test_one_image_is_in_memory_at_a_time_and_only_those_with_cells(encoder):
    images, loaded = image_set(), []
    counted = images.map(lambda image: loaded.append(image.name) or image)
    index, centres = some_cells(40)
    embed_cells(encoder, counted, index, centres, SETTINGS)
    assert loaded == ["one", "two"]
    loaded.clear()
    embed_cells(encoder, counted, index[index == 1], centres[index == 1], SETTINGS)
    assert loaded == ["two"]


def test_markers_are_found_by_their_names(encoder):
    image = image_set()["one"]
    other = Panel((Channel("CD20"), Channel("CD3"), Channel("new")))
    turned = Image("one", image.pixels_cyx[[2, 0, 1]], other.names, 1.0)
    centres = np.array([[20.0, 14.0], [3.0, 4.0]])
    assert_same(
        embed_image(encoder, turned, other, centres, SETTINGS),
        embed_image(encoder, image, PANEL, centres, SETTINGS),
    )


def test_a_panel_that_lacks_markers_is_told(encoder):
    image = image_set()["one"]
    other = Panel((Channel("CD3"), Channel("CD8"), Channel("CD19")))
    with pytest.raises(InputError, match=r"expected also CD20, found instead CD8, CD19"):
        embed_image(encoder, image, other, np.array([[3.0, 4.0]]), SETTINGS)


def test_no_cells(encoder):
    found = embed_cells(encoder, image_set(), np.empty(0, int), np.empty((0, 2)), SETTINGS)
    assert found.embedding_ne.shape == (0, 8)
    one = embed_image(encoder, image_set()["one"], PANEL, np.empty((0, 2)), SETTINGS)
    assert one.features_nck.shape == (0, 2, 2)


def test_an_image_that_is_not_there_is_told(encoder):
    with pytest.raises(InputError, match="image index"):
        embed_cells(encoder, image_set(), np.array([2]), np.array([[3.0, 4.0]]), SETTINGS)


def test_the_encoder_is_left_as_it_was(encoder):
    encoder.train()
    embed_image(encoder, image_set()["one"], PANEL, np.array([[3.0, 4.0]]), SETTINGS)
    assert encoder.training
    encoder.eval()
