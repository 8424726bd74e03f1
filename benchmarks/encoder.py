"""The encoder's fused towers beside PyTorch, forward and backward, in one run.

``python benchmarks/encoder.py [--rounds 5] [--widths 4 8 16] [--compiled] [--bfloat16]``

A step is 256 views of 16 px twice, 14 px and 12 px (so many each), 34 markers. Compared, in turns,
on one thread:

- fused: the towers of `maskless.encoder`, as users get them;
- reference: the plain module of `maskless.encoder` (grouped layers, projection behind the pool);
- conv2d: the same function of `Conv2d(groups)` throughout, contiguous, float32;
- channels-last: the same in PyTorch's channels-last layout, views in pieces of 64; with
  ``--compiled`` also by `torch.compile` (needs a compiler), with ``--bfloat16`` under autocast
  (very slow on processors without instructions for it).

CPU seconds (all threads) and wall seconds, medians over rounds; then how many times the fused
towers' CPU seconds each of the others needs, medians of the rounds' ratios, and the least.

Then, of the fused towers: the share of the processor's speed (of matrix products, measured in
turns with them) that the multiplications and additions of the towers' layers come to, and the share
of the bandwidth of copies that their views come to. Not counted: GELU, LayerNorm, pooling, and that
the backward makes the forward again. And two threads beside one: wall seconds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import cache, partial

import numpy as np
import torch
import torch._dynamo
from torch import Tensor
from torch.nn import functional

from maskless.config import PRESETS as ALL_PRESETS
from maskless.config import EncoderSettings
from maskless.encoder import Encoder

MARKERS = 34
SIZES = (16, 16, 14, 12)
PIECE = 64
PRESETS = {name: ALL_PRESETS[name] for name in ("default", "paper")}

Form = Callable[[Tensor], Tensor]


def conv2d(encoder: Encoder, layout: torch.memory_format) -> Form:
    """The encoder's features by ordinary grouped convolutions, for square views."""
    chosen = encoder.settings
    pools = {size: torch.from_numpy(encoder._pool_weights(size, size)).float() for size in SIZES}

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
        pooled = (x * pools[views.shape[2]].to(x)).sum((2, 3))[:, :, None, None]
        return grouped(pooled, encoder.feature_weight, encoder.feature_bias).view(
            len(views), MARKERS, -1
        )

    return features


def in_pieces(form: Form, views: Tensor) -> Tensor:
    return torch.cat([form(piece) for piece in torch.split(views, PIECE)])


