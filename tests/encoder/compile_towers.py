"""Compiles all kernels for an H100 or H200 (sm_90), which needs no GPU: run as a program."""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from maskless.cells import views_gpu_kernel
from maskless.encoder import triton_backward, triton_kernels, triton_towers
from maskless.encoder.fused_plan import Shape
from maskless.encoder.triton_plan import make_triton_plan

KINDS = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int64: "*i64",
    torch.int32: "*i32",
}
OPTIONS = ("num_warps", "num_stages", "maxnreg")


class Compiled:
    """Stands for a kernel: where it would start, it is compiled."""

    names: set[str]

    def __init__(self, kernel: Any, names: set[str]) -> None:
        self.kernel, self.names = kernel, names

    def __getitem__(self, grid: Any) -> Any:
        return self.compile

    def compile(self, *given: Any, **chosen: Any) -> None:
        options = {k: v for k in OPTIONS if (v := chosen.pop(k, None)) is not None}
        if "fast" in chosen:
            chosen["fast"] = True
        names = self.kernel.arg_names
        signature = {
            name: KINDS[value.dtype] if isinstance(value, torch.Tensor) else "i32"
            for name, value in zip(names, given, strict=False)
        }
        signature |= dict.fromkeys(chosen, "constexpr")
        aligned = {
            (i,): [["tt.divisibility", 16]]
            for i, value in enumerate(given)
            if isinstance(value, torch.Tensor)
        }
        constants = {(names.index(name),): value for name, value in chosen.items()}
        source = ASTSource(self.kernel, signature, constants, aligned)
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
        assert compiled.asm["cubin"]
        self.names.add(self.kernel.__name__)


def main() -> None:
    names: set[str] = set()
    cpu = torch.device("cpu")
    plan = make_triton_plan(Shape(8, (2, 1), 3, 2, 2, True), 14, 14, cpu)
    run = triton_towers._Run(plan, 4, 2, torch.bfloat16, cpu)
    views, weights, pool = torch.zeros(4, 2, 14, 14), torch.zeros(2, plan.n_weights), torch.ones(16)
    patches = [
        mock.patch.object(module, name, Compiled(value, names))
        for module in (triton_kernels, triton_backward, views_gpu_kernel)
        for name, value in vars(module).items()
        if isinstance(value, triton.JITFunction) and name.endswith(("forward", "backward"))
    ]
    for patch in patches:
        patch.start()
    maps = [run.stem_forward(views, weights)]
    for number in range(2):
        maps.append(run.block_forward(number, maps[-1], weights))
    d_out = run.last_forward(maps[-1], weights, pool)
    sums = torch.zeros(run.programs, *weights.shape)
    for number in (2, 1, 0):
        d_out = run.block_backward(number, maps[number], weights, pool, d_out, sums)
    run.stem_backward(views, d_out, sums)
    Compiled(views_gpu_kernel.gather, names).compile(
        torch.zeros(8, 40, dtype=torch.float16),
        torch.zeros(1, dtype=torch.int64),
        torch.zeros(1, 6, dtype=torch.int32),
        torch.zeros(1, 8),
        torch.zeros(1, 34),
        torch.zeros(8),
        torch.zeros(1, 34, 16, 16),
        markers=34,
        wide=40,
        size=16,
        noise_length=1 << 20,
        augmented=True,
        tile=64,
        chunk=16,
    )
    print(len(names), "kernels")


if __name__ == "__main__":
    main()
