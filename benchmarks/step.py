"""A whole step of training beside PyTorch's ways: views, forward, loss, backward, optimiser.

``python benchmarks/step.py [--preset default paper] [--rounds 5] [--cells 256]``

34 markers, four views a cell (16, 16, 14 and 12 px). One thread each, in turns:

- maskless: `maskless.training.step.Training.step`, with own surroundings as the peers sample; a
  row of its own says what surroundings of other cells cost, with which the default trains;
- plain: patches cut out and turned by OpenCV, `Conv2d(groups)` float32, NT-Xent with boolean masks
  over all pairs;
- channels-last: views by `index_select`, grouped convolutions in PyTorch's channels-last layout,
  NT-Xent by `logsumexp`; also compiled (--compiled) and in bfloat16 (--bfloat16: autocast, slow
  without the processor's own bfloat16 instructions).

All have the same encoder, head, loss and optimiser: given the same views, their losses and
gradients (as a share of the largest) are compared first. CPU seconds, medians over rounds; how
many times the seconds of maskless each needs (medians of the ratios, and the least). --memory WAY:
what a step of one way adds to the memory of a process of its own. Hours for the 15.36 million views
of the paper's 5,000 steps are extrapolated.

Needs opencv-python-headless beside maskless.
"""

from __future__ import annotations

import argparse
import statistics
import threading
from collections.abc import Callable

import numpy as np
import psutil
import torch
import torch._dynamo
import views as views_benchmark
from torch import Tensor
from torch.nn.functional import normalize

from encoder import conv2d, in_pieces, seconds
from maskless.config import Config, resolve
from maskless.encoder import Encoder
from maskless.training import LARS
from maskless.training.ranks import Ranks
from maskless.training.step import Training, _projection_head

MARKERS = 34
SIZES = (16, 16, 14, 12)


