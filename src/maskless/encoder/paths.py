"""Which code computes the towers' features: fused on a CPU, Triton on a GPU, or the reference.

- ``"fused"``: float32 on a CPU.
- ``"triton"``: float32 or bfloat16 parameters on an NVIDIA GPU; feature maps and operands of
  matrix products in bfloat16, sums in float32. ``"triton-float32"``: all in float32, slower.
- ``"reference"``: the plain module; all else, or when asked for.

What is asked for is used where it can run; elsewhere the fastest that can. Where a GPU has to take
the reference, a line says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from maskless.encoder.fused import fused_features
from maskless.errors import SettingsError
from maskless.gpu import tell_once, why_no_kernels

if TYPE_CHECKING:
    from maskless.encoder.model import Encoder

Path = Literal["fused", "triton", "triton-float32", "reference"]

VARIABLE = "MASKLESS_ENCODER"
_ASKED = ("auto", "fused", "triton", "triton-float32", "reference")
_MOST_WEIGHTS = 64 * 256  # of a block's matrix: several lie in a GPU processor's own memory


def checked_path(path: str) -> str:
    """Give back the name of a path, or "auto".

    Raises
    ------
    SettingsError
        If it is something else.
    """
    if path not in _ASKED:
        names = ", ".join(f'"{name}"' for name in _ASKED)
        raise SettingsError(f'the encoder\'s path is one of {names}, not "{path}"')
    return path


def path_of(encoder: Encoder, asked: str) -> Path:
    """Give the path of an encoder; where its parameters lie decides."""
    weight = encoder.stem_weight
    triton: Path = "triton-float32" if asked == "triton-float32" else "triton"
    if asked == "reference" or weight.device.type not in ("cpu", "cuda"):
        return "reference"
    if weight.device.type == "cuda":
        return "reference" if _why_no_triton(encoder) else triton
    if weight.dtype != torch.float32:
        return "reference"
    return triton if asked == triton and not _why_no_triton(encoder) else "fused"


def path_for(encoder: Encoder, asked: str, views_bchw: Tensor) -> Path:
    """Give the path that features of views take, and say so if a GPU has to take a slow one."""
    if views_bchw.requires_grad and torch.is_grad_enabled():
        return "reference"
    path = path_of(encoder, asked)
    if path == "reference" != asked and views_bchw.device.type == "cuda":
        tell_once(
            "the encoder runs as its plain reference on the GPU, several times slower than its "
            f"kernels: {_why_no_triton(encoder)}"
        )
    return path


def fast_features(encoder: Encoder, path: Path, views_bchw: Tensor) -> Tensor:
    """Features (B, C, K) by another path than the reference, without gradient to the views."""
    pool_weights_yx = encoder._pool_weights(*views_bchw.shape[2:])
    if path == "fused":
        return fused_features(encoder, views_bchw, pool_weights_yx)
    from maskless.encoder.triton_towers import triton_features

    precision: Literal["float32", "bfloat16"] = "bfloat16" if path == "triton" else "float32"
    return triton_features(encoder, views_bchw, pool_weights_yx, precision)


def _why_no_triton(encoder: Encoder) -> str:
    from maskless.encoder.triton_plan import filled

    weight, chosen = encoder.stem_weight, encoder.settings
    if weight.dtype not in (torch.float32, torch.bfloat16):
        return f"the parameters are {weight.dtype}, not float32"
    if filled(chosen.width) * filled(chosen.width * chosen.expansion) > _MOST_WEIGHTS:
        return f"width {chosen.width} and expansion {chosen.expansion} are too large together"
    return why_no_kernels(weight.device)
