"""The encoder's fused towers beside PyTorch, forward and backward, in one run.

``python benchmarks/encoder.py [--rounds 5] [--views 256] [--threads 1] [--widths 4 8 16]``

A step is 256 views of 16 px twice, 14 px and 12 px (so many each), 34 markers. Compared, in turns:

- fused: the towers of `maskless.encoder`, as users get them;
- reference: the plain module of `maskless.encoder` (grouped layers, projection behind the pool);
- conv2d: the same function of `Conv2d(groups)` throughout, contiguous, float32;
- conv2d channels-last: the same in PyTorch's channels-last layout, views in pieces of 64.

CPU seconds (all threads) and wall seconds, medians over rounds; then how many times the fused
towers' CPU seconds each of the others needs, medians of the rounds' ratios, and the least.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from maskless.config import EncoderSettings
from maskless.encoder import Encoder

MARKERS = 34
SIZES = (16, 16, 14, 12)
PIECE = 64

Form = Callable[[Tensor], Tensor]


def conv2d(encoder: Encoder, layout: torch.memory_format) -> Form:
    """The encoder's features by ordinary grouped convolutions."""
    chosen = encoder.settings

    def grouped(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        flat = weight.flatten(0, 1)[:, :, None, None].contiguous(memory_format=layout)
        return functional.conv2d(x, flat, bias.flatten(), groups=MARKERS)

    def features(views: Tensor) -> Tensor:
        x = functional.conv2d(
            views.contiguous(memory_format=layout),
            encoder.stem_weight.flatten(0, 1)[:, None],
            encoder.stem_bias.flatten(),
            chosen.stem_stride,
            1,
            groups=MARKERS,
        )
        for number, stage in enumerate(encoder.stages):
            if number:
                x = functional.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
            for b in stage:
                depthwise = b.depthwise_weight.flatten(0, 1)[:, None]
                h = functional.conv2d(
                    x,
                    depthwise,
                    b.depthwise_bias.flatten(),
                    padding=chosen.kernel // 2,
                    groups=x.shape[1],
                )
                h = h.unflatten(1, (MARKERS, -1))
                deviation = h - h.mean(2, keepdim=True)
                h = deviation * (deviation.square().mean(2, keepdim=True) + 1e-5).rsqrt()
                h = h * b.norm_weight[:, :, None, None] + b.norm_bias[:, :, None, None]
                h = grouped(h.flatten(1, 2), b.expand_weight, b.expand_bias)
                h = functional.gelu(h, approximate="tanh")
                h = grouped(h, b.project_weight, b.project_bias)
                x = x + h * b.scale.flatten()[:, None, None]
        pool = torch.from_numpy(encoder._pool_weights(*views.shape[2:])).to(x)
        pooled = (x * pool).sum((2, 3))[:, :, None, None]
        return grouped(pooled, encoder.feature_weight, encoder.feature_bias).view(
            len(views), MARKERS, -1
        )

    return features


def in_pieces(form: Form, views: Tensor) -> Tensor:
    return torch.cat([form(piece) for piece in torch.split(views, PIECE)])


def forms(encoder: Encoder) -> dict[str, Form]:
    def path(name: str) -> Form:
        def features(views: Tensor) -> Tensor:
            encoder.path = name
            return encoder.features(views)

        return features

    plain = conv2d(encoder, torch.contiguous_format)
    last = conv2d(encoder, torch.channels_last)
    return {
        "fused": path("fused"),
        "reference": path("reference"),
        "conv2d": plain,
        "conv2d channels-last": lambda views: in_pieces(last, views),
    }


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def forward(form: Form, batches: list[Tensor]) -> None:
    with torch.no_grad():
        for views in batches:
            form(views)


def forward_and_backward(form: Form, encoder: Encoder, batches: list[Tensor]) -> None:
    for views in batches:
        encoder.zero_grad()
        form(views).sum().backward()


def compare(title: str, encoder: Encoder, batches: list[Tensor], rounds: int) -> None:
    ways = forms(encoder)
    with torch.no_grad():
        true = ways["reference"](batches[0][:8])
        for name, form in ways.items():
            worst = float((form(batches[0][:8]) - true).abs().max() / true.abs().max())
            if worst > 1e-4:
                raise RuntimeError(f"{name} computes something else (error {worst:.1e})")
    works = {
        "forward": lambda form: forward(form, batches),
        "forward + backward": lambda form: forward_and_backward(form, encoder, batches),
    }
    for what, work in works.items():
        work(ways["fused"])  # compiles
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, form in ways.items():
                taken[name].append(seconds(partial(work, form)))
        print(f"{title}, {what}")
        base = [cpu for cpu, _ in taken["fused"]]
        for name, rows in taken.items():
            ratios = [cpu / one for (cpu, _), one in zip(rows, base, strict=True)]
            cpu, wall = (statistics.median(column) for column in zip(*rows, strict=True))
            print(
                f"  {name:22s} CPU {cpu:7.3f} s  wall {wall:7.3f} s"
                f"  x {statistics.median(ratios):5.1f} (least {min(ratios):.1f})",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--views", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--widths", type=int, nargs="+", default=[4, 8, 16])
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rng = np.random.default_rng(0)
    batches = [
        torch.from_numpy(rng.random((given.views, MARKERS, size, size), np.float32))
        for size in SIZES
    ]
    for width in given.widths:
        for title, chosen in (
            ("default", EncoderSettings(width=width)),
            (
                "paper",
                EncoderSettings(width=width, blocks=(1, 1), stem_stride=1, pooling="mean"),
            ),
        ):
            encoder = Encoder([f"m{i}" for i in range(MARKERS)], chosen)
            compare(f"{title}, w = {width}", encoder, batches, given.rounds)


if __name__ == "__main__":
    main()