def masked_loss(z: Tensor, cells: int, temperature: float) -> Tensor:
    z = normalize(z, dim=1)
    cell = torch.arange(cells).repeat(len(z) // cells)
    oneself = torch.eye(len(z), dtype=torch.bool)
    positive = (cell[:, None] == cell) & ~oneself
    score = (z @ z.T / temperature).masked_fill(oneself, -torch.inf)
    log_share = score - torch.logsumexp(score, 1, keepdim=True)
    return -(log_share.masked_fill(~positive, 0).sum(1) / positive.sum(1)).mean()


def light_loss(z: Tensor, cells: int, temperature: float) -> Tensor:
    z = normalize(z, dim=1)
    score = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    of_cell = z.view(-1, cells, z.shape[1]).sum(0).repeat(len(z) // cells, 1)
    positive = (z * (of_cell - z)).sum(1) / (len(z) // cells - 1) / temperature
    return (torch.logsumexp(score, 1) - positive).mean()


class Way:
    """PyTorch's training: its own views, form of the encoder and loss; our weights at first."""

    def __init__(self, name: str, config: Config, cells: int, compiled: bool) -> None:
        self.name, self.train, self.cells = name, config.train, cells
        self.encoder = make_encoder(config)
        self.head = _projection_head(config.encoder.embedding, 0, True)
        parameters = [*self.encoder.parameters(), *self.head.parameters()]
        train = config.train
        self.optimiser: torch.optim.Optimizer = (
            LARS(parameters, train.learning_rate, train.momentum, train.weight_decay)
            if train.optimizer == "lars"
            else torch.optim.AdamW(parameters, train.learning_rate, weight_decay=train.weight_decay)
        )
        plain = name == "plain"
        layout = torch.contiguous_format if plain else torch.channels_last
        self.form = conv2d(self.encoder, layout)
        if compiled:
            self.form = torch.compile(self.form, dynamic=False)
        self.loss = masked_loss if plain else light_loss
        self.sample = views_benchmark.extract_rotate_crop if plain else views_benchmark.index_select

    def features(self, views: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled="bfloat16" in self.name):
            return self.form(views) if self.name == "plain" else in_pieces(self.form, views)

    def backward(self, batches: list[Tensor]) -> float:
        features = torch.cat([self.features(views).float() for views in batches])
        z = self.head(self.encoder.embed_of(features))
        loss = self.loss(z, self.cells, self.train.temperature)
        loss.backward()
        return float(loss.detach())

    def step(self, cells: views_benchmark.Cells) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        views = torch.as_tensor(self.sample(cells))
        batches = []
        for size, part in zip(SIZES, views.split(self.cells), strict=True):
            edge = (views_benchmark.SIZE - size) // 2
            batches.append(part[:, :, edge : edge + size, edge : edge + size])
        self.backward([torch.cat(batches[:2]), *batches[2:]])
        self.optimiser.step()


def make_encoder(config: Config) -> Encoder:
    return Encoder([f"m{i}" for i in range(MARKERS)], config.encoder)


def make_training(
    config: Config, cells: views_benchmark.Cells, count: int, surroundings: bool = False
) -> Training:
    changes = {"cells_per_step": count, "jitter_um": 0.0, "marker_dropout": 0.0}
    if not surroundings:
        changes["surroundings_um"] = (0.0, 0.0)
    settings = config.train.model_copy(update=changes)
    where = (cells.image_v.astype(np.int64), cells.centre_v2)
    return Training(make_encoder(config), cells.halves, *where, settings, 0, Ranks())


def check(training: Training, way: Way) -> None:
    """Losses and gradients of the same views."""
    pieces, rows = training._pieces(0)
    training.optimiser.zero_grad(set_to_none=True)
    ours = training._backward(pieces, rows)
    views = [torch.cat([p for p in pieces if p.shape[2] == size]) for size in (16, 14, 12)]
    way.optimiser.zero_grad(set_to_none=True)
    theirs = way.backward(views)
    pairs = list(zip(training.encoder.parameters(), way.encoder.parameters(), strict=True))
    worst = max(float((a.grad - b.grad).abs().max()) for a, b in pairs)
    worst /= max(float(a.grad.abs().max()) for a, _ in pairs)
    print(f"  {way.name}: loss {theirs:.5f} beside {ours:.5f}, gradients differ by {worst:.1e}")


def added_mib(work: Callable[[int], object]) -> float:
    """Highest memory during a second step, above that before the first."""
    process, done, seen = psutil.Process(), threading.Event(), [0]

    def watch() -> None:
        while not done.wait(0.002):
            seen.append(process.memory_info().rss)

    before = process.memory_info().rss
    work(0)
    watcher = threading.Thread(target=watch)
    watcher.start()
    work(1)
    done.set()
    watcher.join()
    return (max(seen) - before) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", nargs="+", default=["default", "paper"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cells", type=int, default=256)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--memory", help="run one step of this way only, and say its memory")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch._dynamo.config.recompile_limit = 64  # a form a size and mode; else some run uncompiled
    count = given.cells
    cells = views_benchmark.make_cells(MARKERS, len(SIZES) * count)
    for preset in given.preset:
        config = resolve({"preset": preset})
        training = make_training(config, cells, count)
        names = ["plain", "channels-last"]
        if given.bfloat16:
            names.append("channels-last bfloat16")
        ways = {name: Way(name, config, count, False) for name in names}
        if given.compiled:
            for name in names[1:]:
                ways[f"{name}, compiled"] = Way(name, config, count, True)
        works: dict[str, Callable[[int], object]] = {"maskless": training.step}
        if config.train.surroundings_um[1] > 0:
            others = make_training(config, cells, count, surroundings=True)
            works["maskless, surroundings of others"] = others.step
        works |= {name: lambda _, way=way: way.step(cells) for name, way in ways.items()}
        if given.memory:
            print(f"{preset}, {given.memory}: {added_mib(works[given.memory]):.0f} MiB more")
            continue
        print(f"{preset}, {len(SIZES) * count} views a step")
        for way in ways.values():
            check(training, way)
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
        for number in range(given.rounds + 1):
            for name, work in works.items():
                spent = seconds(lambda work=work, number=number: work(number))
                if number:  # the first round compiles and warms up
                    taken[name].append(spent)
        base = [cpu for cpu, _ in taken["maskless"]]
        for name, rows in taken.items():
            ratios = [cpu / one for (cpu, _), one in zip(rows, base, strict=True)]
            cpu, wall = (statistics.median(column) for column in zip(*rows, strict=True))
            hours = cpu / (len(SIZES) * count) * 15.36e6 / 3600
            print(
                f"  {name:34s} CPU {cpu:7.3f} s  wall {wall:7.3f} s"
                f"  x {statistics.median(ratios):5.1f} (least {min(ratios):.1f})"
                f"  15.36 M views: {hours:.1f} h",
                flush=True,
            )


if __name__ == "__main__":
    main()
