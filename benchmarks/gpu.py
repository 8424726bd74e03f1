"""Training and embedding on a GPU beside PyTorch's own way, in one run.

``python benchmarks/gpu.py [--steps 200] [--widths 8 16] [--presets default paper]``
``python benchmarks/gpu.py --only-clusters`` is part 6 alone.
``python benchmarks/gpu.py --dry`` goes through every line on a CPU, in Triton's interpreter.

It needs PyTorch for CUDA with its Triton, NumPy, SciPy and Numba: no package of files or settings,
but for the last part (RAPIDS).
A step: 768 cells x 4 views (16, 16, 14, 12 px) x 34 markers, 256-256-128 head, NT-Xent, AdamW.

1. The device's limits: bytes a second of a copy, operations a second of a bfloat16 product.
2. Agreement with the plain module in float64: views, features, gradients.
3. Towers: forward, and forward + backward, in milliseconds, beside
   - compiled: grouped ``Conv2d``, bfloat16, channels-last, ``torch.compile``;
   - reference: the plain module of `maskless.encoder`, float32;
   and the fraction of the limits that the kernels reach: the time that their bytes or their
   operations need at least, whichever is longer, over the time that they take.
4. Whole steps with either towers, and what 5,000 of them take; the parts of a step.
5. Embedding of cells, and what 1.8 million take.
6. Where RAPIDS is installed: PhenoGraph with neighbours by cuML beside the CPU's.

Medians. Times are wall seconds around synchronised work after a warm-up; views of steps and of
embedding are gathered anew each time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

if "--dry" in sys.argv:
    os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import torch
from gpu_clustering import compare_clustering
from torch import Tensor, nn
from torch.nn import functional

from maskless.cells.atlas import Atlas
from maskless.cells.views import draw_augmentations, gather_views
from maskless.cells.views_gpu import DeviceAtlas, gather_views_on
from maskless.encoder import Encoder
from maskless.encoder.fused import tower_shape
from maskless.encoder.triton_plan import TritonPlan, make_triton_plan
from maskless.progress import set_mode
from maskless.training.losses import nt_xent

DRY = "--dry" in sys.argv
DEVICE = torch.device("cpu" if DRY else "cuda")
MARKERS = 3 if DRY else 34
CELLS = 2 if DRY else 768
VIEWS = {12: 2} if DRY else {16: 2, 14: 1, 12: 1}
IMAGES, EDGE, MARGIN = (1, 40, 16) if DRY else (8, 1000, 20)
EMBEDDED, EMBED_AT_ONCE = (6, 4) if DRY else (400_000, 8192)
STEPS_ASKED, CELLS_ASKED, SMALL_BATCH = 5000, 1_800_000, 2 if DRY else 48

Form = Callable[[Tensor], Tensor]
AUGMENT = SimpleNamespace(
    rotate=True, flip=True, zoom=(0.9, 1.1), gain=(0.8, 1.25), gain_per_marker=True, noise=0.1,
    jitter_um=0.0, marker_dropout=0.0,
)  # fmt: skip
TOWER = SimpleNamespace(
    blocks=(2,), kernel=3, expansion=2, stem_stride=2, norm="marker", pooling="centre",
    pooling_radius_um=2.0, embedding=256,
)  # fmt: skip
PRESETS = {"default": {}, "paper": {"blocks": (1, 1), "stem_stride": 1, "pooling": "mean"}}


def settings(preset: str, width: int) -> SimpleNamespace:
    return SimpleNamespace(**{**vars(TOWER), **PRESETS[preset], "width": width})


def make_atlas(rng: np.random.Generator) -> Atlas:
    edge = EDGE + 2 * MARGIN
    size = edge * edge * MARKERS
    values = np.empty(IMAGES * size, np.float16)
    for image in range(IMAGES):
        values[image * size : (image + 1) * size] = rng.random(size, np.float32)

    same = partial(np.full, IMAGES)
    return Atlas(
        markers=tuple(f"m{i}" for i in range(MARKERS)),
        image_names=tuple(f"i{i}" for i in range(IMAGES)),
        pixel_um=1.0,
        values=values,
        offset_i=np.arange(IMAGES) * size,
        rows_i=same(edge),
        columns_i=same(edge),
        margin_i=same(MARGIN),
        factor_i=same(1),
        um_per_pixel_i=np.ones(IMAGES),
    )


def some_cells(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    return rng.integers(0, IMAGES, count), rng.random((count, 2)) * (EDGE - 1)


def median_ms(work: Callable[[], object], rounds: int, warm_up: int = 3) -> float:
    for _ in range(1 if DRY else warm_up):
        work()
    times = []
    wait = torch.cuda.synchronize if DEVICE.type == "cuda" else int
    for _ in range(1 if DRY else rounds):
        wait()
        start = time.perf_counter()
        work()
        wait()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def limits() -> tuple[float, float]:
    """Bytes and operations a second."""
    numbers, edge = (1 << 10, 32) if DRY else (1 << 29, 8192)
    source = torch.rand(numbers, device=DEVICE)
    target = torch.empty_like(source)
    bytes_s = 8 * numbers / (1e-3 * median_ms(lambda: target.copy_(source), 10))
    a, b = (torch.randn(edge, edge, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    operations_s = 2 * edge**3 / (1e-3 * median_ms(lambda: a @ b, 10))
    return bytes_s, operations_s


def counted(plan: TritonPlan, views: int) -> tuple[float, float, float, float]:
    """Bytes and operations of the kernels' forward, and of forward and backward together."""
    shape, width, inner = plan.shape, plan.shape.width, plan.shape.inner
    given = 4.0 * plan.height * plan.length
    sites = [place.height * place.length for place in plan.blocks]
    maps = [2.0 * width * count for count in sites] + [4.0 * (width + inner)]
    forward, backward = given + maps[0] + sum(maps[:-1]) + sum(maps[1:]), given + maps[0]
    stem = 18.0 * width * sites[0]
    work, back = stem, stem
    for number, count in enumerate(sites):
        backward += 5 * maps[number] + 2 * maps[number + 1]
        filters, expand = 2.0 * shape.kernel**2 * width * count, 2.0 * width * inner * count
        projected = sites[number + 1] if number + 1 < len(sites) else 0
        project = 2.0 * inner * width * projected
        work += filters + expand + project
        back += 3 * filters + 3 * expand + 2 * project
    many = views * MARKERS
    return many * forward, many * work, many * (forward + backward), many * (work + back)


