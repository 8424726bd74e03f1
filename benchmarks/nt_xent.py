"""NT-Xent beside the ways with N x N tensors: loss and gradient, time and memory, in one run.

``python benchmarks/nt_xent.py [--views 3072] [--cells 768] [--length 128] [--rounds 15]``

Projections of four views of each cell (length 128 behind the head, 256 without it), temperature
0.2, float32, one thread. Compared, in turns:

- maskless: `maskless.training.nt_xent`, one pass in chunks, the gradient made on the way;
- masks: boolean masks of positives over all pairs, log-softmax, autograd;
- logsumexp: the same without a mask of positives, by autograd; and compiled (``--compiled``);
- lightly: the formula of lightly's NTXentLoss, written here, over the six pairs of views (another
  loss: the other views of a cell are negatives in each pair).

CPU and wall milliseconds, medians; how many times the CPU time of maskless each needs (medians of
the rounds' ratios, and the least); the share of the processor's measured speed of matrix products
that the three products of maskless reach; what each adds to the highest memory of a process of its
own; errors against the masks in float64.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from maskless.training import nt_xent

TEMPERATURE = 0.2

Loss = Callable[[Tensor, int], Tensor]


def ours(z_nd: Tensor, cells: int) -> Tensor:
    return nt_xent(z_nd, cells, TEMPERATURE)


def masks(z_nd: Tensor, cells: int) -> Tensor:
    z_nd = normalize(z_nd, dim=1)
    cell = torch.arange(cells).repeat(len(z_nd) // cells)
    oneself = torch.eye(len(z_nd), dtype=torch.bool)
    positive = (cell[:, None] == cell) & ~oneself
    score = (z_nd @ z_nd.T / TEMPERATURE).masked_fill(oneself, -torch.inf)
    log_share = score - torch.logsumexp(score, 1, keepdim=True)
    return -(log_share.masked_fill(~positive, 0).sum(1) / positive.sum(1)).mean()


def logsumexp(z_nd: Tensor, cells: int) -> Tensor:
    z_nd = normalize(z_nd, dim=1)
    views = len(z_nd) // cells
    score = (z_nd @ z_nd.T / TEMPERATURE).fill_diagonal_(-torch.inf)
    of_cell = z_nd.view(views, cells, -1).sum(0).repeat(views, 1)
    positive = (z_nd * (of_cell - z_nd)).sum(1) / (views - 1) / TEMPERATURE
    return (torch.logsumexp(score, 1) - positive).mean()


def lightly(z_nd: Tensor, cells: int) -> Tensor:
    views = normalize(z_nd, dim=1).split(cells)
    others = ~torch.eye(cells, dtype=torch.bool)
    losses = []
    for a, b in combinations(views, 2):
        aa, ab = a @ a.T / TEMPERATURE, a @ b.T / TEMPERATURE
        ba, bb = b @ a.T / TEMPERATURE, b @ b.T / TEMPERATURE
        aa, bb = aa[others].view(cells, -1), bb[others].view(cells, -1)
        logits = torch.cat([torch.cat([ab, aa], 1), torch.cat([ba, bb], 1)])
        losses.append(cross_entropy(logits, torch.arange(cells).repeat(2)))
    return torch.stack(losses).mean()


LOSSES: dict[str, Loss] = {
    "maskless": ours,
    "masks": masks,
    "logsumexp": logsumexp,
    "lightly": lightly,
}


def step(loss: Loss, z_nd: Tensor, cells: int) -> tuple[float, Tensor]:
    z_nd = z_nd.detach().requires_grad_()
    value = loss(z_nd, cells)
    value.backward()
    assert z_nd.grad is not None
    return float(value.detach()), z_nd.grad


def make(views: int, length: int) -> Tensor:
    return torch.randn(views, length, generator=torch.Generator().manual_seed(0))


def added_mib(name: str, given: argparse.Namespace) -> float:
    """Highest memory of a process that takes one step, above that before it."""
    command = [sys.executable, __file__, "--memory", name]
    for key in ("views", "cells", "length"):
        command += [
            f"--{key}",
            str(getattr(given, key)[0] if key == "length" else vars(given)[key]),
        ]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def memory_mib(key: str) -> float:
    """What Linux says of this process: VmRSS = memory now, VmHWM = highest since it was reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {key} in /proc/self/status")


def print_added_mib(name: str, given: argparse.Namespace) -> None:
    z_nd = make(given.views, given.length[0])
    step(LOSSES[name], z_nd[:32], 8)  # what the first call loads
    Path("/proc/self/clear_refs").write_text("5")
    before = memory_mib("VmRSS")
    step(LOSSES[name], z_nd, given.cells)
    print(memory_mib("VmHWM") - before)


def compare(length: int, given: argparse.Namespace) -> None:
    z_nd = make(given.views, length)
    true, true_gradient = step(masks, z_nd.double(), given.cells)
    ways = dict(LOSSES)
    if given.compiled:
        ways["logsumexp, compiled"] = torch.compile(logsumexp)
    a = torch.rand(1024, 1024)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ["product", *ways]}
    for number in range(given.rounds + 1):
        for name, rows in taken.items():
            cpu, wall = time.process_time(), time.perf_counter()
            if name == "product":
                a @ a
            else:
                step(ways[name], z_nd, given.cells)
            row = (time.process_time() - cpu, time.perf_counter() - wall)
            if number:  # the first round compiles and warms up
                rows.append(row)
    speed = 2 * 1024**3 / statistics.median(cpu for cpu, _ in taken.pop("product"))
    print(f"{given.views} views of {given.cells} cells, length {length}")
    base = [cpu for cpu, _ in taken["maskless"]]
    for name, rows in taken.items():
        ratios = [cpu / one for (cpu, _), one in zip(rows, base, strict=True)]
        cpu, wall = (1e3 * statistics.median(column) for column in zip(*rows, strict=True))
        print(
            f"  {name:22s} CPU {cpu:7.1f} ms  wall {wall:7.1f} ms"
            f"  x {statistics.median(ratios):5.2f} (least {min(ratios):.2f})",
            flush=True,
        )
    reached = 3 * 2 * given.views**2 * length / statistics.median(base)
    print(
        f"  maskless: {reached / 1e9:.0f} GFLOP/s in its three products, "
        f"{reached / speed:.0%} of what a product of 1024 x 1024 reaches ({speed / 1e9:.0f})"
    )
    for name in ("maskless", "masks", "logsumexp"):
        value, gradient = step(ways[name], z_nd, given.cells)
        worst = float((gradient - true_gradient).abs().max() / true_gradient.abs().max())
        print(f"  {name:22s} loss off by {abs(value / true - 1):.0e}, gradient by {worst:.0e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--views", type=int, default=3072)
    parser.add_argument("--cells", type=int, default=768)
    parser.add_argument("--length", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--memory", choices=LOSSES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.memory:
        print_added_mib(given.memory, given)
        return
    for length in given.length:
        compare(length, given)
    added = {name: added_mib(name, given) for name in LOSSES}
    print(f"memory that a step adds (length {given.length[0]})")
    for name, mib in added.items():
        print(f"  {name:22s} {mib:6.0f} MiB  x {mib / added['maskless']:.1f}")


if __name__ == "__main__":
    main()
