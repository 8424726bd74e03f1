import cohort
import torch
from cohort import ENCODER, TRAIN, train

from maskless.cells import Atlas, DeviceAtlas
from maskless.encoder import Encoder
from maskless.training import nt_xent, step
from maskless.training.ranks import Ranks


def make(settings=TRAIN, ranks=None):
    atlas = Atlas.build(cohort.image_set(), 1.0, 20.0)
    encoder = Encoder(atlas.markers, ENCODER, 1.0, 0)
    return step.Training(encoder, atlas, *cohort.some_cells(), settings, 0, ranks or Ranks())


def test_graphs_that_do_not_fit_in_memory_change_no_bit(monkeypatch):
    (whole, _), found = train(), []
    for limit in (0, 50_000):  # none, and some of the pieces
        monkeypatch.setattr(step, "_GRAPH_BYTES", limit)
        monkeypatch.setitem(step._PIECE, "cpu", 64)
        found.append(train()[0].state_dict())
    for state in found:
        assert all(torch.equal(value, state[key]) for key, value in whole.state_dict().items())


def test_pieces_give_the_gradient_of_the_whole_batch(monkeypatch):
    monkeypatch.setitem(step._PIECE, "cpu", 4)

    def gradients(backward):
        training = make()
        training.encoder.double()
        training.head.double()
        pieces, rows = training._pieces(0)
        backward(training, [piece.double() for piece in pieces], rows)
        return [p.grad for p in training.parameters if p.grad is not None]

    def directly(training, pieces, rows):
        z = training.head(training.encoder(torch.cat(pieces)))
        nt_xent(z, training.cells, TRAIN.temperature).backward()

    def in_pieces(training, pieces, rows):
        training._backward(pieces, rows)

    expected, found = gradients(directly), gradients(in_pieces)
    assert len(expected) > 10
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_views_of_several_sizes_are_positives_of_one_cell():
    plain = TRAIN.model_copy(
        update={
            "view_um": (14.0, 12.0, 14.0),
            "rotate": False,
            "flip": False,
            "zoom": (1, 1),
            "gain": (1, 1),
            "noise": 0.0,
            "jitter_um": 0.0,
            "marker_dropout": 0.0,
            "surroundings_um": (0, 0),
        }
    )
    pieces, rows = make(plain)._pieces(0)
    assert [tuple(piece.shape) for piece in pieces] == [(12, 2, 14, 14), (6, 2, 12, 12)]
    assert rows == [slice(0, 12), slice(12, 18)]
    assert torch.equal(pieces[0][:6], pieces[0][6:])
    assert torch.equal(pieces[0][:6, :, 1:-1, 1:-1], pieces[1])


def test_surroundings_are_those_of_another_cell():
    settings = TRAIN.model_copy(update={"surroundings_um": (3.0, 3.0)})
    alone = make(settings.model_copy(update={"surroundings_um": (0.0, 0.0)}))
    own, mixed = (torch.cat(training._pieces(0)[0]) for training in (alone, make(settings)))
    offset = torch.arange(12) - 5.5
    distance = torch.hypot(offset[:, None], offset)
    change = (own - mixed).abs().amax((0, 1))
    assert change[distance < 1].max() < 0.02  # of pixels from 0 to about 1
    assert change[distance > 4.5].min() > 0.1
    # Beyond the rim, every view shows another cell as that cell is seen.
    rim = mixed[:, :, distance > 7].flatten(1)
    assert len(torch.unique(rim, dim=0)) == len(rim)


def test_processes_share_out_the_views_of_one_process(monkeypatch):
    monkeypatch.setitem(step._PIECE, "cpu", 5)
    settings = TRAIN.model_copy(update={"view_um": (14.0, 12.0, 14.0), "jitter_um": 1.0})
    whole, rows = make(settings)._pieces(3)
    views = {
        row: view for piece, r in zip(whole, rows, strict=True) for row, view in _rows(piece, r)
    }
    seen = []
    for number in range(4):
        pieces, rows = make(settings, Ranks(number, 4))._pieces(3)
        for piece, places in zip(pieces, rows, strict=True):
            for row, view in _rows(piece, places):
                assert torch.equal(view, views[row])
                seen.append(row)
    assert sorted(seen) == list(range(18))


def test_a_step_by_the_kernels_of_a_gpu(monkeypatch):
    settings = TRAIN.model_copy(update={"optimizer": "lars", "view_um": (14.0, 12.0)})
    expected, on_gpu = make(settings), make(settings)
    on_gpu.device_atlas = DeviceAtlas.of(on_gpu.atlas, "cpu")  # in Triton's interpreter
    on_gpu.encoder.path = "triton-float32"
    assert (expected.encoder.path, on_gpu.encoder.path) == ("fused", "triton-float32")
    for number in range(2):
        loss, other = expected.step(number)["loss"], on_gpu.step(number)["loss"]
        assert abs(loss - other) < 1e-4
    for one, other in zip(expected.parameters, on_gpu.parameters, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def _rows(piece, places):
    return zip(range(places.start, places.stop), piece, strict=True)