def grouped_towers(encoder: Encoder) -> Form:
    """The encoder's features by grouped convolutions in bfloat16, channels-last, compiled."""
    chosen = encoder.settings
    last = torch.channels_last

    def grouped(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        flat = weight.flatten(0, 1)[:, :, None, None]
        return functional.conv2d(x, flat.to(x.dtype), bias.flatten().to(x.dtype), groups=MARKERS)

    def depthwise(x: Tensor, weight: Tensor, bias: Tensor, stride: int, groups: int) -> Tensor:
        flat, pad = weight.flatten(0, 1)[:, None].to(x.dtype), weight.shape[-1] // 2
        return functional.conv2d(x, flat, bias.flatten().to(x.dtype), stride, pad, groups=groups)

    def features(views: Tensor, pool: Tensor) -> Tensor:
        x = views.to(torch.bfloat16).contiguous(memory_format=last)
        x = depthwise(x, encoder.stem_weight, encoder.stem_bias, chosen.stem_stride, MARKERS)
        for number, stage in enumerate(encoder.stages):
            if number:
                x = functional.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
            for b in stage:
                h = depthwise(x, b.depthwise_weight, b.depthwise_bias, 1, x.shape[1])
                h = h.unflatten(1, (MARKERS, -1)).float()
                deviation = h - h.mean(2, keepdim=True)
                h = deviation * (deviation.square().mean(2, keepdim=True) + 1e-5).rsqrt()
                h = h * b.norm_weight[:, :, None, None] + b.norm_bias[:, :, None, None]
                h = grouped(h.flatten(1, 2).to(x.dtype), b.expand_weight, b.expand_bias)
                h = functional.gelu(h, approximate="tanh")
                h = grouped(h, b.project_weight, b.project_bias)
                x = x + h * b.scale.flatten()[:, None, None].to(x.dtype)
        pooled = (x * pool.to(x.dtype)).sum((2, 3))[:, :, None, None]
        found = grouped(pooled, encoder.feature_weight, encoder.feature_bias)
        return found.view(len(views), MARKERS, -1).float()

    torch._dynamo.config.recompile_limit = 64  # a form for each size and each kind of call
    compiled = torch.compile(features, backend="eager" if DRY else "inductor", dynamic=False)
    pools: dict[tuple[int, ...], Tensor] = {}

    def with_pool(views: Tensor) -> Tensor:
        size = tuple(views.shape[2:])
        if size not in pools:
            pools[size] = torch.from_numpy(encoder._pool_weights(*size).copy()).to(DEVICE)
        return compiled(views, pools[size])

    return with_pool


def forms(encoder: Encoder) -> dict[str, Form]:
    def path(name: str, views: Tensor) -> Tensor:
        encoder.path = name
        if encoder.path != name:
            raise RuntimeError(f"the encoder does not take the path {name}: {encoder.path}")
        return encoder.features(views)

    return {
        "kernels": partial(path, "triton"),
        "compiled": grouped_towers(encoder),
        "reference": partial(path, "reference"),
    }


def error(found: Tensor, true: Tensor) -> float:
    found, true = found.detach().double(), true.detach().double()
    return float((found - true).abs().max() / true.abs().max())


def gradients(encoder: Encoder, features: Tensor, slope: Tensor) -> dict[str, Tensor]:
    encoder.zero_grad()
    features.backward(slope)
    named = encoder.named_parameters()
    return {name: p.grad.clone() for name, p in named if p.grad is not None}


def check_views(atlas: Atlas, device_atlas: DeviceAtlas, rng: np.random.Generator) -> None:
    index, centres = some_cells(rng, SMALL_BATCH)
    how = draw_augmentations(rng, len(index), MARKERS, AUGMENT)
    for size in VIEWS:
        true = torch.from_numpy(gather_views(atlas, index, centres, size, how))
        found = gather_views_on(device_atlas, index, centres, size, how).cpu()
        print(f"  views of {size} px: largest difference {float((found - true).abs().max()):.1e}")


def check(encoder: Encoder, device_atlas: DeviceAtlas, rng: np.random.Generator) -> None:
    exact = Encoder(encoder.markers, encoder.settings).to(DEVICE).double()
    exact.load_state_dict(encoder.state_dict())
    exact.path = "reference"
    ways = {"triton-float32": (1e-5, 5e-4), "triton": (5e-2, 2e-1)}
    for size in VIEWS:
        index, centres = some_cells(rng, SMALL_BATCH)
        views = gather_views_on(device_atlas, index, centres, size)
        slope = torch.randn(len(views), MARKERS, encoder.settings.width, device=DEVICE)
        true = exact.features(views.double())
        true_gradients = gradients(exact, true, slope.double())
        for way, (tolerance, gradient_tolerance) in ways.items():
            encoder.path = way
            found = encoder.features(views)
            of_features = error(found, true)
            errors = {
                name: error(gradient, true_gradients[name])
                for name, gradient in gradients(encoder, found, slope).items()
            }
            worst = max(errors, key=errors.__getitem__)
            fine = of_features < tolerance and errors[worst] < gradient_tolerance
            print(
                f"  {size} px, {way}: features {of_features:.1e}, gradients {errors[worst]:.1e} "
                f"({worst}) {'' if fine else 'TOO FAR'}",
                flush=True,
            )
            if not fine:
                raise RuntimeError("the kernels compute something else than the plain module")


def compare_towers(encoder: Encoder, measured: tuple[float, float]) -> None:
    sizes = [(count * CELLS, MARKERS, s, s) for s, count in VIEWS.items()]
    batches = [torch.rand(size, device=DEVICE) for size in sizes]
    plans = [make_triton_plan(tower_shape(encoder), s, s, DEVICE) for s in VIEWS]
    counts = np.sum([counted(p, len(b)) for p, b in zip(plans, batches, strict=True)], axis=0)
    least = [1e3 * max(counts[i] / measured[0], counts[i + 1] / measured[1]) for i in (0, 2)]
    ways = forms(encoder)
    with torch.no_grad():
        true = ways["reference"](batches[0][:SMALL_BATCH])
        if not error(ways["compiled"](batches[0][:SMALL_BATCH]), true) < 0.1:
            raise RuntimeError("the compiled form computes something else than the plain module")

    def work(form: Form, backward: bool) -> None:
        encoder.zero_grad()
        with torch.set_grad_enabled(backward):
            for views in batches:
                features = form(views)
                if backward:
                    features.sum().backward()

    for what, backward in (("forward", False), ("with backward", True)):
        taken = {
            name: median_ms(lambda form=form, backward=backward: work(form, backward), 20)
            for name, form in ways.items()
        }
        base = taken["kernels"]
        ratios = ", ".join(f"{n} {t:.2f} ms (x {t / base:.1f})" for n, t in taken.items())
        print(f"  towers, {what}: {ratios}")
        print(
            f"    kernels: {100 * least[backward] / base:.0f} % of the limits "
            f"({counts[2 * backward] / 1e9:.2f} GB, {counts[2 * backward + 1] / 1e9:.0f} GFLOP)",
            flush=True,
        )


class Step:
    """Whole steps of training with some form of the towers."""

    def __init__(self, encoder: Encoder, form: Form, device_atlas: DeviceAtlas) -> None:
        self.encoder, self.form, self.device_atlas = encoder, form, device_atlas
        self.rng = np.random.default_rng(1)
        embedding = encoder.settings.embedding
        layers = (nn.Linear(embedding, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 128))
        self.head = nn.Sequential(*layers).to(DEVICE)
        parameters = [*encoder.parameters(), *self.head.parameters()]
        self.optimiser = torch.optim.AdamW(parameters, 1e-3, fused=DEVICE.type == "cuda")

    def views(self) -> list[Tensor]:
        index, centres = some_cells(self.rng, CELLS)
        batches = []
        for size, count in VIEWS.items():
            how = draw_augmentations(self.rng, count * CELLS, MARKERS, AUGMENT)
            places = (np.tile(index, count), np.tile(centres, (count, 1)))
            batches.append(gather_views_on(self.device_atlas, *places, size, how))
        return batches

    def loss(self, features: Tensor) -> Tensor:
        return nt_xent(self.head(self.encoder.embed_of(features)), CELLS, 0.2)

    def __call__(self) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        self.loss(torch.cat([self.form(views) for views in self.views()])).backward()
        self.optimiser.step()


def compare_steps(encoder: Encoder, device_atlas: DeviceAtlas, steps: int) -> None:
    taken = {}
    for name, form in forms(encoder).items():
        step = Step(encoder, form, device_atlas)
        rounds = steps if name == "kernels" else max(10, steps // 10)
        taken[name] = median_ms(step, rounds, warm_up=10)
        print(
            f"  step with {name}: {taken[name]:.2f} ms, {STEPS_ASKED} steps "
            f"{1e-3 * STEPS_ASKED * taken[name]:.0f} s (x {taken[name] / taken['kernels']:.1f})",
            flush=True,
        )
    step = Step(encoder, forms(encoder)["kernels"], device_atlas)
    batches = step.views()
    features = torch.cat([step.form(views).detach() for views in batches]).requires_grad_()
    augment = median_ms(lambda: draw_augmentations(step.rng, 4 * CELLS, MARKERS, AUGMENT), 20)
    gather = median_ms(step.views, 20)
    loss = median_ms(lambda: step.loss(features).backward(), 20)
    print(
        f"    of which drawing {augment:.2f} ms, views with it {gather:.2f} ms, loss {loss:.2f} ms"
    )


def embed(encoder: Encoder, device_atlas: DeviceAtlas, rng: np.random.Generator) -> None:
    index, centres = some_cells(rng, EMBEDDED)
    size = max(VIEWS)

    def all_cells() -> None:
        with torch.inference_mode():
            for start in range(0, EMBEDDED, EMBED_AT_ONCE):
                some = slice(start, start + EMBED_AT_ONCE)
                views = gather_views_on(device_atlas, index[some], centres[some], size)
                features = encoder.features(views)
                encoder.embed_of(features).cpu(), features.cpu()

    encoder.path = "triton"
    ms = median_ms(all_cells, 3, warm_up=1)
    print(
        f"  embedding: {1e3 * EMBEDDED / ms:.0f} cells a second, {CELLS_ASKED} cells "
        f"{1e-3 * ms * CELLS_ASKED / EMBEDDED:.1f} s (results copied to the processor)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200, help="measured steps")
    parser.add_argument("--widths", type=int, nargs="+", default=[4] if DRY else [8, 16])
    parser.add_argument("--presets", nargs="+", default=["default", "paper"])
    parser.add_argument("--cells", type=int, nargs="+", default=[100_000, 300_000, CELLS_ASKED])
    parser.add_argument("--only-clusters", action="store_true", help="the last part alone")
    parser.add_argument(
        "--dry", action="store_true", help="tiny sizes on a CPU; times mean nothing"
    )
    given = parser.parse_args()
    if given.only_clusters:
        compare_clustering(given.cells)
        return
    if not (DRY or torch.cuda.is_available()):
        raise SystemExit("torch sees no GPU; --dry goes through all lines on a CPU")
    set_mode("plain")
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    measured = limits()
    name = "a CPU, dry" if DRY else torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}")
    print(f"limits: copy {measured[0] / 1e12:.2f} TB/s, bf16 {measured[1] / 1e12:.0f} TFLOP/s")
    atlas = make_atlas(rng)
    device_atlas = DeviceAtlas.of(atlas, DEVICE)
    check_views(atlas, device_atlas, rng)
    for preset in given.presets:
        for width in given.widths:
            print(f"{preset}, w = {width}")
            encoder = Encoder(atlas.markers, settings(preset, width)).to(DEVICE)
            check(encoder, device_atlas, rng)
            compare_towers(encoder, measured)
            compare_steps(encoder, device_atlas, given.steps)
            embed(encoder, device_atlas, rng)
    if not DRY:
        print(f"peak memory {torch.cuda.max_memory_allocated() / 1e9:.1f} GB")
        torch.cuda.empty_cache()  # RAPIDS has a pool of its own
    compare_clustering(given.cells)


if __name__ == "__main__":
    main()
