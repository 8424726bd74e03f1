"""Views of cells beside the usual ways of cutting and turning them, in one run.

``python benchmarks/views.py [--markers 34 12 50] [--rounds 7] [--views 3072]``

Views of 16 px at random cells of images that are larger than the processor's cache; augmented
(flips, any angle, zoom .9 to 1.1, gain a marker, noise) and plain. Compared, in turns:

- maskless: `gather_views` from an atlas of halves, and from one of float32;
- extract, rotate, crop: 32 px cut out for all markers, OpenCV scales, OpenCV rotates, gain, NumPy
  noise, crop, to a tensor (two interpolations: another function than the others). Plain: cut out
  16 px at the nearest whole pixel, to a tensor;
- grid_sample: 32 px cut out, then one `torch.nn.functional.grid_sample` of the batch;
- index_select: four `index_select` on the pixels in PyTorch, `torch.randn` for the noise.

Views for each second of one processor (all but maskless make an eighth of the views, in batches
of 64, which suits them), medians over rounds; how many times slower each is, medians of the rounds'
ratios, and the least. Then the largest error against `scipy.ndimage.affine_transform` in float64;
two threads against one; and the share of the measured bandwidth of plain copies that the bytes
which must move would take (distinct pixels read, noise read, views written).

Needs opencv-python-headless beside maskless.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import affine_transform
from torch import Tensor
from torch.nn import functional

from maskless.cells import Atlas
from maskless.cells.views import Augmentations, draw_augmentations, gather_views
from maskless.config import TrainSettings
from maskless.images import Channel, Image, ImageSet, Panel

try:
    import cv2
except ImportError:
    sys.exit("this benchmark compares with OpenCV: pip install opencv-python-headless")

SIZE, PATCH, BATCH = 16, 32, 64
IMAGES, SIDE = 4, 1000
SETTINGS = TrainSettings(
    zoom=(0.9, 1.1), gain=(0.5, 2.0), noise=0.1, jitter_um=0.0, marker_dropout=0.0
)


@dataclass(frozen=True)
class Cells:
    """Images as each way likes them, and the views to make: all ways get the same ones."""

    halves: Atlas
    floats: Atlas
    image_v: NDArray[np.int64]
    centre_v2: NDArray[np.float64]
    how: Augmentations | None

    def first(self, n: int) -> Cells:
        how = self.how
        if how is not None:
            how = Augmentations(
                how.matrices_v22[:n],
                None,
                how.gain_vc[:n],
                None if how.noise_sigma_v is None else how.noise_sigma_v[:n],
                None if how.noise_start_v is None else how.noise_start_v[:n],
            )
        return replace(self, image_v=self.image_v[:n], centre_v2=self.centre_v2[:n], how=how)

    def batches(self) -> Iterable[slice]:
        return (slice(start, start + BATCH) for start in range(0, len(self.image_v), BATCH))


def make_cells(markers: int, views: int) -> Cells:
    rng = np.random.default_rng(0)
    panel = Panel(tuple(Channel(f"m{i}") for i in range(markers)))
    images = [
        Image(f"i{i}", rng.random((markers, SIDE, SIDE), np.float32), panel.names, 1.0)
        for i in range(IMAGES)
    ]
    atlas = [
        Atlas.build(ImageSet.from_images(images, panel), 1.0, 24.0, dtype=dtype)
        for dtype in ("float16", "float32")
    ]
    image_v = rng.integers(0, IMAGES, views)
    centre_v2 = rng.uniform(0, SIDE - 1, (views, 2))
    how = draw_augmentations(rng, views, markers, SETTINGS)
    return Cells(atlas[0], atlas[1], image_v, centre_v2, how)


def maskless_halves(cells: Cells) -> NDArray[np.float32]:
    return gather_views(cells.halves, cells.image_v, cells.centre_v2, SIZE, cells.how)


def maskless_floats(cells: Cells) -> NDArray[np.float32]:
    return gather_views(cells.floats, cells.image_v, cells.centre_v2, SIZE, cells.how)


def extract_rotate_crop(cells: Cells) -> Tensor:
    """A view at a time, as data loaders do it; draws its own random numbers."""
    rng, made = np.random.default_rng(1), []
    blocks = [cells.floats.block(i) for i in range(IMAGES)]
    place_v2 = np.rint(cells.floats.position(cells.image_v, cells.centre_v2)).astype(int)
    reach = PATCH // 2 if cells.how else SIZE // 2
    for image, (y, x) in zip(cells.image_v, place_v2, strict=True):
        patch = blocks[image][y - reach : y + reach, x - reach : x + reach]
        if cells.how is not None:
            for axis in (0, 1):
                if rng.random() < 0.5:
                    patch = np.flip(patch, axis)
            for angle, zoom in ((0.0, rng.uniform(0.9, 1.1)), (rng.uniform(0, 360), 1.0)):
                matrix = cv2.getRotationMatrix2D((reach, reach), angle, zoom)
                patch = cv2.warpAffine(np.ascontiguousarray(patch), matrix, (PATCH, PATCH))
            patch = patch * rng.uniform(0.5, 2.0, patch.shape[2])
            patch = patch + rng.normal(0, rng.uniform(0, 0.1), patch.shape)
            edge = (PATCH - SIZE) // 2
            patch = patch[edge : edge + SIZE, edge : edge + SIZE]
        made.append(torch.from_numpy(np.ascontiguousarray(patch.transpose(2, 0, 1))).float())
    return torch.stack(made)


def places(cells: Cells, v: slice, origin_v2: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """Row and column of each pixel of the views, less an origin: float32 is exact enough then."""
    offset = torch.arange(SIZE, dtype=torch.float32) - (SIZE - 1) / 2
    i, j = torch.meshgrid(offset, offset, indexing="ij")
    matrices = np.eye(2)[None] if cells.how is None else cells.how.matrices_v22[v]
    m = torch.from_numpy(matrices).float()[..., None, None]
    position_v2 = cells.floats.position(cells.image_v[v], cells.centre_v2[v]) - origin_v2
    centre = torch.from_numpy(position_v2).float()[..., None, None]
    y, x = (centre[:, a] + m[:, a, 0] * i + m[:, a, 1] * j for a in (0, 1))
    return y, x


def finished(views: Tensor, cells: Cells, v: slice) -> Tensor:
    """With gain and noise; markers in the second axis."""
    if cells.how is not None:
        views = views * torch.from_numpy(cells.how.gain_vc[v])[..., None, None]
        if cells.how.noise_sigma_v is not None:
            sigma = torch.from_numpy(cells.how.noise_sigma_v[v])[:, None, None, None]
            views = views + torch.randn(views.shape) * sigma
    return views


def grid_sample(cells: Cells) -> Tensor:
    made = []
    blocks = [cells.floats.block(i) for i in range(IMAGES)]
    whole_v2 = np.floor(cells.floats.position(cells.image_v, cells.centre_v2)).astype(int)
    for v in cells.batches():
        corner_v2 = whole_v2[v] - PATCH // 2
        patches = torch.empty(len(corner_v2), len(cells.floats.markers), PATCH, PATCH)
        for patch, image, (y, x) in zip(patches, cells.image_v[v], corner_v2, strict=True):
            cut = blocks[image][y : y + PATCH, x : x + PATCH]
            patch.copy_(torch.from_numpy(cut).permute(2, 0, 1))
        y, x = places(cells, v, corner_v2)
        grid = (2 * torch.stack([x, y], -1) + 1) / PATCH - 1
        views = functional.grid_sample(patches, grid, align_corners=False)
        made.append(finished(views, cells, v))
    return torch.cat(made)


def index_select(cells: Cells) -> Tensor:
    made = []
    markers = len(cells.floats.markers)
    pixels = torch.from_numpy(cells.floats.values).view(-1, markers)
    whole_v2 = np.floor(cells.floats.position(cells.image_v, cells.centre_v2)).astype(int)
    for v in cells.batches():
        y, x = places(cells, v, whole_v2[v])
        top, left = y.floor(), x.floor()
        down, right = (y - top).reshape(-1, 1), (x - left).reshape(-1, 1)
        columns = torch.from_numpy(cells.floats.columns_i[cells.image_v[v]])[:, None, None]
        first = torch.from_numpy(cells.floats.offset_i[cells.image_v[v]] // markers)[:, None, None]
        row, column = torch.from_numpy(whole_v2[v])[..., None, None].unbind(1)
        at = first + (row + top.long()) * columns + column + left.long()
        below = (at + columns).reshape(-1)
        at = at.reshape(-1)
        views = pixels.index_select(0, at) * ((1 - down) * (1 - right))
        views.addcmul_(pixels.index_select(0, at + 1), (1 - down) * right)
        views.addcmul_(pixels.index_select(0, below), down * (1 - right))
        views.addcmul_(pixels.index_select(0, below + 1), down * right)
        views = views.view(-1, SIZE * SIZE, markers).transpose(1, 2)
        made.append(finished(views.reshape(-1, markers, SIZE, SIZE), cells, v))
    return torch.cat(made)


Way = Callable[[Cells], "Tensor | NDArray[np.float32]"]
WAYS: dict[str, Way] = {
    "maskless, halves": maskless_halves,
    "maskless, float32": maskless_floats,
    "extract, rotate, crop": extract_rotate_crop,
    "grid_sample": grid_sample,
    "index_select": index_select,
}


def share_of(way: str, cells: Cells) -> Cells:
    views = len(cells.image_v)
    return cells if way.startswith("maskless") else cells.first(max(BATCH, views // 8))


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def compare(title: str, cells: Cells, rounds: int) -> float:
    """Print the table; views a second of maskless from halves."""
    taken: dict[str, list[float]] = {name: [] for name in WAYS}
    for number in range(rounds + 1):
        for name, way in WAYS.items():
            given = share_of(name, cells)
            cpu, _ = seconds(lambda way=way, given=given: way(given))
            if number:  # the first round compiles and warms up
                taken[name].append(cpu / len(given.image_v))
    print(title)
    base = taken["maskless, halves"]
    for name, each in taken.items():
        ratios = [one / ours for one, ours in zip(each, base, strict=True)]
        print(
            f"  {name:22s} {1 / statistics.median(each):8,.0f} views / CPU s"
            f"   x {statistics.median(ratios):5.1f} (least {min(ratios):.1f})",
            flush=True,
        )
    return 1 / statistics.median(base)


def errors(cells: Cells, views: int = 64) -> None:
    """Largest error against scipy, without noise."""
    few = cells.first(views)
    few = replace(few, how=Augmentations(few.how.matrices_v22, None, few.how.gain_vc))
    true = np.empty((views, len(cells.floats.markers), SIZE, SIZE))
    position_v2 = cells.floats.position(few.image_v, few.centre_v2)
    for v, (image, centre) in enumerate(zip(few.image_v, position_v2, strict=True)):
        corner = np.floor(centre).astype(int) - PATCH // 2
        cut = cells.floats.block(image)[corner[0] :, corner[1] :][:PATCH, :PATCH]
        matrix = few.how.matrices_v22[v]
        offset = centre - corner - matrix @ ([(SIZE - 1) / 2] * 2)
        for c, gain in enumerate(few.how.gain_vc[v]):
            plane = cut[..., c].astype(np.float64)
            true[v, c] = gain * affine_transform(plane, matrix, offset, (SIZE, SIZE), order=1)
    print("largest error against scipy.ndimage (pixels 0 to 1, gain up to 2)")
    for name, way in WAYS.items():
        if way is not extract_rotate_crop:
            print(f"  {name:22s} {np.abs(np.asarray(way(few)) - true).max():.1e}")


def threads(cells: Cells, rounds: int) -> None:
    before = os.environ.get("OMP_NUM_THREADS")
    wall: dict[str, list[float]] = {"1": [], "2": []}
    for _ in range(rounds):
        for count, each in wall.items():
            os.environ["OMP_NUM_THREADS"] = count
            each.append(seconds(lambda: maskless_halves(cells))[1])
    os.environ.pop("OMP_NUM_THREADS")
    if before is not None:
        os.environ["OMP_NUM_THREADS"] = before
    ratios = [one / two for one, two in zip(wall["1"], wall["2"], strict=True)]
    print(
        f"two threads: {statistics.median(ratios):.2f} times as fast as one (median),"
        f" {max(ratios):.2f} at best"
    )


def limit(cells: Cells, rate: float) -> None:
    """Bytes that views must move, beside what plain copies move in a second on one thread."""
    source, target = np.ones(1 << 26, np.float32), np.zeros(1 << 26, np.float32)
    copies = [seconds(lambda: np.copyto(target, source))[0] for _ in range(7)]
    bandwidth = 2 * source.nbytes / statistics.median(copies)
    sample = cells.first(256)
    whole_v2 = np.floor(cells.floats.position(sample.image_v, sample.centre_v2))
    y, x = (place.numpy() for place in places(sample, slice(None), whole_v2))
    distinct = [
        len({(a + i, b + j) for a, b in zip(*at, strict=True) for i in (0, 1) for j in (0, 1)})
        for at in zip(*(np.floor(p).reshape(len(y), -1).astype(int) for p in (y, x)), strict=True)
    ]
    markers, item = len(cells.halves.markers), cells.halves.values.itemsize
    read = statistics.mean(distinct) * markers * item
    written = markers * SIZE**2 * 4
    moved = read + written * (2 if sample.how and sample.how.noise_sigma_v is not None else 1)
    print(
        f"  moves {moved / 1024:.0f} KiB a view: {moved * rate / 1e9:.1f} GB/s of"
        f" {bandwidth / 1e9:.1f} GB/s that copies reach, {moved * rate / bandwidth:.0%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markers", type=int, nargs="+", default=[34, 12, 50])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--views", type=int, default=3072)
    given = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    for markers in given.markers:
        cells = make_cells(markers, given.views)
        for name, how in (("augmented", cells.how), ("plain", None)):
            chosen = replace(cells, how=how)
            rate = compare(f"{markers} markers, {name}", chosen, given.rounds)
            limit(chosen, rate)
        if markers == given.markers[0]:
            errors(cells)
            os.environ.pop("OMP_NUM_THREADS")
            threads(cells, given.rounds)
            os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.pop("OMP_NUM_THREADS")
    if before is not None:
        os.environ["OMP_NUM_THREADS"] = before


if __name__ == "__main__":
    main()
