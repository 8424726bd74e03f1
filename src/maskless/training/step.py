"""One step of training: views of a batch, their loss, its gradient, the optimiser.

Axes: N = cells, V = views of one cell, B = cells of a batch, C = markers, K = features a marker,
P = views of a piece.

Each step draws its cells and augmentations from a generator made of the seed and the number of
the step, so going on after a stop needs only that number and the tensors. Processes that train
together draw the same batch; each takes some of its pieces and of the comparisons of the loss.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from maskless.cells.atlas import Atlas
from maskless.cells.views import Augmentations, draw_augmentations, gather_views, view_size_px
from maskless.cells.views_gpu import DeviceAtlas, gather_views_on
from maskless.encoder.model import Encoder
from maskless.errors import InputError, SettingsError, TrainingError
from maskless.progress import log
from maskless.training.checkpoint import Record
from maskless.training.lars import LARS
from maskless.training.losses import nt_xent
from maskless.training.ranks import Ranks
from maskless.training.schedule import learning_rate

if TYPE_CHECKING:
    from maskless.config import TrainSettings

# Views that pass the encoder together: each pass packs the weights once.
_PIECE = {"cpu": 256, "cuda": 8192}
_GRAPH_BYTES = 2 << 30  # of activations kept from forward to backward
_RIM_UM = 0.5  # over which a cell gives way to the surroundings of another
_STREAM = 0x7A1  # keeps the draws apart from those of other stages with the same seed


class Training:
    """Encoder, head and optimiser, and the step that moves them.

    Parameters
    ----------
    encoder
        What is trained; the views go to its device.
    atlas
        Images, with a margin that holds all views.
    image_index_n, centres_yx
        Image of each cell, and its centre in pixels of that image.
    settings
        How to train.
    seed
        Fixes head, batches and augmentations.
    ranks
        The processes that train together.

    Raises
    ------
    InputError
        If there are fewer than two cells.
    SettingsError
        If views or pixels do not fit.
    """

    def __init__(
        self,
        encoder: Encoder,
        atlas: Atlas,
        image_index_n: NDArray[np.int64],
        centres_yx: NDArray[np.float64],
        settings: TrainSettings,
        seed: int,
        ranks: Ranks,
    ) -> None:
        if len(image_index_n) < 2:
            raise InputError(
                "there are too few cells to train on",
                expected="at least 2",
                found=len(image_index_n),
                do="Look at the detection of nuclei",
            )
        if settings.pixel_um != atlas.pixel_um:
            raise SettingsError(
                f"the atlas has pixels of {atlas.pixel_um} um, training asks for "
                f"{settings.pixel_um} um"
            )
        if len(settings.view_um) < 2:
            raise SettingsError("contrastive training needs two or more views; see train.view_um")
        self.atlas, self.image_index_n, self.centres_yx = atlas, image_index_n, centres_yx
        self.settings, self.seed, self.ranks = settings, seed, ranks
        # Views of one size are one batch; the loss does not care which view comes first.
        sizes = Counter(view_size_px(um, settings.pixel_um) for um in settings.view_um)
        self.views_of_size = dict(sorted(sizes.items(), reverse=True))
        self.cells = min(settings.cells_per_step, len(image_index_n))
        if self.cells < settings.cells_per_step:
            log(f"a step takes all {self.cells} cells; {settings.cells_per_step} were asked for")
        self.encoder = encoder.train()
        head = _projection_head(encoder.settings.embedding, seed, settings.projection)
        self.device = encoder.bias.device
        self.head = head.to(self.device)
        self.device_atlas = _on_device(atlas, self.device)
        self.parameters = [*encoder.parameters(), *self.head.parameters()]
        self.optimiser: torch.optim.Optimizer
        if settings.optimizer == "lars":
            self.optimiser = LARS(
                self.parameters, settings.learning_rate, settings.momentum, settings.weight_decay
            )
        else:
            self.optimiser = torch.optim.AdamW(
                self.parameters, settings.learning_rate, weight_decay=settings.weight_decay
            )

    def step(self, step: int) -> Record:
        """Take one step (numbered from 0) and tell about it.

        Raises
        ------
        TrainingError
            In all processes, if the loss or a gradient is not a finite number.
        """
        settings = self.settings
        rate = learning_rate(step, settings.steps, settings.warmup_steps, settings.learning_rate)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        loss = self._backward(*self._pieces(step))
        slopes = [p.grad.norm() for p in self.parameters if p.grad is not None]
        if not (np.isfinite(loss) and torch.stack(slopes).sum().isfinite()):
            what = "gradient" if np.isfinite(loss) else "loss"
            raise TrainingError(
                f"the {what} is not a finite number at step {step + 1} of {settings.steps}. "
                "Lower train.learning_rate or raise train.temperature"
            )
        self.optimiser.step()
        return {"step": step + 1, "loss": loss, "learning_rate": rate}

    def _pieces(self, step: int) -> tuple[list[Tensor], list[slice]]:
        """Views of a batch in small pieces, those of this process, and their rows in the batch.

        Row v * B + b of the batch is view v of cell b.
        """
        rng = np.random.default_rng(np.random.SeedSequence((self.seed, _STREAM, step)))
        cell_b = rng.choice(len(self.image_index_n), self.cells, replace=False)
        pieces: list[Tensor] = []
        rows: list[slice] = []
        first = 0
        for size_px, count in self.views_of_size.items():
            cell_v = np.tile(cell_b, count)
            how = draw_augmentations(rng, len(cell_v), len(self.atlas.markers), self.settings)
            bounds = [len(cell_v) * i // self.ranks.count for i in range(self.ranks.count + 1)]
            mine = slice(bounds[self.ranks.number], bounds[self.ranks.number + 1])
            views = self._gather(cell_v[mine], size_px, _some(how, mine))
            if self.settings.surroundings_um[1] > 0:
                views = self._transplanted(rng, cell_b, count, size_px, views, mine, how)
            length = _PIECE[self.device.type]
            pieces += torch.split(views, length)
            for start in range(mine.start, mine.stop, length):
                rows.append(slice(first + start, first + min(start + length, mine.stop)))
            first += len(cell_v)
        return pieces, rows

    def _gather(self, cell_v: NDArray[np.int64], size_px: int, how: Augmentations) -> Tensor:
        which = (self.image_index_n[cell_v], self.centres_yx[cell_v], size_px, how)
        if self.device_atlas is not None:
            return gather_views_on(self.device_atlas, *which)
        return torch.from_numpy(gather_views(self.atlas, *which)).to(self.device)

    def _transplanted(
        self,
        rng: np.random.Generator,
        cell_b: NDArray[np.int64],
        count: int,
        size_px: int,
        views: Tensor,
        mine: slice,
        how: Augmentations,
    ) -> Tensor:
        """Views whose surroundings are those of another cell of the batch, drawn for each view.

        Else the surroundings tell one cell from all others, and the encoder would learn them. A
        cell keeps what lies within a radius drawn for each view.
        """
        other_v = np.concatenate([rng.permutation(cell_b) for _ in range(count)])
        radius_v = rng.uniform(*self.settings.surroundings_um, len(other_v))
        offset = np.arange(size_px) - (size_px - 1) / 2
        distance_um = self.settings.pixel_um * np.hypot(offset[:, None], offset)
        beyond_vss = (distance_um - radius_v[:, None, None]) / _RIM_UM
        own_v1ss = (1 / (1 + np.exp(beyond_vss))).astype(np.float32)[:, None]
        others = self._gather(other_v[mine], size_px, _some(how, mine))
        # Not lerp: it rounds differently for different numbers of views.
        own = torch.from_numpy(own_v1ss[mine]).to(views.device)
        return others + own * (views - others)

    def _backward(self, pieces: list[Tensor], rows: list[slice]) -> float:
        """Loss of a batch; gradients are added to the parameters.

        Features of a view depend on that view alone, so they are computed piece by piece and
        cut from their graphs. When their gradient is known, it goes back through each piece;
        graphs that did not fit in memory are made a second time. Both ways give the same bits.
        """
        graphs: list[Tensor | None] = []
        views = self.cells * len(self.settings.view_um)
        features_vck = self.encoder.bias.new_zeros(views, *self.encoder.feature_bias.shape)
        saved = _SavedBytes()
        for piece, places in zip(pieces, rows, strict=True):
            keep = saved.count < _GRAPH_BYTES
            with torch.set_grad_enabled(keep), saved:
                features_pck = self.encoder.features(piece)
            graphs.append(features_pck if keep else None)
            features_vck[places] = features_pck.detach()
        self.ranks.sum_(features_vck)
        features_vck.requires_grad_()
        z_vd = self.head(self.encoder.embed_of(features_vck))
        share = (self.ranks.number, self.ranks.count)
        loss = nt_xent(z_vd, self.cells, self.settings.temperature, share=share)
        loss.backward()  # type: ignore[no-untyped-call]
        total, gradient_vck = loss.detach(), features_vck.grad
        self.ranks.sum_(total)
        if gradient_vck is None or not torch.isfinite(total):
            return float(total)
        self.ranks.sum_(gradient_vck)
        for index, (piece, places) in enumerate(zip(pieces, rows, strict=True)):
            graph, graphs[index] = graphs[index], None
            if graph is None:
                graph = self.encoder.features(piece)
            graph.backward(gradient_vck[places])  # type: ignore[no-untyped-call]
        if self.ranks.count > 1:
            for parameter in self.parameters:
                if parameter.grad is None:  # a process without views
                    parameter.grad = torch.zeros_like(parameter)
            self.ranks.sum_(*[p.grad for p in self.parameters if p.grad is not None])
        return float(total)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a later process needs to go on, by name."""
        tensors = {f"encoder.{k}": v for k, v in self.encoder.state_dict().items()}
        tensors |= {f"head.{k}": v for k, v in self.head.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{k}": torch.as_tensor(v) for k, v in state.items()}
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what :meth:`tensors` gave."""
        parts: dict[str, dict[str, Tensor]] = {"encoder": {}, "head": {}, "optimiser": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        self.encoder.load_state_dict(parts["encoder"])
        self.head.load_state_dict(parts["head"])
        states: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["optimiser"].items():
            index, _, key = name.partition(".")
            states.setdefault(int(index), {})[key] = tensor
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": states, "param_groups": groups})


class _SavedBytes(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes that graphs made inside keep for their backward."""

    def __init__(self) -> None:
        self.count = 0
        super().__init__(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        self.count += tensor.nbytes
        return tensor


def _on_device(atlas: Atlas, device: torch.device) -> DeviceAtlas | None:
    """Images in the memory of a GPU, if they leave room for training there."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    if atlas.values.nbytes > free // 2:
        log("the images fill over half of the GPU's memory: views are gathered on the processor")
        return None
    return DeviceAtlas.of(atlas, device)


def _some(how: Augmentations, rows: slice) -> Augmentations:
    """What is done to some of the views."""
    given = {name: value for name, value in vars(how).items() if value is not None}
    return replace(how, **{name: value[rows] for name, value in given.items()})


def _projection_head(embedding: int, seed: int, projection: bool) -> nn.Module:
    """256-256-128 between embedding and loss, with weights drawn from a generator of its own."""
    if not projection:
        return nn.Identity()
    generator = torch.Generator().manual_seed(seed + 1)
    layers = []
    for inputs, outputs in ((embedding, 256), (256, 128)):
        layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
        for parameter in (layer.weight, layer.bias):
            nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5, generator=generator)
        layers.append(layer)
    return nn.Sequential(layers[0], nn.BatchNorm1d(256), nn.ReLU(), layers[1])