def in_bfloat16(form: Form, views: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return form(views).float()


def forms(encoder: Encoder, compiled: bool, bfloat16: bool) -> dict[str, Form]:
    def path(name: str) -> Form:
        def features(views: Tensor) -> Tensor:
            encoder.path = name
            return encoder.features(views)

        return features

    plain = conv2d(encoder, torch.contiguous_format)
    last = conv2d(encoder, torch.channels_last)
    found = {
        "fused": path("fused"),
        "reference": path("reference"),
        "conv2d": plain,
        "channels-last": partial(in_pieces, last),
    }
    if compiled:
        found["channels-last, compiled"] = partial(
            in_pieces, torch.compile(conv2d(encoder, torch.channels_last), dynamic=False)
        )
    if bfloat16:
        found["channels-last, bfloat16"] = partial(in_bfloat16, partial(in_pieces, last))
    return found


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


def compare(title: str, encoder: Encoder, batches: list[Tensor], given: argparse.Namespace) -> None:
    ways = forms(encoder, given.compiled, given.bfloat16)
    with torch.no_grad():
        true = ways["reference"](batches[0][:PIECE])
        for name, form in ways.items():
            worst = float((form(batches[0][:PIECE]) - true).abs().max() / true.abs().max())
            if worst > (0.05 if "bfloat16" in name else 1e-4):
                raise RuntimeError(f"{name} computes something else (error {worst:.1e})")
    works = {
        "forward": lambda form: forward(form, batches),
        "forward + backward": lambda form: forward_and_backward(form, encoder, batches),
    }
    a = torch.rand(1024, 1024)
    for what, work in works.items():
        for form in ways.values():
            work(form)  # compiles
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        products: list[float] = []
        for _ in range(given.rounds):
            for name, form in ways.items():
                taken[name].append(seconds(partial(work, form)))
            products.append(seconds(lambda: a @ a)[0])
        print(f"{title}, {what}")
        base = [cpu for cpu, _ in taken["fused"]]
        for name, rows in taken.items():
            ratios = [cpu / one for (cpu, _), one in zip(rows, base, strict=True)]
            cpu, wall = (statistics.median(column) for column in zip(*rows, strict=True))
            print(
                f"  {name:24s} CPU {cpu:7.3f} s  wall {wall:7.3f} s"
                f"  x {statistics.median(ratios):5.1f} (least {min(ratios):.1f})",
                flush=True,
            )
        times = 1 if what == "forward" else 3
        done = times * sum(len(v) * operations(encoder, v.shape[2]) for v in batches)
        moved = times * sum(v.nbytes for v in batches)
        speed = 2 * 1024**3 / statistics.median(products)
        cpu = statistics.median(base)
        print(
            f"  fused: {done / cpu / 1e9:.0f} GFLOP/s of {speed / 1e9:.0f} in matrix products,"
            f" {done / cpu / speed:.0%}; {moved / cpu / 1e9:.2f} GB/s of views,"
            f" {moved / cpu / bandwidth():.0%} of the bandwidth of copies"
        )
        print_two_threads(partial(work, ways["fused"]), given.rounds)


def operations(encoder: Encoder, size: int) -> int:
    """Multiplications and additions of the layers of all towers, for one view."""
    chosen = encoder.settings
    width, inner = chosen.width, chosen.width * chosen.expansion
    edge = -(-size // chosen.stem_stride)
    total = 9 * width * edge**2
    for stage, blocks in enumerate(chosen.blocks, start=1):
        behind = 1 if stage == len(chosen.blocks) else (-(-edge // 2)) ** 2
        total += blocks * edge**2 * (chosen.kernel**2 * width + width * inner)
        total += ((blocks - 1) * edge**2 + behind) * width * inner  # the last behind the pool
        edge = -(-edge // 2)
    return 2 * MARKERS * (total + width * width)


@cache
def bandwidth() -> float:
    """Bytes read and written in a second by copies larger than the caches, on one thread."""
    source, target = np.ones(1 << 26, np.float32), np.zeros(1 << 26, np.float32)
    copies = [seconds(lambda: np.copyto(target, source))[0] for _ in range(5)]
    return 2 * source.nbytes / statistics.median(copies)


def print_two_threads(work: Callable[[], object], rounds: int) -> None:
    wall: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for threads, each in wall.items():
            torch.set_num_threads(threads)
            each.append(seconds(work)[1])
    torch.set_num_threads(1)
    ratios = [one / two for one, two in zip(wall[1], wall[2], strict=True)]
    print(
        f"  fused: two threads {statistics.median(ratios):.2f} times as fast as one,"
        f" {max(ratios):.2f} at best"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--views", type=int, default=256)
    parser.add_argument("--widths", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--presets", choices=PRESETS, nargs="+", default=list(PRESETS))
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--bfloat16", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch._dynamo.config.recompile_limit = 64  # a form a size and mode; else some run uncompiled
    rng = np.random.default_rng(0)
    batches = [
        torch.from_numpy(rng.random((given.views, MARKERS, size, size), np.float32))
        for size in SIZES
    ]
    for width in given.widths:
        for preset in given.presets:
            chosen = EncoderSettings(width=width, **PRESETS[preset].get("encoder", {}))
            encoder = Encoder([f"m{i}" for i in range(MARKERS)], chosen)
            compare(f"{preset}, w = {width}", encoder, batches, given)


if __name__ == "__main__":
    main()
